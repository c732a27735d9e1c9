/*
 * multi_last: the request that reads the last entries of many keys at one point in time (ADR-31).
 *
 * Used by bulk_get.
 */
#ifndef DAEMON_STORE_MULTI_LAST_H
#define DAEMON_STORE_MULTI_LAST_H

#include "daemon/nats/kv.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/context.h"

/* Subjects that one read may match; the server answers 413 if there are more (ADR-31). */
#define MULTI_LAST_KEYS_MAX 1024u

/* Publish an attempt; for request_ops.send. */
enum connection_publish_result multi_last_publish(struct request *request, const struct store *store,
                                                  const struct bucket *bucket, const char *body, size_t body_bytes);

/*
 * Return the JSON of the request, which the caller must free; NULL if memory ran out. options: more members, each
 * followed by a comma.
 */
char *multi_last_body(const char *options, const char *prefix, const char *const *keys, size_t count, size_t *bytes);

#endif
