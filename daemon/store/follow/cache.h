/*
 * cache: the keys of one bucket in memory, and their values as far as there is room.
 *
 * Used by replica, which feeds it, and through that by reads and watches. It knows nothing of NATS but the form of an
 * entry. A key is a block of memory that stays where it is: what is known of its last entry, and its name. Its value is
 * another block, unless it was evicted. Keys are found by linear hashing (Litwin, 1980), a table that grows by one
 * chain at a time, so that no single key waits for all to be moved. They also stand in a list from the oldest revision
 * to the newest. Those that are not deleted stand in byte order. When all caches together are over their budget, values
 * leave by the CLOCK algorithm (second chance), which keeps values that were read recently. A cache that is cleared
 * leaves its blocks to the budget, which frees them a slice at a time.
 */
#ifndef DAEMON_STORE_CACHE_H
#define DAEMON_STORE_CACHE_H

#include "daemon/nats/kv.h"
#include "daemon/store/read/key_order.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of a key with more, the value is not kept. */
#define CACHE_HEADERS_MAX 16u

/* One key; all that is behind a cache_view is private. It takes 64 bytes, and what malloc, table and order add. */
struct cache_key {
    struct cache_key *older, *newer;
    struct cache_key *chained; /* the next one of its chain */
    char *value;               /* behind its headers; NULL: there is none, or an empty one without headers */
    uint64_t revision;
    int64_t created_us;
    int64_t expires_us;   /* since the epoch; 0: never */
    uint32_t value_bytes; /* also of a value that was evicted */
    uint16_t key_length;
    uint8_t flags; /* enum kv_operation is among them */
    uint8_t mark;
    char bytes[]; /* the key and a NUL */
};

/* What all caches share. */
struct cache_budget {
    struct cache *first; /* all of them */
    size_t bytes;        /* of blocks, with malloc's own, and of tables */
    size_t max_bytes;
    uint64_t evicted;
    struct cache_key *garbage; /* of caches that were cleared, linked by newer */
};

/* A walk over the keys from the oldest to the newest, while they change: what changes is met again, or later. */
struct cache_cursor {
    struct cache *cache; /* NULL: it is not in use */
    struct cache_cursor *next_cursor;
    struct cache_key *next; /* NULL: at the end, for now */
};

struct cache {
    struct cache *next, *previous;
    struct cache_budget *budget;
    struct cache_key ***segments; /* of CACHE_SEGMENT chains each */
    size_t segment_count, segment_capacity;
    size_t chain_count; /* those beyond are not in use yet */
    struct order order; /* of the keys' names, but for those whose last entry is a marker */
    size_t count;       /* of all keys */
    size_t value_count; /* of those whose last entry is a value */
    size_t bytes;
    size_t value_bytes;  /* of the values that are there */
    size_t hand;         /* of the clock: a chain, */
    unsigned hand_place; /* and how many of its keys it has passed */
    struct cache_key *oldest, *newest;
    struct cache_cursor *cursors;
    uint8_t mark; /* what a marked key has */
};

/* An entry as it is in the cache; lives until the cache is changed. */
struct cache_view {
    struct kv_entry entry;
    struct message message;
    struct message_header headers[CACHE_HEADERS_MAX];
};

void cache_init(struct cache *cache, struct cache_budget *budget);

/* Empty the cache and leave its budget. The memory of its keys counts until cache_collect has freed it. */
void cache_clear(struct cache *cache);

/* Empty the cache, which stays in its budget. Its cursors stay too, at the end. */
void cache_empty(struct cache *cache);

/* Free up to count keys of caches that were cleared. Return whether there are more. */
bool cache_collect(struct cache_budget *budget, unsigned count);

/* The key, or NULL. */
struct cache_key *cache_find(const struct cache *cache, const char *key, size_t length);

/*
 * Takes an entry, in place of what the key had, as the newest. expires_us: since the epoch, 0 for never. Without
 * with_value the value is not kept. Values of this and other caches may be evicted. NULL when memory ran out, or when
 * the budget has no room for keys alone.
 */
struct cache_key *cache_set(struct cache *cache, const struct kv_entry *entry, int64_t expires_us, bool with_value);

/* Gives a key the value of its revision, which it had lost. Where there is no memory for it, nothing happens. */
void cache_restore(struct cache *cache, struct cache_key *key, const struct kv_entry *entry, int64_t expires_us);

void cache_remove(struct cache *cache, struct cache_key *key);

/* Drops a key's value; the key stays. */
void cache_drop_value(struct cache *cache, struct cache_key *key);

static inline const char *cache_key_name(const struct cache_key *key)
{
    return key->bytes;
}

static inline enum kv_operation cache_operation(const struct cache_key *key)
{
    return (enum kv_operation)(key->flags & 3u);
}

/* Whether its value is there, or it is a marker, which has none. */
bool cache_has_value(const struct cache_key *key);

/* When its time is over, in us since the epoch; 0: never. */
static inline int64_t cache_expiry(const struct cache_key *key)
{
    return key->expires_us;
}

/* Notes that it was used, and shows it. */
void cache_read(struct cache_key *key, struct cache_view *view);

/* --- Marks: which keys were met, in a look at all that the bucket has --- */

/* From now on no key is marked but those that are set or marked. (Keys that 255 looks on end did not meet are marked
 * again.) */
void cache_unmark_all(struct cache *cache);
void cache_mark(struct cache *cache, struct cache_key *key);
bool cache_is_marked(const struct cache *cache, const struct cache_key *key);

/* --- Walks --- */

void cache_cursor_begin(struct cache *cache, struct cache_cursor *cursor);
/* The next key, NULL at the end; it goes on when there is more. */
struct cache_key *cache_cursor_next(struct cache_cursor *cursor);
/* Does nothing if the cursor is not in use. */
void cache_cursor_end(struct cache_cursor *cursor);

/* --- Byte order, of the keys that are not deleted; a place is valid until the cache is changed --- */

/* The place before the first key >= name; with is_behind, before the first key > name. */
struct order_place cache_place(const struct cache *cache, const char *name, bool is_behind);
/* The next key, NULL at the end. */
struct cache_key *cache_next_in_order(const struct cache *cache, struct order_place *place);

#endif
