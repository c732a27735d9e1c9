/*
 * nats: a client that speaks NATS itself, past the proxy and the daemon: what other programs
 * do to a bucket meanwhile, and what the server has really stored.
 */
#ifndef FAULT_NATS_H
#define FAULT_NATS_H

#include "tests/support/process.h"

#include <jansson.h>

struct nats;

/* To the first of the ports that accepts and answers. */
struct nats *nats_connect(const unsigned *ports, unsigned count);
void nats_close(struct nats *nats);

struct nats_message {
    unsigned status; /* of its headers; 0: it has none */
    const char *payload;
};

/* A request that may be sent again. False: no answer came, or the connection has ended. */
bool nats_request(struct nats *nats, const char *subject, const char *payload, struct nats_message *answer);

/*
 * A call of the JetStream API, whose answer must not be an error. payload: JSON with ' for ". Waits until a leader is
 * there to answer it.
 */
json_t *nats_api(struct nats *nats, const char *verb_and_name, const char *payload, ...)
    __attribute__((format(printf, 3, 4)));

/* The same without parameters, and with an error for an answer where it has one. */
json_t *nats_try_api(struct nats *nats, const char *verb_and_name);

/* Another program's put: its revision. Waits until a leader is there to take it. */
uint64_t nats_put(struct nats *nats, const char *bucket, const char *key, const char *value);

/* Whether the replica that this connection's server asks first has the revision, and those before it. */
bool nats_has_revision(struct nats *nats, const char *bucket, uint64_t revision);

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
