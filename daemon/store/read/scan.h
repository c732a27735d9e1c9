/*
 * scan: reads the history of a key, or the keys of a bucket.
 *
 * Used by the handlers, and by cached_read for the keys of a bucket that is in memory. Each scan reads a consumer to
 * its end (see consumer), and then calls done once, with the result or with an error. bytes_max and take_memory limit
 * what it gathers. Keys are gathered in byte order, and freed in slices: a million keys take longer than a turn may.
 */
#ifndef DAEMON_STORE_SCAN_H
#define DAEMON_STORE_SCAN_H

#include "daemon/base/arena.h"
#include "daemon/nats/consumer.h"
#include "daemon/nats/kv.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/context.h"
#include "daemon/store/read/key_page.h"

struct scan_history {
    const char *bucket_name;
    const char *key;
    uint64_t deadline_ms;
    /* The reading starts again: discard the entries that came before. */
    void (*restart)(void *arg);
    /* The next entry, oldest first; valid during the call. Return its bytes in the answer. */
    size_t (*entry)(void *arg, const struct kv_entry *entry);
    /* The history has the count entries that came, or there was an error. */
    void (*done)(void *arg, size_t count, const struct error *error);
    void *arg;
    size_t bytes_max;                             /* of entries in the answer; above it fails as too_large */
    bool (*take_memory)(void *arg, size_t bytes); /* charges what is gathered; false: the limit is reached */
    void *memory_arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct bucket *bucket;
    struct bucket_wait wait;
    struct consumer_reading reading;
    const char *subject;
    size_t count, bytes;  /* of the entries that came */
    size_t charged_bytes; /* that take_memory has accounted for: the most of all readings */
    struct error error;
};

void scan_history(struct store *store, struct arena *arena, struct scan_history *history);

struct scan_keys {
    const char *bucket_name;
    const char *filter; /* NULL: all */
    const char *after;  /* only keys after this one in byte order; NULL: from the beginning */
    size_t limit;       /* 0: all that bytes_max allows */
    bool has_revisions; /* note the revision of each key, and the size of its value and headers; only with a limit */
    uint64_t from_sequence; /* above 0: list the keys with a message from this sequence on, also if it is a marker */
    const char *up_to;      /* only keys up to this one in byte order; NULL: to the end */
    bool may_be_short;      /* a page may have fewer keys than the limit, if some were deleted while it was read */
    uint64_t deadline_ms;
    size_t bytes_max;                             /* of keys; above it fails as too_large */
    bool (*take_memory)(void *arg, size_t bytes); /* charges what is gathered; false: the limit is reached */
    void *memory_arg;
    /* The listing, which lives until its arena ends: read its names with scan_keys_next. Or NULL and an error. */
    void (*done)(void *arg, struct scan_keys *keys, const struct error *error);
    void *arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct bucket *bucket;
    struct bucket_wait wait;
    struct consumer_reading reading;
    const char *subject;
    struct key_page page;
    size_t taken_bytes; /* that take_memory has charged */
    struct error error;
};

void scan_keys(struct store *store, struct arena *arena, struct scan_keys *keys);

/* --- A listing that is done --- */

static inline size_t scan_keys_count(const struct scan_keys *keys)
{
    return keys->page.count;
}

/* Return the bytes that the names take in an answer, at most. */
static inline size_t scan_keys_bytes(const struct scan_keys *keys)
{
    return keys->page.packed_bytes;
}

/* Return the next name in byte order; NULL at the end. *place is zeroed at first. */
static inline const char *scan_keys_next(const struct scan_keys *keys, struct key_order_place *place)
{
    return key_order_next(&keys->page.names, place);
}

/* Return the sequence up to which the listing has read: it has all messages of its keys up to there. */
static inline uint64_t scan_keys_position(const struct scan_keys *keys)
{
    return keys->reading.position;
}

/* Return the first sequence that the stream had when the listing began. */
static inline uint64_t scan_keys_first(const struct scan_keys *keys)
{
    return keys->reading.first;
}

/* --- For cached_read: the steps of a listing whose keys come from memory --- */

void scan_keys_begin(struct store *store, struct arena *arena, struct scan_keys *keys);

/* Add the next key in byte order. False: the page is full, or keys->error says what is wrong. */
bool scan_keys_add(struct scan_keys *keys, const char *key);

/* Discard the keys that were added, and read all of them from NATS. */
void scan_keys_from_nats(struct scan_keys *keys);

/* End the listing: calls done, with the keys that were added or with the error. */
void scan_keys_finish(struct scan_keys *keys, const struct error *error);

/* --- For the facade --- */

/* Return 0, or -1 if memory ran out. */
int scan_init_all(struct store *store);

/* Free everything, the names of earlier listings included. */
void scan_free_all(struct store *store);

#endif
