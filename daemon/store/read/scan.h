/*
 * scan: reads what a bucket holds: the history of a key, or the bucket's keys.
 *
 * Used by the handlers, and by near for the keys of a bucket that is in memory. Each reads a consumer to its end (see
 * consumer) and calls back once, with everything or with an error. What it gathers meanwhile is bounded by bytes_max
 * and take_memory. Keys are gathered in byte order, and freed in slices: a million take longer than a turn may.
 */
#ifndef DAEMON_STORE_SCAN_H
#define DAEMON_STORE_SCAN_H

#include "daemon/base/arena.h"
#include "daemon/nats/consumer.h"
#include "daemon/nats/kv.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/context.h"
#include "daemon/store/read/key_order.h"

struct read_history {
    const char *bucket;
    const char *key;
    uint64_t deadline_ms;
    /* The entries, oldest first, in the arena and without their messages; or an error. */
    void (*done)(void *arg, const struct kv_entry *entries, size_t count, const struct error *error);
    void *arg;
    size_t bytes_max;                             /* of values, before it fails as too_large */
    bool (*take_memory)(void *arg, size_t bytes); /* accounts for what is gathered; false: there is no more */
    void *memory_arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct bucket *handle;
    struct bucket_wait wait;
    struct consumer_reading reading;
    const char *subject;
    struct kv_entry *entries;
    size_t count, capacity, bytes;
    struct error error;
};

void read_history(struct store *store, struct arena *arena, struct read_history *history);

struct read_keys {
    const char *bucket;
    const char *filter; /* NULL: all */
    const char *after;  /* NULL: from the beginning; else only keys behind this one in byte order */
    size_t limit;       /* 0: all that bytes_max allows */
    uint64_t deadline_ms;
    size_t bytes_max;                             /* of keys, before it fails as too_large */
    bool (*take_memory)(void *arg, size_t bytes); /* accounts for what is gathered; false: there is no more */
    void *memory_arg;
    /* The keys that are there, in byte order; or an error. They live as long as the call. */
    void (*done)(void *arg, const char *const *keys, size_t count, const struct error *error);
    void *arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct bucket *handle;
    struct bucket_wait wait;
    struct consumer_reading reading;
    const char *subject;
    struct key_order names;
    bool has_dropped; /* a key was left out because the limit was reached */
    size_t count, bytes;
    size_t memory_bytes; /* that the names take */
    size_t taken_bytes;  /* that take_memory has accounted for */
    struct error error;
};

void read_keys(struct store *store, struct arena *arena, struct read_keys *keys);

/* --- For near: the steps of a listing whose keys come from memory --- */

void read_keys_begin(struct store *store, struct arena *arena, struct read_keys *keys);

/* Add the next key in byte order. False: no more are wanted, or keys->error says what is wrong. */
bool read_keys_add(struct read_keys *keys, const char *key);

/* Forget the keys that were added, and read all of them from NATS. */
void read_keys_from_nats(struct read_keys *keys);

/* End the listing: calls done, with the keys that were added or with the error. */
void read_keys_finish(struct read_keys *keys, const struct error *error);

/* --- For the facade --- */

/* Return 0, or -1 if memory ran out. */
int scan_init_all(struct store *store);

/* Free everything, the names of earlier listings included. */
void scan_free_all(struct store *store);

#endif
