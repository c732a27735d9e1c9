/*
 * write: putting one entry into a bucket, exactly once.
 *
 * Used by the handlers. A write carries an id of its own. When its ack does not come, what became of it is found out
 * before it is sent a second time: outcome says how. The second copy has a condition, the write's own or that the key's
 * last message is still the one that was read. When and in whose company a write is sent first, group decides.
 */
#ifndef DAEMON_STORE_WRITE_H
#define DAEMON_STORE_WRITE_H

#include "daemon/base/arena.h"
#include "daemon/nats/kv.h"
#include "daemon/store/bucket/bucket_request.h"
#include "daemon/store/context.h"
#include "daemon/store/read/get.h"
#include "daemon/store/write/inquiry.h"
#include "daemon/store/write/ledger.h"
#include "daemon/store/write/operation.h"

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
    struct bucket_request request;
    struct operation_message message;
    size_t admitted_bytes; /* by room */
    struct error error;    /* to answer when a look, or an inquiry, is over */
    uint64_t expected;     /* sequence that the condition names */
    bool is_expecting;     /* it has one: of its own, or as a second copy */
    unsigned condition_tries;
    struct timer try_timer; /* before the next of them */
    /* While its outcome is in doubt: */
    struct outcome outcome;
    struct inquiry *inquiry;
    struct ledger_hold hold;
    struct ledger_wait turn; /* behind other writes in doubt of its key */
    unsigned copy_attempt;   /* the attempt that was a copy, the latest of them */
    bool is_refused;         /* that one's condition did not hold: at the sequence refused_at, where that was told */
    uint64_t refused_at;
    bool has_failed; /* the server has said error, which leaves open whether the copy was stored */
    char id[OPERATION_ID_BYTES];
    /* of group */
    struct group_commit *group; /* NULL: has none, or is through with it */
    struct write *next_in_group, *previous_in_group;
    struct timer group_commit_timer;
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
