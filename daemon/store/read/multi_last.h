/*
 * multi_last: the form of a read of the last entries of many keys at one point in time (ADR-31).
 *
 * Used by bulk_get.
 */
#ifndef DAEMON_STORE_MULTI_LAST_H
#define DAEMON_STORE_MULTI_LAST_H

#include "daemon/nats/kv.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/context.h"

/* Subjects that one read may match; the server answers 413 to more (ADR-31). */
#define MULTI_LAST_KEYS_MAX 1024u

/* Publishes an attempt of such a read; for request_ops.send. */
enum connection_publish_result multi_last_publish(struct request *request, const struct store *store,
                                                  const struct bucket *handle, const char *body, size_t body_bytes);

/* The JSON of such a read, for the caller to free; NULL when memory ran out. options: members, each with a comma behind
 * it. */
char *multi_last_body(const char *options, const char *prefix, const char *const *keys, size_t count, size_t *bytes);

#endif
