/*
 * watching: how the tests of watch.start look at what a watch tells, and at what is in memory.
 *
 * Entries are written "key=value@revision", "-key@revision" of a delete, "!key@revision" of a purge,
 * "+key:size@revision" without the value.
 */
#ifndef INTEGRATION_WATCHING_H
#define INTEGRATION_WATCHING_H

#include "tests/support/client.h"

enum watching_event { WATCHING_ENTRY, WATCHING_READY, WATCHING_ENDED };

struct watching {
    struct client *client;
    uint64_t id;
    const msgpack_object *entries; /* of the notification that came last, told up to at */
    size_t at;
    /* Of the event that came last. */
    const msgpack_object *object; /* the entry, or the error */
    uint64_t revision;            /* of an entry */
};

/* options: members, as in "'filter': 'a.>'", or NULL. */
struct watching *watching_start(struct client *client, const char *bucket, const char *options);

enum watching_event watching_next(struct watching *watching);

/* The next events must be these, as in "a=1@1 ready". */
void watching_expect(struct watching *watching, const char *wanted);

/*
 * The next events must be these entries and, somewhere among them, ready: where a watch begins, it is not said whether
 * what is written at that moment comes before ready or after it.
 */
void watching_expect_and_ready(struct watching *watching, const char *wanted);

/* The next event must be the end, with this code: the error. */
const msgpack_object *watching_expect_end(struct watching *watching, const char *code);

/* All up to ready. */
const char *watching_text_to_ready(struct watching *watching);

/* Stops it; it must be answered without an error. */
void watching_stop(struct watching *watching);

/* kv.put, kv.delete of texts: the revision. */
uint64_t put_text(struct client *client, const char *bucket, const char *key, const char *value);
uint64_t delete_key(struct client *client, const char *bucket, const char *key);

/* bulk.put of count keys, prefix and a number of six digits behind it from first on, all with one value of size bytes.
 */
void put_many(struct client *client, const char *bucket, const char *prefix, unsigned first, unsigned count,
              size_t size);

/* --- Reads from memory -------------------------------------------------------------------------------- */

/* A number of daemon.stats, as in "cache.hits". */
uint64_t stat_of(struct client *client, const char *path);

/* Waits until the number is wanted. */
void wait_for_stat(struct client *client, const char *path, uint64_t wanted);

/* kv.get with cached: the value, or NULL where the key is not there. */
const char *cached_text(struct client *client, const char *bucket, const char *key);

/* Whether such a read was answered from memory. Nothing else may be read meanwhile. */
bool is_cached(struct client *client, const char *bucket, const char *key);

/* Reads until it is answered from memory; the same of any key then, for a bucket that is in memory. */
void wait_until_cached(struct client *client, const char *bucket, const char *key);

#endif
