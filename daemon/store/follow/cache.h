/*
 * cache: the keys of one bucket in memory, and their values within a budget.
 *
 * Used by contents, which fills it, and through that by reads and watches. It knows nothing of NATS but the form of an
 * entry. A key is a block of memory that does not move: its name, and what is known of its last entry. The value is
 * another block, unless it was evicted. Keys are found by linear hashing (Litwin, 1980): the table grows by one chain
 * at a time, so that adding a key never moves all others. Keys are also in a list from the oldest revision to the
 * newest, and keys that are not deleted are also in byte order. If all caches together exceed their budget, values of
 * one user are evicted: see cache_user. The CLOCK algorithm (second chance) chooses them, and keeps values that were
 * read recently. The blocks of a cache that is cleared pass to the budget, which frees them a slice at a time.
 */
#ifndef DAEMON_STORE_CACHE_H
#define DAEMON_STORE_CACHE_H

#include "daemon/nats/kv.h"
#include "daemon/store/follow/cache_user.h"
#include "daemon/store/follow/cache_value.h"
#include "daemon/store/read/key_order.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One key. Callers read it through the functions below. It takes 64 bytes, plus what malloc, table and order add. */
struct cache_key {
    struct cache_key *older, *newer;
    struct cache_key *chained; /* the next one of its chain */
    char *value;               /* see cache_value; NULL: evicted, or empty without headers */
    uint64_t revision;
    int64_t created_us;
    int64_t expires_us;   /* since the epoch; 0: never */
    uint32_t value_bytes; /* also if the value was evicted */
    uint16_t key_length;
    uint8_t flags; /* enum kv_operation is among them */
    uint8_t mark;
    char bytes[]; /* the key and a NUL */
};

/* The memory that all caches share. */
struct cache_budget {
    struct cache_user nobody; /* of caches that no user has caused */
    struct cache_user *users; /* the others, by id: uthash */
    size_t bytes;             /* of blocks, with malloc's overhead, and of tables */
    size_t max_bytes;
    uint64_t evicted;
    struct cache_key *garbage; /* of caches that were cleared, linked by newer */
};

/* A walk over the keys from the oldest to the newest. Keys may change during the walk: a changed key is met later. */
struct cache_cursor {
    struct cache *cache; /* NULL: it is not in use */
    struct cache_cursor *next_cursor;
    struct cache_key *next; /* NULL: at the end, for now */
};

struct cache {
    struct cache *next, *previous; /* of its class */
    struct cache_budget *budget;
    struct cache_user *user;
    unsigned value_class;         /* see cache_user */
    bool keeps_values;            /* set by the owner: its keys have values, unless these were evicted */
    struct cache_key ***segments; /* of SEGMENT_CHAINS chains each */
    size_t segment_count, segment_capacity;
    size_t chain_count;     /* chains in use */
    struct key_order order; /* of the names of keys that are not deleted */
    size_t count;           /* of all keys */
    size_t value_count;     /* of keys that are not deleted */
    size_t bytes;
    size_t value_bytes;  /* of values that are not evicted */
    size_t hand;         /* of the clock: a chain */
    unsigned hand_place; /* keys of that chain that the hand has passed */
    struct cache_key *oldest, *newest;
    struct cache_key *late; /* the last one that was set although there were newer ones; NULL: none */
    struct cache_cursor *cursors;
    uint8_t mark;    /* what a marked key has */
    size_t doubtful; /* see cache_doubt */
};

/* An entry in the cache. Valid until the cache changes. */
struct cache_view {
    struct kv_entry entry;
    struct message message;
    struct message_header headers[CACHE_HEADERS_MAX];
};

/* The cache's memory counts for nobody, until cache_user_join. */
void cache_init(struct cache *cache, struct cache_budget *budget);

/* Empty the cache, and remove it from its budget. Its keys count until cache_collect has freed them. */
void cache_clear(struct cache *cache);

/* Empty the cache, which stays in its budget. Its cursors stay too, at the end. */
void cache_empty(struct cache *cache);

/* Free up to count keys of cleared caches. Return whether there are more. */
bool cache_collect(struct cache_budget *budget, unsigned count);

/* Return the key; NULL: there is none. */
struct cache_key *cache_find(const struct cache *cache, const char *key, size_t length);

/*
 * Set a key's entry. In general it becomes the newest; while a reading goes on, the feed may have delivered newer ones.
 * Those of a reading come in the order of their revisions, so their places are found quickly. While a cursor is in use,
 * which may have passed that place, the entry becomes the newest in any case. expires_us: since the epoch; 0: never.
 * Without with_value the value is not kept. Values of this and other caches may be evicted. NULL: out of memory, or the
 * budget has no room, and the user who gives memory back has no values.
 */
struct cache_key *cache_set(struct cache *cache, const struct kv_entry *entry, int64_t expires_us, bool with_value);

/* Set the value of a key's present revision, which was evicted. Does nothing if there is no memory. */
void cache_restore(struct cache *cache, struct cache_key *key, const struct kv_entry *entry, int64_t expires_us);

void cache_remove(struct cache *cache, struct cache_key *key);

/* Evict a key's value; the key stays. */
void cache_drop_value(struct cache *cache, struct cache_key *key);

static inline const char *cache_key_name(const struct cache_key *key)
{
    return key->bytes;
}

static inline enum kv_operation cache_operation(const struct cache_key *key)
{
    return (enum kv_operation)(key->flags & 3u);
}

/* Return whether the value is in memory. True for a deleted key, which has none. */
bool cache_has_value(const struct cache_key *key);

/* Return when the key expires, in us since the epoch; 0: never. */
static inline int64_t cache_expiry(const struct cache_key *key)
{
    return key->expires_us;
}

/* Read the entry, and note its use for eviction. */
void cache_read(struct cache_key *key, struct cache_view *view);

/* --- Marks: which keys a reading of the whole bucket has met --- */

/* Marks have 8 bits: a key that 127 readings in a row neither met nor removed counts as marked again, or as doubtful.
 */
#define CACHE_MARK_OF_DOUBT 0x80u

/* Remove the marks of all keys. Keys that are set from now on are marked. */
static inline void cache_unmark_all(struct cache *cache)
{
    cache->mark++;
    cache->doubtful = 0;
}

static inline bool cache_is_marked(const struct cache *cache, const struct cache_key *key)
{
    return key->mark == cache->mark;
}

/* For the functions of the cache: the key is no longer doubtful. */
static inline void cache_end_doubt(struct cache *cache, const struct cache_key *key)
{
    if (key->mark == (cache->mark ^ CACHE_MARK_OF_DOUBT) && cache->doubtful > 0)
        cache->doubtful--;
}

static inline void cache_mark(struct cache *cache, struct cache_key *key)
{
    cache_end_doubt(cache, key);
    key->mark = cache->mark;
}

/*
 * The reading has met another entry of the key than this one, which it may still meet: then the key is marked.
 * cache->doubtful counts these keys, until they are marked, set or removed.
 */
static inline void cache_doubt(struct cache *cache, struct cache_key *key)
{
    cache_end_doubt(cache, key);
    key->mark = cache->mark ^ CACHE_MARK_OF_DOUBT;
    cache->doubtful++;
}

/* Return whether the key was doubtful at the end of the last reading, and this one has not met it yet. */
static inline bool cache_was_doubtful(const struct cache *cache, const struct cache_key *key)
{
    return key->mark == (uint8_t)((cache->mark - 1) ^ CACHE_MARK_OF_DOUBT);
}

/* --- Walks from the oldest revision to the newest --- */

void cache_cursor_begin(struct cache *cache, struct cache_cursor *cursor);
/* Return the next key; NULL: the end. If keys are added later, the walk continues with them. */
struct cache_key *cache_cursor_next(struct cache_cursor *cursor);
/* Does nothing if the cursor is not in use. */
void cache_cursor_end(struct cache_cursor *cursor);

/* --- Byte order, of keys that are not deleted. A place is valid until the cache changes --- */

/* Return the place before the first key >= name; with is_after, before the first key > name. */
struct key_order_place cache_place(const struct cache *cache, const char *name, bool is_after);
/* Return the next key; NULL: the end. */
struct cache_key *cache_next_in_order(const struct cache *cache, struct key_order_place *place);

#endif
