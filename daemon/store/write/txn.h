/*
 * txn: transactions.
 *
 * Used by the handlers. A transaction is one atomic batch: all of it is written, or nothing. Its conditions are those
 * of its operations, and checks of keys that it only read. All of them are about the state before the transaction. The
 * server verifies them at commit. Each is carried by one message of the batch, on that message's subject or on another
 * one. If there are more conditions than messages can carry, txn reads the keys at a known sequence of the stream, and
 * commits on the condition that the stream's last sequence is unchanged.
 */
#ifndef DAEMON_STORE_TXN_H
#define DAEMON_STORE_TXN_H

#include "daemon/base/arena.h"
#include "daemon/base/key_index.h"
#include "daemon/store/read/get.h"
#include "daemon/store/write/batch.h"
#include "daemon/store/write/operation.h"

/*
 * More checks could not be committed in the time of a call: checks that no message can carry are read one by one, again
 * after each concurrent write to the bucket.
 */
#define TXN_CHECKS_MAX 4096u

/* The key must be at the revision; 0: it must be absent. */
struct txn_check {
    const char *key;
    uint64_t revision;
};

struct txn {
    /* Set by the caller; borrowed until done was called. */
    const char *bucket_name;
    const struct txn_check *checks;
    size_t check_count;
    const struct operation *operations;
    size_t operation_count; /* 1 to BATCH_MESSAGES_MAX */
    uint64_t deadline_ms;
    /* The revision of the first operation, the others being consecutive; or an error, with the key that caused it. */
    void (*done)(void *arg, uint64_t first_revision, const struct error *error);
    void *arg;
    struct journal_call journal; /* the client's id, if there is one */

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct bucket *bucket;
    struct bucket_wait wait;
    struct batch batch;
    size_t admitted_bytes;            /* by room */
    struct txn_condition *conditions; /* one per key */
    size_t condition_count;
    struct key_index by_key;
    bool is_of_former_stream; /* an earlier call wrote it to a stream that has been recreated or set back */
    bool is_on_stream;        /* the condition is on the stream's last sequence */
    bool lacks_room;          /* an earlier call has sent it, and it cannot be sent again: see error */
    bool is_in_batch;         /* the batch is being sent, or its outcome is asked for */
    bool contradicts;         /* two conditions on one key cannot both hold */
    unsigned tries;
    struct timer pause;
    struct jetstream_call info;
    uint64_t stream_sequence; /* at which the conditions are being verified */
    bool has_moved;           /* a key has a higher revision */
    size_t next, in_flight;   /* reads of the conditions' keys */
    bool is_filling;
    struct error error;
};

/* Commit. *txn is zeroed but for what the caller sets. It and the arena live until done was called. */
void txn_commit(struct store *store, struct arena *arena, struct txn *txn);

#endif
