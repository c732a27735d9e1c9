/*
 * batch: several messages that are written together or not at all.
 *
 * Used by txn and group. A JetStream atomic batch (ADR-50) with exactly-once: its
 * first message carries an id; when the ack of a batch that landed is lost, the
 * copy is refused as a duplicate, and the first message alone, plain, tells the
 * sequence that it has.
 */
#ifndef DAEMON_STORE_BATCH_H
#define DAEMON_STORE_BATCH_H

#include "daemon/store/bucket.h"
#include "daemon/store/operation.h"
#include "daemon/store/store.h"

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
 * The sequence of the first message, the others' follow it one by one; or an error. err_code is the server's
 * where it refused the batch (nothing was written), or another number where it dropped a message of it; 0 else.
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
    struct request request;
    struct bucket_wait wait;
    bool settle;           /* a copy was refused as a duplicate: ask for the first one's sequence */
    unsigned settle_after; /* the attempt that was refused; those after it are the question */
    bool asks_each;        /* each message asks for an answer: the batch came out incomplete */
    char id[48];
};

/* Sends the batch. *batch, zeroed but for what the caller sets, lives until done was called, never from within. */
void batch_start(struct store *store, struct batch *batch);

/* Ends it without calling done. Does nothing when it is over, or never began. */
void batch_cancel(struct batch *batch);

#endif
