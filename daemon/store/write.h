/*
 * write: putting one entry into a bucket, exactly once.
 *
 * Used by the handlers. A write carries an id of its own, so that a copy sent
 * again after a lost ack is dropped by the server and answered with the first one's
 * revision. A write with a condition is sent again as an atomic batch of one, where
 * the server checks the id before the condition; where the bucket has no batches,
 * the key's last message is read to find out what became of the first copy.
 */
#ifndef DAEMON_STORE_WRITE_H
#define DAEMON_STORE_WRITE_H

#include "daemon/arena.h"
#include "daemon/nats/kv.h"
#include "daemon/store/bucket.h"
#include "daemon/store/read.h"
#include "daemon/store/store.h"

enum write_condition {
    WRITE_ALWAYS,
    WRITE_IF_ABSENT,     /* the key is not there, or was deleted, or has expired */
    WRITE_IF_AT_REVISION /* the key's last message has the revision given */
};

/* The revision that was written, or an error (then 0). */
typedef void write_done_fn(void *arg, uint64_t revision, const struct error *error);

struct write {
    /* Set by the caller; what is pointed to is borrowed until done was called. */
    const char *bucket;
    const char *key;
    enum kv_operation operation;
    enum write_condition condition;
    uint64_t revision; /* of WRITE_IF_AT_REVISION */
    const char *value;
    size_t value_bytes;
    int64_t ttl_s;                        /* 0: none of its own */
    const struct message_header *headers; /* the caller's own */
    size_t header_count;
    uint64_t deadline_ms;
    write_done_fn *done;
    void *arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct bucket *handle;
    struct bucket_wait wait;
    struct request request;
    struct read_get look; /* at the key's last message */
    struct error error;   /* to answer when the look was in vain */
    const char *subject;
    struct message_header *wire_headers; /* room for ours and the caller's */
    uint64_t expected;                   /* sequence that the condition names */
    uint64_t marker;                     /* of the delete marker that a create is put over; 0: none yet */
    bool settle;                         /* the batch of one said 'duplicate': ask for its sequence */
    unsigned marker_tries;
    char id[48];
    char expected_text[24];
    char ttl_text[24];
    char batch_id[64];
};

/* Writes. The memory of *write, zeroed but for what the caller sets, and the arena live until done was called. */
void write_start(struct store *store, struct arena *arena, struct write *write);

#endif
