/*
 * operation: one change of one key, and the message that it becomes.
 *
 * Used by write, batch and txn, which send it singly or with others. What an operation points to is borrowed.
 */
#ifndef DAEMON_STORE_OPERATION_H
#define DAEMON_STORE_OPERATION_H

#include "daemon/base/arena.h"
#include "daemon/nats/kv.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/write/outcome.h"

enum operation_condition {
    OPERATION_ALWAYS,
    OPERATION_IF_ABSENT,      /* the key is absent: never written, deleted or expired */
    OPERATION_IF_PRESENT,     /* the key has a value; otherwise the operation does nothing, and succeeds */
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
    int64_t ttl_s;      /* 0: none of its own */
    int64_t expires_us; /* with ttl_s, if that is what is left of an earlier TTL: see KV_HEADER_EXPIRES */
    const char *lease;  /* id of the lease with which the key lives; NULL: none */
    const char *owner;  /* of a key with a lease: see KV_HEADER_OWNER; NULL: none */
    const struct message_header *headers; /* the caller's own */
    size_t header_count;
};

/* The most headers that are added: those of operation_make_message, an id, a condition and those of a batch. */
#define OPERATION_OWN_HEADERS 15u

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

/* Return the bytes of its message, about: key, headers and value. */
size_t operation_bytes(const struct operation *operation);

/*
 * Check before anything is sent that the bucket and the server allow the operation. False: see *error.
 */
bool operation_check(const struct operation *operation, const struct store *store, const struct bucket *bucket,
                     struct error *error);

/*
 * Check that there is room for the operation, once it is known that no earlier call has stored it. True: its size was
 * added to *admitted_bytes, see room_admit. False: see *error.
 */
bool operation_admit(const struct operation *operation, struct store *store, size_t *admitted_bytes,
                     struct error *error);

/*
 * Make the message in the arena: its subject, the caller's headers, and those that say what kind of change it is. A
 * write with a TTL in a bucket with history also rolls up the key: when it expires, no older value may reappear. False:
 * out of memory.
 */
bool operation_make_message(struct arena *arena, const struct operation *operation, const struct bucket *bucket,
                            struct operation_message *message);

/*
 * Set the TTL of the operation to what is left of one that ends at expires_us (microseconds since the epoch; 0: there
 * is none), rounded up to whole seconds.
 */
void operation_keep_ttl(struct operation *operation, int64_t expires_us);

/*
 * Return whether the operation's message removes what its key had before (Nats-Rollup). In an atomic batch such a
 * message must be the first on its key (err_code 10111).
 */
bool operation_rolls_up(const struct operation *operation, const struct bucket *bucket);

/* Set the error of a condition that does not hold: the key is at revision current (0: absent). */
void operation_set_condition_error(const struct operation *operation, uint64_t current, struct error *error);

/* Set the error of a write that was tried so often, because the server refused a condition that held. */
void operation_set_refused_error(struct error *error, unsigned tries);

/* Set the error of a write to the key whose outcome cannot be determined. */
void operation_set_unknown_error(struct error *error, const char *key, const struct outcome_reading *reading);

/* Set the error of a write whose outcome could not be read. why: the error of the reading, not of the write. */
void operation_set_unread_error(struct error *error, const struct error *why);

/* Return whether the condition holds if this is the key's last message (NULL: there is none). */
bool operation_condition_holds(const struct operation *operation, const struct kv_entry *last);

static inline void operation_add_header(struct message_header *headers, size_t *count, const char *name,
                                        const char *value)
{
    headers[*count].name = name;
    headers[*count].value = value;
    ++*count;
}

#endif
