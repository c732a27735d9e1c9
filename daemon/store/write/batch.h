/*
 * batch: several messages that are written together or not at all.
 *
 * Used by txn and group. A JetStream atomic batch (ADR-50) with exactly-once: its first message carries an id, and its
 * last one another. When its ack does not come, what became of it is found out before it is sent a second time: outcome
 * says how.
 */
#ifndef DAEMON_STORE_BATCH_H
#define DAEMON_STORE_BATCH_H

#include "daemon/store/bucket/bucket_request.h"
#include "daemon/store/context.h"
#include "daemon/store/write/inquiry.h"
#include "daemon/store/write/ledger.h"
#include "daemon/store/write/operation.h"

/* The server's limit (ADR-50). */
#define BATCH_MESSAGES_MAX 1000u

/*
 * What a batch takes of the store's limit of batches: a part for the files that the server makes, and a part for its
 * messages. 32 small ones fit, or two of 1,000.
 */
#define BATCH_WEIGHTS_MAX   64u
#define BATCH_WEIGHT(count) (2u + (unsigned)(count) / 34u)

struct batch_message {
    const struct operation *operation;
    struct operation_message message;
    /* A condition that the server checks at commit: subject's last sequence is expected. */
    bool has_condition;
    uint64_t expected;
    const char *condition_subject; /* NULL: the message's own */
};

/*
 * The sequence of the first message, the others' follow it one by one; or an error with its outcome. err_code is the
 * server's where it refused the batch (nothing was written), or another number where it dropped a message of it; 0
 * else.
 */
typedef void batch_done_fn(void *arg, uint64_t first_sequence, unsigned err_code, const struct error *error);

struct batch {
    /* Set by the caller; borrowed until done was called. */
    struct bucket *bucket; /* a reference is the caller's to hold */
    struct batch_message *messages;
    size_t count;           /* 1 to BATCH_MESSAGES_MAX */
    bool has_expected_last; /* the stream's last sequence is expected_last */
    uint64_t expected_last;
    uint64_t deadline_ms;
    const void *owner; /* see request */
    batch_done_fn *done;
    void *arg;

    /* private */
    struct store *store;
    struct bucket_request request;
    bool asks_each; /* each message asks for an answer: the batch came out incomplete */
    char id[OPERATION_ID_BYTES], last_id[OPERATION_ID_BYTES + 2];
    /* While its outcome is in doubt: */
    struct outcome outcome;
    struct inquiry *inquiry;
    struct ledger_hold *holds; /* one for each message, from malloc; NULL: none */
    struct ledger_wait turn;   /* behind other writes in doubt of its keys */
    unsigned copy_attempt;     /* the attempt that was a copy, the latest of them */
    bool has_failed;           /* the server has said error, with err_code, which leaves open what it has stored */
    unsigned err_code;
    struct error error;
};

/* Sends the batch. *batch, zeroed but for what the caller sets, lives until done was called, never from within. */
void batch_start(struct store *store, struct batch *batch);

/* Ends it without calling done. Does nothing when it is over, or never began. */
void batch_cancel(struct batch *batch);

#endif
