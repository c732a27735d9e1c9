/*
 * cached_read: reads that memory answers if it can, and NATS otherwise.
 *
 * Used by the handlers kv and bulk. Reads with consistency cached are answered from the local copy of the bucket. In
 * embedded mode so are reads with direct, because only this daemon writes to the server. A read waits until the copy
 * has every write that this daemon acknowledged. If the copy cannot answer, NATS is asked.
 */
#ifndef DAEMON_STORE_CACHED_READ_H
#define DAEMON_STORE_CACHED_READ_H

#include "daemon/store/follow/local_copy_read.h"
#include "daemon/store/follow/walks.h"
#include "daemon/store/read/get.h"
#include "daemon/store/read/scan.h"

/*
 * Return whether the answer must be as new as the server's: with consistency direct in embedded mode, unless the bucket
 * is a mirror or has sources. True also for a bucket that was not looked up yet.
 */
bool cached_read_must_be_current(struct store *store, const char *bucket, enum read_consistency consistency);

/* Return whether a read of the bucket may be answered from memory. */
bool cached_read_may_answer(struct store *store, const char *bucket, enum read_consistency consistency);

/* Return whether there is a local copy that may answer now. Single keys may still need NATS. */
bool cached_read_is_ready(struct store *store, const char *bucket);

/* Count reads for the statistics. */
void cached_read_count(struct store *store, size_t keys, bool are_from_memory);

/* --- One key --------------------------------------------------------------------------------------- */

/*
 * Look for a key in memory; the view is valid until the caller returns to the loop. If the bucket was looked up before,
 * the first call creates its local copy. After LOCAL_COPY_WAITS or LOCAL_COPY_UNSURE call cached_read_fetch.
 */
enum local_copy_answer cached_read_try(struct store *store, const struct arena *arena, const char *bucket,
                                       const char *key, size_t length, struct cache_view *view);

/* One get, from memory or from NATS. The owner embeds it, zeroed; it lives until get.done was called. */
struct cached_read_fetch {
    struct get get; /* set by the caller as for get_start */

    /* private */
    struct arena_task task;
    struct local_copy_wait wait;
    uint64_t wait_until_ms;
};

void cached_read_fetch(struct store *store, struct arena *arena, struct cached_read_fetch *fetch);

/* --- Several keys ---------------------------------------------------------------------------------- */

/*
 * A point in time at which several keys can be read from memory. The reads see every write that this daemon
 * acknowledged before, and whole transactions. The owner embeds it, zeroed, and uses it again for the next keys of the
 * same call.
 */
struct cached_read_snapshot {
    /* Set by the caller; borrowed until ready was called. */
    const char *bucket_name;
    bool is_of_all; /* a listing: wait for what the feed has skipped, too */
    uint64_t deadline_ms;
    size_t keys; /* that the call reads, SIZE_MAX: all. If they are many, wait also for a copy that is being loaded */
    /* If has_come, cached_read_try_now may be called until this callback returns. Otherwise NATS must be asked. */
    void (*ready)(void *arg, bool has_come);
    void *arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct local_copy_wait wait;
    bool has_begun;
    bool has_waited;   /* ready is called among others that have waited for the same message */
    uint64_t revision; /* the highest that was acknowledged or answered when the read began */
};

/*
 * The number of keys that a reader of many may look at when ready is called after a wait. The rest of its work belongs
 * into a job: the others would wait for it.
 */
#define CACHED_READ_WOKEN_KEYS 32u

/* Call ready once, maybe from within. */
void cached_read_await_snapshot(struct store *store, struct arena *arena, struct cached_read_snapshot *snapshot);

/* Look for a key in a snapshot. Does not return LOCAL_COPY_WAITS, and does not count. */
enum local_copy_answer cached_read_try_now(struct store *store, const char *bucket, const char *key, size_t length,
                                           struct cache_view *view);

/*
 * Return whether a page of a bucket that is not in memory should be refused: see the error, which advises what to do
 * instead. limit: of keys; 0: there is none.
 */
bool cached_read_page_is_too_costly(struct store *store, const char *bucket, size_t limit, const char *instead,
                                    struct error *error);

/* --- All keys -------------------------------------------------------------------------------------- */

/* A listing of keys, from memory or from NATS. The owner embeds it, zeroed; it lives until keys.done was called. */
struct cached_read_keys {
    struct scan_keys keys; /* set by the caller as for scan_keys */
    bool is_direct;        /* set by the caller: a bucket that is a mirror or has sources is read from NATS */

    /* private */
    struct cached_read_snapshot snapshot;
    struct arena_task task;
    struct walk walk;
    const char *prefix; /* the filter's part before its first wildcard */
    char *last;         /* the key that was looked at last; NULL: none yet */
};

/* A long listing takes several turns of the loop. Keys of different turns may be of different points in time. */
void cached_read_keys(struct store *store, struct arena *arena, struct cached_read_keys *keys);

#endif
