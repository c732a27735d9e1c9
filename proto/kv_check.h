/*
 * kv_check: the rules for names of buckets and keys, filters and headers.
 *
 * Used by the daemon for each call, and by kvctl to know which entries of other NATS clients it can write again.
 */
#ifndef PROTO_KV_CHECK_H
#define PROTO_KV_CHECK_H

#include <stdbool.h>
#include <stddef.h>

/*
 * The server limits a stream's name to 255 bytes, of which "KV_" takes three. One byte less, because a stream with the
 * longest name keeps its directory when it is deleted, and has its messages again when it is recreated (measured with
 * nats-server 2.15.1).
 */
#define KV_BUCKET_LENGTH_MAX 251u
/* A subject must fit into the server's control line of 4,096 bytes, with a reply subject and some numbers. */
#define KV_KEY_LENGTH_MAX    1024u
#define KV_FILTER_TOKENS_MAX 32u /* of a filter with wildcards: it bounds the cost of a match */

/* Keys with this prefix are reserved for the daemon: clients cannot read or write them. */
#define KV_RESERVED_PREFIX "_kvstored."

/* Return NULL for a valid name, otherwise a sentence that says what is wrong with it. */
const char *kv_check_bucket(const char *name, size_t length);
const char *kv_check_key(const char *key, size_t length);

/* Return whether only the daemon uses the key. Clients neither see nor write it. */
bool kv_is_reserved(const char *key);

/* Like a key, but the tokens * and a final > are allowed. */
const char *kv_check_filter(const char *filter, size_t length);
/* For a header of a caller: the server's own names are invalid, and what would break the protocol's lines. */
const char *kv_check_header(const char *name, const char *value);

/* Return whether a header is one of the server, of KV or of the daemon, which callers do not see. */
bool kv_is_internal_header(const char *name);

#endif
