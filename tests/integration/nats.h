/*
 * nats: the other side. A nats-server of the test's own, and a client that speaks
 * NATS itself, for what other programs do to the buckets meanwhile.
 */
#ifndef INTEGRATION_NATS_H
#define INTEGRATION_NATS_H

#include "tests/support/process.h"
#include "tests/support/tls_front.h"

#include <jansson.h>

/* --- A server of the test's own, on 127.0.0.1 ------------------------------------------------------ */

struct nats_server {
    struct process process;
    char directory[PATH_BYTES];
    unsigned port;
    char url[64];            /* nats://127.0.0.1:PORT */
    struct tls_front *front; /* if the tests are run over TLS; else NULL */
};

/* Chooses a port and a directory, writes the configuration; more: further lines of it, or NULL. */
void nats_server_prepare(struct nats_server *server, const char *more);

/* Starts it and waits until it listens. */
void nats_server_run(struct nats_server *server);

void nats_server_start(struct nats_server *server, const char *more);
void nats_server_stop(struct nats_server *server);

/* The members "servers" and, if the tests are run over TLS, "tls" of the daemon's nats section for this server. */
const char *nats_server_section(const struct nats_server *server);

/* --- A client -------------------------------------------------------------------------------------- */

struct nats;

/* user and password may be NULL. */
struct nats *nats_connect(unsigned port, const char *user, const char *password);

/* The port of the server that a daemon has embedded. */
unsigned nats_embedded_port(const char *data_dir);

/* To the server that a daemon has embedded, with the secret of its configuration. */
struct nats *nats_connect_embedded(const char *data_dir);

/* A request without headers, or with (lines "Name: value\r\n"); answers the payload. headers may be NULL. */
const char *nats_request(struct nats *nats, const char *subject, const char *headers, const char *payload);

/* The same where the answer is JSON, which must not be an error. */
json_t *nats_request_json(struct nats *nats, const char *subject, const char *headers, const char *payload);

/* An API request about a stream, such as STREAM.INFO. payload: JSON with ' for ". */
json_t *nats_api(struct nats *nats, const char *verb, const char *stream, const char *payload, ...)
    __attribute__((format(printf, 4, 5)));

/* The consumers of a bucket's stream. */
uint64_t nats_consumer_count(struct nats *nats, const char *bucket);

/* Subscribes; nats_next waits for the next message and answers its payload. */
void nats_subscribe(struct nats *nats, const char *subject);
const char *nats_next(struct nats *nats);

/* Answers the message that came last. */
void nats_reply(struct nats *nats, const char *payload);

#endif
