/*
 * write: putting one entry into a bucket, exactly once.
 *
 * Used by the handlers. A write carries an id of its own, so that a copy sent
 * again after a lost ack is dropped by the server and answered with the first one's
 * revision. A write with a condition is sent again as an atomic batch of one, where
 * the server checks the id before the condition; where the bucket has no batches,
 * the key's last message is read to find out what became of the first copy. When and
 * in whose company it is sent first, group decides.
 */
#ifndef DAEMON_STORE_WRITE_H
#define DAEMON_STORE_WRITE_H

#include "daemon/arena.h"
#include "daemon/nats/kv.h"
#include "daemon/store/bucket.h"
#include "daemon/store/operation.h"
#include "daemon/store/read.h"
#include "daemon/store/store.h"

/* The revision that was written, or an error (then 0). */
typedef void write_done_fn(void *arg, uint64_t revision, const struct error *error);

struct write {
    /* Set by the caller; what is pointed to is borrowed until done was called. */
    const char *bucket;
    struct operation operation;
    uint64_t deadline_ms;
    write_done_fn *done;
    void *arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct bucket *handle;
    struct bucket_wait wait;
    struct request request;
    struct error error; /* to answer when the look was in vain */
    struct operation_message message;
    uint64_t expected; /* sequence that the condition names */
    bool settle;       /* the batch of one said 'duplicate': ask for its sequence */
    unsigned condition_tries;
    struct timer try_timer; /* before the next of them */
    char id[STORE_ID_BYTES];
    /* of group */
    struct group *group; /* NULL: has none, or is through with it */
    struct write *next_in_group, *previous_in_group;
    struct timer group_timer;
    bool is_in_batch;
};

/* Writes. The memory of *write, zeroed but for what the caller sets, and the arena live until done was called. */
void write_start(struct store *store, struct arena *arena, struct write *write);

/* --- For group ------------------------------------------------------------------------------------- */

/* Sends the write as a message of its own. */
void write_send_alone(struct write *write);

/* The write was part of a batch, which landed, or failed in a way that nothing can be done about. */
void write_finish(struct write *write, uint64_t revision, const struct error *error);

#endif
