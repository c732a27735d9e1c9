/*
 * endpoint_server: serves HTTP on one listening socket.
 *
 * Used by endpoint, which makes a new one when the address changes. See endpoint for what it promises.
 */
#ifndef DAEMON_MONITOR_ENDPOINT_SERVER_H
#define DAEMON_MONITOR_ENDPOINT_SERVER_H

#include "daemon/monitor/endpoint.h"

struct endpoint_server;

/* Listen on the address of the configuration. Return NULL with a sentence in error. */
struct endpoint_server *endpoint_server_open(const struct endpoint *endpoint, char error[ENDPOINT_ERROR_BYTES]);

/* Return whether the server has the address, the mode and the group of the configuration. */
bool endpoint_server_is_current(const struct endpoint_server *server, const struct conf *conf);

/* Return whether the configuration has the address of the server, which must be closed before it is opened again. */
bool endpoint_server_has_address(const struct endpoint_server *server, const struct conf *conf);

/* End all connections and stop listening. The memory is freed when the handles are closed. */
void endpoint_server_close(struct endpoint_server *server);

#endif
