/*
 * near: reads with consistency cached.
 *
 * Used by the handlers. What the replica of the bucket can vouch for is answered at once, from memory. What it can't is
 * read from NATS: of many who ask for one key at the same time by one request.
 */
#ifndef DAEMON_STORE_NEAR_H
#define DAEMON_STORE_NEAR_H

#include "daemon/store/read.h"
#include "daemon/store/replica.h"
#include "daemon/store/scan.h"

/*
 * Looks for a key in memory; the view lives until the loop goes on. The first look at a bucket has it cached from now
 * on. UNSURE: see near_get.
 */
enum replica_answer near_look(struct store *store, const char *bucket, const char *key, size_t length,
                              struct cache_view *view);

/* Whether the bucket's near cache can answer at all at this moment, as far as it is known without a look at a key. */
bool near_can_answer(struct store *store, const char *bucket);

/* How NATS must be asked so that an answer is as new as near promises. */
enum read_consistency near_consistency(struct store *store, const char *bucket);

/* One get that asks NATS, maybe together with others. The owner embeds it, zeroed; it lives until done was called. */
struct near_get {
    /* Set by the caller; borrowed until done was called. */
    const char *bucket;
    const char *key;
    uint64_t deadline_ms;
    read_entry_fn *done;
    void *arg;

    /* private */
    struct near_get *next, *previous; /* who wait for one answer */
    struct near_fetch *fetch;
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct timer timer;
    uint64_t floor; /* of the answer's revision */
    bool is_late;   /* the question was under way already */
};

/* Answers as read_get does. */
void near_get(struct store *store, struct arena *arena, struct near_get *get);

/* Answer all who still wait for their turn to be answered: when the daemon ends. */
void near_end_all(struct store *store);

/* As read_keys, from memory where that can be; else from NATS, also where that is not as new. */
void near_keys(struct store *store, struct arena *arena, struct read_keys *keys);

#endif
