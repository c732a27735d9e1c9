/*
 * delete_matching: deletes or purges all keys of a bucket that match a filter.
 *
 * Used by the handlers. It reads the stream from beginning to end, and writes a marker for each key, a chunk of keys at
 * a time, so that watches deliver each. A marker has the revision that was read as its condition: a key that is written
 * meanwhile keeps its new value. Messages that came after the call began are not read, so it ends.
 *
 * The markers are bulk writes, which share a window with those of other calls. Few deletions run at a time; the others
 * wait for their turn.
 */
#ifndef DAEMON_STORE_DELETE_MATCHING_H
#define DAEMON_STORE_DELETE_MATCHING_H

#include "daemon/base/arena.h"
#include "daemon/nats/consumer.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/write/bulk_write.h"

/* Deletions of a session at a time; one more is refused. */
#define DELETE_MATCHING_MAX 2u

struct delete_key {
    size_t name; /* offset in the text of the chunk */
    uint64_t revision;
};

/* Keys that are deleted together. Zeroed: empty. */
struct delete_chunk {
    struct delete_key *keys;
    size_t count, capacity;
    char *text;
    size_t text_bytes, text_capacity;
};

struct delete_matching {
    /* Set by the caller, the rest zeroed; borrowed until done was called. */
    const char *bucket_name;
    const char *filter;
    enum kv_operation kind; /* KV_DELETE or KV_PURGE */
    uint64_t deadline_ms;
    bool (*take_memory)(void *arg, size_t bytes); /* charges what is gathered; false: the limit is reached */
    bool (*is_wanted)(void *arg);                 /* false: nobody waits for the answer */
    /* count is the number of keys that were deleted, also if there is an error. */
    void (*done)(void *arg, uint64_t count, const struct error *error);
    void *arg;

    /* private */
    struct delete_matching *next, *previous; /* all deletions */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct bucket_wait wait;
    struct bucket *bucket; /* NULL: not yet */
    const char *subject;
    struct consumer_reading reading;
    bool is_reading; /* the reading is not over; it may be paused */
    bool is_writing; /* a chunk */
    bool has_written;
    uint64_t last;                      /* keys with a higher revision stay; 0: not known yet */
    struct delete_chunk filling, chunk; /* being read, being deleted */
    struct job going_on;
    struct arena chunk_arena; /* of the chunk's writes */
    size_t charged;           /* bytes of it that take_memory has accounted for */
    struct bulk_write bulk;
    uint64_t count;
    bool is_unknown;    /* the outcome of a key */
    struct error error; /* code ERROR_NONE: none */
};

/* Start a deletion. done is called once, maybe from within. */
void delete_matching(struct store *store, struct arena *arena, struct delete_matching *deletion);

/* --- For the facade --- */

/* Return 0, or -1 if memory ran out. */
int delete_matching_init_all(struct store *store);
void delete_matching_free_all(struct store *store);

#endif
