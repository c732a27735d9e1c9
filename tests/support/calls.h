/*
 * calls: calls of the daemon that must succeed, and what they answer.
 */
#ifndef SUPPORT_CALLS_H
#define SUPPORT_CALLS_H

#include "tests/support/client.h"

/* Call kv.put and kv.delete with texts. Return the revision. */
uint64_t put_text(struct client *client, const char *bucket, const char *key, const char *value);
uint64_t delete_key(struct client *client, const char *bucket, const char *key);

/*
 * Put count keys with bulk.put: the prefix and a number of six digits, from first on. All have one value of size bytes.
 */
void put_many(struct client *client, const char *bucket, const char *prefix, unsigned first, unsigned count,
              size_t size);

/* --- Reads from memory ----------------------------------------------------------------------------- */

/* Return a number of daemon.stats, as in "cache.hits". */
uint64_t stat_of(struct client *client, const char *path);

/* Wait until the number is the wanted one. */
void wait_for_stat(struct client *client, const char *path, uint64_t wanted);

/* Call kv.get with the consistency cached. Return the value, or NULL if there is no key. */
const char *cached_text(struct client *client, const char *bucket, const char *key);

/* Return whether such a read is answered from memory. Nothing else may be read meanwhile. */
bool is_cached(struct client *client, const char *bucket, const char *key);

/* Read until the daemon answers from memory. Then it does so for any key of the bucket. */
void wait_until_cached(struct client *client, const char *bucket, const char *key);

#endif
