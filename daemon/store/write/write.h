/*
 * write: writes one entry of a bucket, at most once, and learns its outcome.
 *
 * Used by the handlers. A write carries an id of its own. If its ack does not come, its outcome is determined before
 * it is sent again: see outcome. The second copy has a condition: the write's own, or that the key's last message is
 * still the one that was read. group_commit decides whether a write is first sent singly or in a batch.
 */
#ifndef DAEMON_STORE_WRITE_H
#define DAEMON_STORE_WRITE_H

#include "daemon/base/arena.h"
#include "daemon/base/fair_queue.h"
#include "daemon/nats/kv.h"
#include "daemon/store/bucket/bucket_request.h"
#include "daemon/store/context.h"
#include "daemon/store/journal.h"
#include "daemon/store/write/condition_read.h"
#include "daemon/store/write/inquiry.h"
#include "daemon/store/write/ledger.h"
#include "daemon/store/write/operation.h"

/* The revision that was written, or an error (then 0). 0 without an error: see OPERATION_IF_PRESENT. */
typedef void write_done_fn(void *arg, uint64_t revision, const struct error *error);

/* What the server has answered to the copy that was sent last. */
enum write_copy_answer {
    WRITE_COPY_UNANSWERED,
    WRITE_COPY_REFUSED, /* its condition did not hold: this copy is not stored */
    WRITE_COPY_FAILED   /* error, which leaves open whether the copy is stored */
};

/* Where the write is in its bucket's group commit. */
enum write_place {
    WRITE_UNGROUPED, /* before and after its group commit, or if the bucket allows no batches */
    WRITE_QUEUED,
    WRITE_SENT_SINGLY,
    WRITE_IN_BATCH
};

struct write {
    /* Set by the caller; what is pointed to is borrowed until done was called. */
    const char *bucket_name;
    struct operation operation;
    uint64_t deadline_ms;
    write_done_fn *done;
    void *arg;
    struct journal_call journal; /* the client's id, if there is one */
    /*
     * For a write that is of several calls: a copy is about to be sent, which the journal must know for each of them.
     * NULL: it is of one call. Such a write is never sent in a batch.
     */
    void (*note_sent)(struct write *write, const struct journal_copy *copy);
    bool is_remembered; /* with note_sent: the journal has some of those calls */
    /*
     * With note_sent: if the server refuses the condition, the write ends with conflict, also if the condition holds. A
     * call may have left it, and knows only the id of the copy that was refused: another copy must be made without it.
     */
    bool ends_if_refused;
    /*
     * Only determine whether the inherited copy is stored. done gets its revision. If it is not stored, done gets
     * revision 0 without an error, and expected is the key's last sequence at that time.
     */
    bool only_asks;
    struct journal_copy inherited; /* the copy that an earlier call has sent, in doubt; without an id: there is none */

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct bucket_request request;
    struct operation_message message;
    size_t admitted_bytes;                 /* by room */
    struct error error;                    /* to answer after a read, or an inquiry */
    uint64_t expected;                     /* sequence that the condition names */
    bool has_condition;                    /* it is sent with one: its own, or that of a second copy */
    struct condition_read *condition_read; /* NULL: none was needed yet */
    unsigned condition_tries;
    struct timer try_timer; /* before the next attempt */
    /* While its outcome is in doubt: */
    struct outcome outcome;
    struct inquiry *inquiry;
    struct ledger_hold hold;
    struct ledger_wait turn;    /* waits for other writes in doubt of its key */
    bool is_beginning_in_doubt; /* because of an inherited copy: request_set_doubt is still to be called */
    unsigned copy_attempt;      /* the latest attempt that was a copy */
    enum write_copy_answer copy_answer;
    uint64_t refused_at;      /* of WRITE_COPY_REFUSED: the key's last sequence; 0: unknown */
    bool is_of_former_stream; /* an earlier call wrote it to a stream that has been recreated or set back */
    char id[JOURNAL_MESSAGE_ID_BYTES];
    /* of group_commit */
    enum write_place place;
    struct group_commit *group; /* NULL: WRITE_UNGROUPED */
    struct fair_queue_entry group_commit_entry;
    size_t group_commit_bytes; /* of its message, about */
    struct timer group_commit_timer;
};

/* Write. *write is zeroed but for what the caller sets. It and the arena live until done was called. */
void write_start(struct store *store, struct arena *arena, struct write *write);

/* --- For group_commit and repeat -------------------------------------------------------------------------- */

/* Send the write as a single message. */
void write_send_singly(struct write *write);

/* End the write: it is stored at this revision, or it has failed. */
void write_finish(struct write *write, uint64_t revision, const struct error *error);

/* --- For repeat ------------------------------------------------------------------------------------------- */

/* Start a write of which nothing was sent. */
void write_submit(struct write *write);

/* Start a write whose id and outcome are those of an earlier call, which is in doubt. */
void write_continue_in_doubt(struct write *write);

#endif
