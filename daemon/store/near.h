/*
 * near: reads from memory.
 *
 * Used by the handlers. A read with consistency cached is answered from the local copy of its bucket where that can be;
 * in embedded mode one with consistency direct, too, since nobody but this daemon writes there. What the copy cannot
 * vouch for is read from NATS. Where the feed has yet to bring what this daemon has acknowledged, a read waits for it.
 */
#ifndef DAEMON_STORE_NEAR_H
#define DAEMON_STORE_NEAR_H

#include "daemon/store/read.h"
#include "daemon/store/replica.h"
#include "daemon/store/scan.h"

/*
 * Whether a read of the bucket with this consistency has to be as new as one of the leader, although it is not asked
 * for: one with "direct" in embedded mode.
 */
bool near_is_exact(struct store *store, const char *bucket, enum read_consistency consistency);

/* Whether a read of the bucket may be answered from memory. */
bool near_is_for(struct store *store, const char *bucket, enum read_consistency consistency);

/* Whether it can be at this moment, as far as it is known without a look at a key. */
bool near_can_answer(struct store *store, const char *bucket);

/* How NATS must be asked in place of memory so that an answer is as new as was promised. */
enum read_consistency near_consistency(struct store *store, const char *bucket, enum read_consistency consistency);

/*
 * Looks for a key in memory; the view lives until the loop goes on. The first look at a bucket has it cached from now
 * on. WAITS, UNSURE: see near_get.
 */
enum replica_answer near_look(struct store *store, const char *bucket, const char *key, size_t length,
                              struct cache_view *view);

/* One get, from memory or from NATS. The owner embeds it, zeroed; it lives until get.done was called. */
struct near_get {
    struct read_get get; /* set by the caller as for read_get */

    /* private */
    struct arena_task task;
    struct replica_wait wait;
    uint64_t wait_until_ms;
};

void near_get(struct store *store, struct arena *arena, struct near_get *get);

/*
 * A moment for several keys: what this daemon has acknowledged or answered before is seen, and of a transaction all or
 * nothing. The owner embeds it, zeroed; for further moments of the same read it is used again.
 */
struct near_moment {
    /* Set by the caller; borrowed until ready was called. */
    const char *bucket;
    uint64_t deadline_ms;
    bool waits_for_load; /* of a read that has to look through the bucket anyway */
    /* has_come: near_look_now answers for this moment, until the loop goes on. Else NATS must be asked. */
    void (*ready)(void *arg, bool has_come);
    void *arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct replica_wait wait;
    bool has_begun;
    uint64_t revision; /* what was acknowledged or answered when the read began */
};

/* Calls ready once, maybe from within. */
void near_await_moment(struct store *store, struct arena *arena, struct near_moment *moment);

/* Never WAITS. */
enum replica_answer near_look_now(struct store *store, const char *bucket, const char *key, size_t length,
                                  struct cache_view *view);

/* A listing of keys, from memory or from NATS. The owner embeds it, zeroed; it lives until keys.done was called. */
struct near_keys {
    struct read_keys keys; /* set by the caller as for read_keys */
    bool is_exact; /* set by the caller: only a bucket to which nobody else writes may be answered from memory */

    /* private */
    struct near_moment moment;
    struct arena_task task;
    struct job job;
    size_t prefix_length; /* of the filter: what all its keys begin with */
    char *last;           /* the key that was looked at last; NULL: none yet */
};

/* A long listing takes several turns of the loop: each key is then told as it was at one moment of the call. */
void near_keys(struct store *store, struct arena *arena, struct near_keys *keys);

#endif
