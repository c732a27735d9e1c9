/*
 * batch: several messages that are written together or not at all.
 *
 * Used by txn and group_commit. A JetStream atomic batch (ADR-50) that is written at most once: its first message and
 * its last one carry ids. If its ack does not come, its outcome is determined before it is sent again: see outcome.
 */
#ifndef DAEMON_STORE_BATCH_H
#define DAEMON_STORE_BATCH_H

#include "daemon/store/bucket/bucket_request.h"
#include "daemon/store/context.h"
#include "daemon/store/journal.h"
#include "daemon/store/write/inquiry.h"
#include "daemon/store/write/ledger.h"
#include "daemon/store/write/operation.h"

/* The server's limit (ADR-50). */
#define BATCH_MESSAGES_MAX 1000u

/*
 * What a batch takes of its bucket's limit of batches: a part for the files that the server creates, and a part for its
 * messages. 32 small ones fit, or two of 1,000.
 */
#define BATCH_WEIGHTS_MAX   64u
#define BATCH_WEIGHT(count) (2u + (unsigned)(count) / 34u)

struct batch_message {
    const struct operation *operation;
    struct operation_message message;
    /* A condition that the server checks at commit: the subject's last sequence is expected. */
    bool has_condition;
    uint64_t expected;
    const char *condition_subject;      /* NULL: the message's own */
    const struct journal_call *journal; /* of the message alone; NULL: none */
};

/*
 * The sequence of the first message, the others being consecutive; or an error with its outcome. err_code: the server's
 * if it refused the batch (nothing was written), another number if it dropped a message of the batch, otherwise 0.
 */
typedef void batch_done_fn(void *arg, uint64_t first_sequence, unsigned err_code, const struct error *error);

struct batch {
    /* Set by the caller; borrowed until done was called. */
    struct bucket *bucket; /* the caller holds a reference */
    struct batch_message *messages;
    size_t count;           /* 1 to BATCH_MESSAGES_MAX */
    bool is_remembered;     /* the journal has some of its writes: an embedded server may need the keys held */
    bool has_expected_last; /* the stream's last sequence is expected_last */
    uint64_t expected_last;
    uint64_t deadline_ms;
    uint64_t owner; /* see request */
    batch_done_fn *done;
    void *arg;

    /* private */
    struct store *store;
    struct bucket_request request;
    bool asks_each; /* each message asks for an answer, because the server found the batch incomplete */
    char id[JOURNAL_MESSAGE_ID_BYTES], last_id[JOURNAL_MESSAGE_ID_BYTES];
    bool is_beginning_in_doubt; /* because of a copy of an earlier call: request_set_doubt is still to be called */
    /* While its outcome is in doubt: */
    struct outcome outcome;
    struct inquiry *inquiry;
    struct ledger_hold *holds; /* one for each message, from malloc; NULL: none */
    struct ledger_wait turn;   /* waits for other writes in doubt of its keys */
    unsigned copy_attempt;     /* the latest attempt that was a copy */
    bool has_failed;           /* the server answered error, with err_code, which leaves open what is stored */
    unsigned err_code;
    struct error error;
};

/* Send the batch. *batch is zeroed but for what the caller sets. done is called once, never from within. */
void batch_start(struct store *store, struct batch *batch);

/*
 * The same for a batch of which an earlier call has sent a copy. err_code: if that copy is not stored, end with this
 * code instead of sending another one; 0: send it.
 */
void batch_start_in_doubt(struct store *store, struct batch *batch, const struct journal_copy *copy, unsigned err_code);

/* End it without calling done. Does nothing if it has ended, or never began. */
void batch_cancel(struct batch *batch);

#endif
