/*
 * kv: the representation of key-value buckets in messages (ADR-8).
 *
 * Used by the store. It has the names, subjects and headers of KV, and parses messages as entries. Nothing is sent or
 * kept here.
 */
#ifndef DAEMON_NATS_KV_H
#define DAEMON_NATS_KV_H

#include "daemon/nats/message.h"
#include "proto/kv_check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The server counts a message's headers against the bucket's max_msg_size, and the daemon's writes carry an id. Buckets
 * that the daemon creates have a limit that is larger by this much, so that a value of exactly max_value_size fits. The
 * limit that was asked for is in their metadata.
 */
#define KV_HEADER_ROOM_BYTES       512
#define KV_METADATA_MAX_VALUE_SIZE "kvstored.max_value_size"
#define KV_METADATA_MARKER_TTL     "kvstored.marker_ttl"

/* Subjects are shorter than the server's control line, 4 KB by default: other clients' keys may be longer than ours. */
#define KV_FOREIGN_KEY_LENGTH_MAX UINT16_MAX
#define KV_HISTORY_MAX            64u

#define KV_STREAM_BYTES  (KV_BUCKET_LENGTH_MAX + 4)
#define KV_PREFIX_BYTES  (KV_BUCKET_LENGTH_MAX + 6)
#define KV_SUBJECT_BYTES (KV_PREFIX_BYTES + KV_KEY_LENGTH_MAX + 1)

/* Headers with a meaning for the server or for KV clients. */
#define KV_HEADER_OPERATION        "KV-Operation"
#define KV_HEADER_ROLLUP           "Nats-Rollup"
#define KV_HEADER_TTL              "Nats-TTL"
#define KV_HEADER_MSG_ID           "Nats-Msg-Id"
#define KV_HEADER_EXPECTED_SUBJECT "Nats-Expected-Last-Subject-Sequence"
#define KV_HEADER_EXPECTED_OTHER   "Nats-Expected-Last-Subject-Sequence-Subject"
#define KV_HEADER_EXPECTED_STREAM  "Nats-Expected-Last-Sequence"
#define KV_HEADER_BATCH_ID         "Nats-Batch-Id"
#define KV_HEADER_BATCH_SEQUENCE   "Nats-Batch-Sequence"
#define KV_HEADER_BATCH_COMMIT     "Nats-Batch-Commit"
#define KV_HEADER_MARKER_REASON    "Nats-Marker-Reason"
#define KV_HEADER_SEQUENCE         "Nats-Sequence"
#define KV_HEADER_TIME_STAMP       "Nats-Time-Stamp"
#define KV_HEADER_SUBJECT          "Nats-Subject"
#define KV_HEADER_STREAM           "Nats-Stream"
#define KV_HEADER_LAST_CONSUMER    "Nats-Last-Consumer"
#define KV_HEADER_CONSUMER_STALLED "Nats-Consumer-Stalled"
#define KV_HEADER_PENDING          "Nats-Num-Pending"
#define KV_HEADER_LAST             "Nats-Last-Sequence"
#define KV_HEADER_UPTO             "Nats-UpTo-Sequence"
#define KV_HEADER_SIZE             "Nats-Msg-Size" /* of a payload that a consumer leaves out */

/*
 * The last message of KV_COMPACTED_KEY says up to which revision delete markers may have been removed: see compact. It
 * is a marker itself, so other clients of NATS see a deleted key.
 */
/* Before the id of a lease: see lease. */
#define KV_LEASE_PREFIX     KV_RESERVED_PREFIX "lease."
#define KV_COMPACTED_KEY    KV_RESERVED_PREFIX "compacted"
#define KV_HEADER_COMPACTED "Kvstored-Compacted"
#define KV_HEADER_LEASE     "Kvstored-Lease" /* id of the lease with which the key lives */
#define KV_HEADER_OWNER     "Kvstored-Owner" /* uid/owner: who may take the key back after its session has ended */

/*
 * When the value expires, in microseconds since the epoch, if its TTL is what was left of an earlier one. A TTL has
 * whole seconds: without this header, each write that keeps the TTL would move the time by a part of a second.
 */
#define KV_HEADER_EXPIRES "Kvstored-Expires"

enum kv_operation { KV_PUT, KV_DELETE, KV_PURGE };

struct kv_entry {
    const char *key;
    const char *value;
    size_t value_bytes;
    uint64_t revision;
    int64_t created_us; /* since the Unix epoch */
    enum kv_operation operation;
    struct message *message; /* for its headers */
    /* Of a change that a watch is delivered, if it is known: the entry before. */
    bool has_previous;
    uint64_t previous;          /* its revision; 0: there was none */
    const char *previous_value; /* NULL: there was none, or it is not known, or nobody wants it */
    size_t previous_bytes;
};

/* Return whether it is one of those that say when an entry expires: readers need them. */
bool kv_is_expiry_header(const char *name);

/*
 * Parse a message as an entry. subject is the one under which it was stored, and prefix the part before the key
 * ("$KV.b."). Return false if it is no message of that bucket.
 */
bool kv_read_entry(struct message *message, const char *subject, const char *prefix, uint64_t sequence,
                   int64_t created_us, struct kv_entry *entry);

/* Parse a reply to a direct get, whose headers have the subject, sequence and time (ADR-31). */
bool kv_read_direct_entry(struct message *message, const char *prefix, struct kv_entry *entry);

/*
 * Return the progress of a multi-last read after this message (ADR-31). CUT: the server stopped at the limit of bytes.
 * DISTURBED: a message was removed during the read ("404 Message Not Found"; if no key exists, it is "404 No Results").
 * After these two, keys that have not come may still exist.
 */
enum kv_read_progress { KV_READ_CONTINUES, KV_READ_ENDED, KV_READ_CUT, KV_READ_DISTURBED, KV_READ_FAILED };
enum kv_read_progress kv_read_progress(struct message *message);

/* Return the number in a header of the server; 0: there is none. */
uint64_t kv_header_number(struct message *message, const char *name);

/*
 * Return the TTL of a message's own in seconds; 0: it has none; -1: it is not understood. The header has whole seconds,
 * or a duration in Go's notation, such as 1h30m (ADR-43).
 */
int64_t kv_read_ttl(struct message *message);

/*
 * Return when an entry expires by a TTL of its own, in microseconds since the epoch; 0: it has none, or it is not
 * understood. The server removes the entry at this time, or within a second after it.
 */
int64_t kv_read_expiry_us(const struct kv_entry *entry);

/* The content of the reply subject of a message that a consumer delivered (ADR-15). */
struct kv_delivery {
    const char *stream; /* within the message's reply subject, without a NUL */
    const char *consumer;
    size_t stream_length, consumer_length;
    uint64_t stream_sequence;
    uint64_t consumer_sequence;
    int64_t created_us;
    uint64_t pending; /* messages that follow, as the server estimates */
};
bool kv_read_delivery(const struct message *message, struct kv_delivery *delivery);

/* The acknowledgement of a write (ADR-1, "PubAck"). */
struct kv_ack {
    uint64_t sequence;
    uint64_t batch_count; /* messages of an atomic batch; 0: it is a single message */
    bool is_duplicate;
    /* Of an error: */
    unsigned code, err_code; /* err_code 0: success */
    char description[160];
};
/* Return false if the message is no acknowledgement. */
bool kv_read_ack(const struct message *message, struct kv_ack *ack);

/* Return the microseconds since the epoch of an RFC 3339 time in UTC with up to 9 digits of fraction; -1: it is none.
 */
int64_t kv_parse_time_us(const char *text);

/* Return whether filter (with tokens * and a final >) matches key. */
bool kv_filter_matches(const char *filter, const char *key);

#endif
