/*
 * requests: random requests to a server, and its answers as text.
 */
#ifndef SIM_REQUESTS_H
#define SIM_REQUESTS_H

#include "tests/sim/packet.h"

#define REQUESTS_INBOX "_INBOX.differential"

/* Takes the reference of a request. */
typedef void request_fn(struct packet *request);

struct packet *request_new(const char *payload, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Return how long its answers take: a pull ends when it expires, or has a heartbeat. */
uint64_t request_wait_ns(const struct packet *request);

struct server;

/* Create the streams. simulated: borrowed. */
void requests_begin(const struct server *simulated, request_fn *ask);

/* Make a request, or several that belong together. */
void requests_make(request_fn *ask);

/* Return an answer as text, without times and what else differs by its nature. The caller frees it. */
char *answer_text(const struct packet *answer);

#endif
