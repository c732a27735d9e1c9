/*
 * nats: a client that speaks NATS itself, past the daemon: what other programs do to buckets, and what a server has.
 *
 * It has no library and no threads: it reads only while one of these functions waits. Texts that are returned live
 * until the test ends. Payloads of API requests are written as JSON with ' for ".
 */
#ifndef SUPPORT_NATS_H
#define SUPPORT_NATS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct nats;

/* --- Connections ----------------------------------------------------------------------------------- */

/* Connect to the server on a port; it must listen. user and password may be NULL. */
struct nats *nats_connect(unsigned port, const char *user, const char *password);

/* Connect to the first of the servers that accepts and answers. Waits until one does. */
struct nats *nats_connect_any(const unsigned *ports, unsigned count);

/* Return the port of the server that a daemon has embedded. */
unsigned nats_embedded_port(const char *data_dir);

/* Connect to the server that a daemon has embedded, with the secret of its configuration. */
struct nats *nats_connect_embedded(const char *data_dir);

void nats_close(struct nats *nats);

/* --- Requests -------------------------------------------------------------------------------------- */

/* Send a request, and return the payload of its answer. headers: lines "Name: value\r\n", or NULL. */
const char *nats_request(struct nats *nats, const char *subject, const char *headers, const char *payload);

/* The same for an answer in JSON, which must not be an error. */
json_t *nats_request_json(struct nats *nats, const char *subject, const char *headers, const char *payload);

struct nats_message {
    unsigned status; /* of its headers; 0: it has none */
    const char *subject, *payload;
    const char *reply; /* subject; "": none */
};

/* Send a request until somebody answers it. Return false if nobody does in time, or the connection has ended. */
bool nats_try_request(struct nats *nats, const char *subject, const char *payload, struct nats_message *answer);

/*
 * Call the JetStream API, as in nats_api(nats, "STREAM.INFO", "KV_b", "{}"). The answer must not be an error. Waits
 * until there is a leader that answers.
 */
json_t *nats_api(struct nats *nats, const char *verb, const char *stream, const char *payload, ...)
    __attribute__((format(printf, 4, 5)));

/* The same; the answer may be an error. */
json_t *nats_try_api(struct nats *nats, const char *verb, const char *stream, const char *payload, ...)
    __attribute__((format(printf, 4, 5)));

/* Return err_code of an answer's error; 0: it is none. */
long long nats_error_code(const json_t *answer);

/* Return the number of consumers that a bucket's stream has. */
uint64_t nats_consumer_count(struct nats *nats, const char *bucket);

/* Put a key as another program does, and return the revision. Waits until there is a leader that takes it. */
uint64_t nats_put(struct nats *nats, const char *bucket, const char *key, const char *value);

/* Return whether the replica that this connection's server asks first has the revision, and those before it. */
bool nats_has_revision(struct nats *nats, const char *bucket, uint64_t revision);

/* --- Subscriptions --------------------------------------------------------------------------------- */

/* Subscribe, and return when the server knows it. A connection with a subscription makes no requests. */
void nats_subscribe(struct nats *nats, const char *subject);

/* Wait for the next message, and return its payload. */
const char *nats_next(struct nats *nats);

/* Answer the message that nats_next has returned last. */
void nats_reply(struct nats *nats, const char *payload);

#endif
