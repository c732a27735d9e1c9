/*
 * operation: one change of one key, and the message that it becomes.
 *
 * Used by write, batch and txn, which send it alone or with others. An operation
 * is only a description; what it points to is borrowed.
 */
#ifndef DAEMON_STORE_OPERATION_H
#define DAEMON_STORE_OPERATION_H

#include "daemon/base/arena.h"
#include "daemon/nats/kv.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/write/outcome.h"

enum operation_condition {
    OPERATION_ALWAYS,
    OPERATION_IF_ABSENT,      /* the key is not there, or was deleted, or has expired */
    OPERATION_IF_AT_REVISION, /* the key's last message has the revision given; 0: as IF_ABSENT */
    OPERATION_IF_LAST         /* the key's last message, value or marker, has the revision given; 0: there is none */
};

struct operation {
    const char *key;
    enum kv_operation kind;
    enum operation_condition condition;
    uint64_t revision; /* of OPERATION_IF_AT_REVISION and IF_LAST */
    const char *value;
    size_t value_bytes;
    int64_t ttl_s;                        /* 0: none of its own */
    const struct message_header *headers; /* the caller's own */
    size_t header_count;
};

/* Headers that are added at most: those of operation_fill_headers, and room for an id, a condition and a batch. */
#define OPERATION_OWN_HEADERS 12u

/* An id for a write or a batch: the Nats-Msg-Id that it is sent with. */
#define OPERATION_ID_BYTES 48

/* Make an id that is unique among all daemons. */
void operation_make_id(struct store *store, char id[OPERATION_ID_BYTES]);

/* The operation as a message of a bucket. */
struct operation_message {
    const char *subject;
    struct message_header *headers; /* room for OPERATION_OWN_HEADERS more than are counted */
    size_t header_count;
};

/*
 * What the bucket or the server cannot take, or has no room for, is said before anything is sent. False: *error says
 * what. True: the operation is about to be sent; *admitted_bytes: see room_admit.
 */
bool operation_check(const struct operation *operation, struct store *store, const struct bucket *bucket,
                     size_t *admitted_bytes, struct error *error);

/*
 * Makes the message in the arena: its subject, the caller's headers, and those that say what kind of
 * change it is. With a TTL on a bucket with history it also rolls up the key: when it expires, no older
 * value may come back into view. False: out of memory.
 */
bool operation_make_message(struct arena *arena, const struct operation *operation, const struct bucket *bucket,
                            struct operation_message *message);

/*
 * Whether the operation's message removes what its key had before (Nats-Rollup). In an atomic batch such a message must
 * be the first on its key (err_code 10111).
 */
bool operation_rolls_up(const struct operation *operation, const struct bucket *bucket);

/* The error of a condition that does not hold: the key is at current (0: not there). */
void operation_set_condition_error(const struct operation *operation, uint64_t current, struct error *error);

/* Why it cannot be found out what became of a write to the key. */
void operation_set_unknown_error(struct error *error, const char *key, const struct outcome_reading *reading);

/* The same could not even be read, for this reason, which speaks of the reading: that it changed nothing says nothing.
 */
void operation_set_unread_error(struct error *error, const struct error *why);

/* Whether the condition holds for what the key's last message is (NULL: none). */
bool operation_condition_holds(const struct operation *operation, const struct kv_entry *last);

static inline void operation_add_header(struct message_header *headers, size_t *count, const char *name,
                                        const char *value)
{
    headers[*count].name = name;
    headers[*count].value = value;
    ++*count;
}

#endif
