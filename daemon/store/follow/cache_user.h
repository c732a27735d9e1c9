/*
 * cache_user: which user the memory of the caches counts for, and who gives memory back.
 *
 * Used by cache and contents. If all caches together exceed their budget, the user who has the most memory gives some
 * back, so that nobody can take more than an equal share from others, however many buckets he fills. But keys of
 * watches are not given up for values of others: these can be read again, and a vanished key would not be noticed. The
 * caches of a user are in classes, by the binary logarithm of the bytes of their values. So a cache with many values is
 * found without a look at all caches.
 */
#ifndef DAEMON_STORE_CACHE_USER_H
#define DAEMON_STORE_CACHE_USER_H

#include "daemon/base/table.h"

#include <stddef.h>
#include <stdint.h>

struct cache;
struct cache_budget;

#define CACHE_CLASSES 65u

/* It exists while it has caches. */
struct cache_user {
    UT_hash_handle hh; /* by id */
    uint64_t id;
    size_t bytes; /* of its caches */
    size_t cache_count;
    struct cache *by_values[CACHE_CLASSES]; /* its caches, by class; class 0 has no values */
};

/* Count the cache for a user from now on. If memory runs out, it counts for nobody: id 0. */
void cache_user_join(struct cache *cache, uint64_t id);
/* The memory of the cache no longer counts for its user. */
void cache_user_leave(struct cache *cache);

/* The cache's value_bytes have changed. */
void cache_user_note_values(struct cache *cache);

/* Return the user who has the most memory. */
struct cache_user *cache_user_largest(struct cache_budget *budget);

/*
 * Return the user who gives memory back: the one with the most memory; or the one with the most memory of those who
 * have values, if the first one has none and the largest of the caches has only keys of watches.
 */
struct cache_user *cache_user_who_gives(struct cache_budget *budget);

/* Return the user's cache with the most bytes of values, within a factor of two; NULL: it has no values. */
struct cache *cache_user_most_values(const struct cache_user *user);

/* Return the user's cache with the most memory, after a look at all of them; NULL: none has any. */
struct cache *cache_user_largest_cache(const struct cache_user *user);

#endif
