/*
 * nats: a client that speaks NATS itself, past the proxy and the daemon: what other programs
 * do to a bucket meanwhile, and what the server has really stored.
 */
#ifndef FAULT_NATS_H
#define FAULT_NATS_H

#include "tests/ground/scene.h"

#include <jansson.h>

struct nats;

/* To the first of the ports that accepts and answers. */
struct nats *nats_connect(const unsigned *ports, unsigned count);
void nats_close(struct nats *nats);

/* A request's answer; NULL: none within the time, nobody listens, or the connection has ended. */
const char *nats_try_request(struct nats *nats, const char *subject, const char *payload, unsigned patience_ms);

/* A call of the JetStream API, whose answer must not be an error. payload: JSON with ' for ". */
json_t *nats_api(struct nats *nats, const char *verb_and_name, const char *payload, ...)
    __attribute__((format(printf, 3, 4)));

/* Another program's put: its revision. */
uint64_t nats_put(struct nats *nats, const char *bucket, const char *key, const char *value);

/* --- What a bucket's stream holds ------------------------------------------------------------------ */

struct stored {
    uint64_t revision;
    const char *key;
    const char *operation; /* "put", "DEL", "PURGE" */
    const char *value;
};

struct stream_log {
    struct stored *entries;
    size_t count;
};

/* Every message that is there, in order. */
struct stream_log nats_read_log(struct nats *nats, const char *bucket);

/* How many writes of this key, operation and value there are; *revision: of the last of them, else 0. */
unsigned log_count(const struct stream_log *log, const char *key, const char *operation, const char *value,
                   uint64_t *revision);

/* For people. */
const char *log_text(const struct stream_log *log);

#endif
