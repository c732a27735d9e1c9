/*
 * kv: how a key-value bucket looks on the wire (ADR-8).
 *
 * Used by the store. Names, subjects and headers of KV, and what a message says as
 * an entry. Nothing is sent or kept here.
 */
#ifndef DAEMON_NATS_KV_H
#define DAEMON_NATS_KV_H

#include "daemon/nats/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The server counts a message's headers against the bucket's max_msg_size, and our writes carry
 * an id. Buckets that the daemon creates get this much room more, and say in their
 * metadata what was asked for, so that a value of just max_value_size fits.
 */
#define KV_HEADER_ROOM_BYTES       512
#define KV_METADATA_MAX_VALUE_SIZE "kvstored.max_value_size"
#define KV_METADATA_MARKER_TTL     "kvstored.marker_ttl"

/*
 * The server's limit of a stream's name is 255, less "KV_", and less one: a stream of the longest name keeps its
 * directory when it is deleted, and its messages are there again when it is made anew (measured with 2.15.1).
 */
#define KV_BUCKET_LENGTH_MAX 251u
/* A subject must fit the server's control line of 4,096 bytes, with a reply subject and what surrounds it. */
#define KV_KEY_LENGTH_MAX    1024u
#define KV_FILTER_TOKENS_MAX 32u /* of one with wildcards: how many keys and filters have in common is bounded */
#define KV_HISTORY_MAX       64u

#define KV_STREAM_BYTES  (KV_BUCKET_LENGTH_MAX + 4)
#define KV_PREFIX_BYTES  (KV_BUCKET_LENGTH_MAX + 6)
#define KV_SUBJECT_BYTES (KV_PREFIX_BYTES + KV_KEY_LENGTH_MAX + 1)

/* Headers that mean something to the server or to KV clients. */
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

/*
 * Keys with this prefix are the daemon's own: clients cannot read or write them. The last message of KV_COMPACTED_KEY
 * says up to which revision delete markers may have been removed: see compact. It is a marker itself, so other clients
 * of NATS see a deleted key.
 */
#define KV_RESERVED_PREFIX  "_kvstored."
#define KV_COMPACTED_KEY    KV_RESERVED_PREFIX "compacted"
#define KV_HEADER_COMPACTED "Kvstored-Compacted"

enum kv_operation { KV_PUT, KV_DELETE, KV_PURGE };

struct kv_entry {
    const char *key;
    const char *value;
    size_t value_bytes;
    uint64_t revision;
    int64_t created_us; /* since the Unix epoch */
    enum kv_operation operation;
    struct message *message; /* for its headers */
};

/* NULL for a name that is well, otherwise the sentence that says what is wrong with it. */
const char *kv_check_bucket(const char *name, size_t length);
const char *kv_check_key(const char *key, size_t length);
/* As a key, with the tokens * and a final > allowed. */
const char *kv_check_filter(const char *filter, size_t length);
/* A header of a caller: refuses the server's own names and what would break the wire. */
const char *kv_check_header(const char *name, const char *value);

/* True for headers that are the server's or KV's and no business of a caller. */
bool kv_is_internal_header(const char *name);

/*
 * Reads a message as an entry. subject is what it was stored under, prefix what
 * comes before the key ("$KV.b."). False where it is no message of that bucket.
 */
bool kv_read_entry(struct message *message, const char *subject, const char *prefix, uint64_t sequence,
                   int64_t created_us, struct kv_entry *entry);

/* Reads a reply to a direct get, whose headers say where and when it was stored (ADR-31). */
bool kv_read_direct_entry(struct message *message, const char *prefix, struct kv_entry *entry);

/*
 * What a message says of the multi-last read that it belongs to (ADR-31). CUT: the server stopped at the limit of
 * bytes. DISTURBED: a message went while it read ("404 Message Not Found"; that of no key being there is "404 No
 * Results"). After these two, what has not come may be there all the same.
 */
enum kv_read_progress { KV_READ_GOES_ON, KV_READ_ENDED, KV_READ_CUT, KV_READ_DISTURBED, KV_READ_FAILED };
enum kv_read_progress kv_read_progress(struct message *message);

/* The number in a header of the server's; 0 without one. */
uint64_t kv_header_number(struct message *message, const char *name);

/* What a message that a consumer pushed tells in its reply subject (ADR-15). */
struct kv_delivery {
    const char *stream; /* names within the message's reply subject, with their lengths */
    const char *consumer;
    size_t stream_length, consumer_length;
    uint64_t stream_sequence;
    uint64_t consumer_sequence;
    int64_t created_us;
    uint64_t pending; /* messages that are still to come */
};
bool kv_read_delivery(const struct message *message, struct kv_delivery *delivery);

/* What the ack of a write says (ADR-1, "PubAck"). */
struct kv_ack {
    uint64_t sequence;
    uint64_t batch_count; /* of an atomic batch; 0 for a single message */
    bool is_duplicate;
    /* Where it is an error: */
    unsigned code, err_code; /* err_code 0: it is none */
    char description[160];
};
/* False where the message is no ack. */
bool kv_read_ack(const struct message *message, struct kv_ack *ack);

/* Microseconds since the epoch of an RFC 3339 time in UTC, with a fraction of up to 9 digits; -1 where it is none. */
int64_t kv_parse_time_us(const char *text);

/* True where filter (tokens * and final >) matches key. */
bool kv_filter_matches(const char *filter, const char *key);

#endif
