/*
 * near: reads from memory.
 *
 * Used by the handlers kv and bulk. Reads with consistency cached are answered from the local copy of the bucket. In
 * embedded mode so are reads with direct, because only this daemon writes to the server. A read waits until the copy
 * has every write that this daemon acknowledged. If the copy cannot answer, NATS is asked.
 */
#ifndef DAEMON_STORE_NEAR_H
#define DAEMON_STORE_NEAR_H

#include "daemon/store/follow/local_copy.h"
#include "daemon/store/read/get.h"
#include "daemon/store/read/scan.h"

/*
 * Whether the answer must be as new as the server's: with consistency direct in embedded mode, unless the bucket is a
 * mirror or has sources. True also for a bucket that was not looked up yet.
 */
bool cached_read_must_be_current(struct store *store, const char *bucket, enum read_consistency consistency);

/* Whether a read of the bucket may be answered from memory. */
bool cached_read_may_answer(struct store *store, const char *bucket, enum read_consistency consistency);

/* Whether the copy is there and may answer now. Single keys may still need NATS. */
bool cached_read_is_ready(struct store *store, const char *bucket);

/* Counts reads for the statistics. */
void cached_read_count(struct store *store, size_t keys, bool are_from_memory);

/*
 * Looks for a key in memory; the view lives until the loop goes on. The first look at a bucket that was looked up
 * before begins its copy. WAITS, UNSURE: see cached_read_get.
 */
enum local_copy_answer cached_read_look(struct store *store, const char *bucket, const char *key, size_t length,
                                        struct cache_view *view);

/* One get, from memory or from NATS. The owner embeds it, zeroed; it lives until get.done was called. */
struct cached_read_get {
    struct read_get get; /* set by the caller as for read_get */

    /* private */
    struct arena_task task;
    struct local_copy_wait wait;
    uint64_t wait_until_ms;
};

void cached_read_get(struct store *store, struct arena *arena, struct cached_read_get *get);

/*
 * Waits until several keys can be read from memory at one point in time. The reads then see every write that this
 * daemon acknowledged, and whole transactions. The owner embeds it, zeroed; for the next keys of the same call it is
 * used again.
 */
struct cached_read_moment {
    /* Set by the caller; borrowed until ready was called. */
    const char *bucket;
    uint64_t deadline_ms;
    bool waits_for_load; /* also for a copy that is still being read: for reads of all keys */
    /* If has_come, cached_read_look_now may be called until this callback returns. If not, NATS must be asked. */
    void (*ready)(void *arg, bool has_come);
    void *arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct local_copy_wait wait;
    bool has_begun;
    uint64_t revision; /* what was acknowledged or answered when the read began */
};

/* Calls ready once, maybe from within. */
void cached_read_await_moment(struct store *store, struct arena *arena, struct cached_read_moment *moment);

/* Never WAITS. Does not count. */
enum local_copy_answer cached_read_look_now(struct store *store, const char *bucket, const char *key, size_t length,
                                            struct cache_view *view);

/* A listing of keys, from memory or from NATS. The owner embeds it, zeroed; it lives until keys.done was called. */
struct cached_read_keys {
    struct read_keys keys; /* set by the caller as for read_keys */
    bool is_direct;        /* set by the caller: a bucket that is a mirror or has sources is read from NATS */

    /* private */
    struct cached_read_moment moment;
    struct arena_task task;
    struct job job;
    const char *prefix; /* what all keys of the filter begin with */
    char *last;         /* the key that was looked at last; NULL: none yet */
};

/* A long listing takes several turns of the loop. Keys of different turns may be of different points in time. */
void cached_read_keys(struct store *store, struct arena *arena, struct cached_read_keys *keys);

#endif
