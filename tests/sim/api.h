/*
 * api: the JetStream API of the simulated server (ADR-1), and direct gets (ADR-31).
 */
#ifndef SIM_API_H
#define SIM_API_H

#include "tests/sim/link.h"
#include "tests/sim/server.h"

/* Serve a request whose subject begins with $JS.API. or $SYS. Return false if the server has no responder for it. */
bool api_serve(struct server *server, struct link *link, const struct packet *request);

/* Return whether the request waits in the API's queue, rather than being served when it is read. */
bool api_queues(const struct packet *request);

/* For server: streams by name. */
struct stream *server_find_stream(const struct server *server, const char *name);
struct stream *server_add_stream(struct server *server, const char *name, json_t *config);
const char *server_name(const struct server *server);

#endif
