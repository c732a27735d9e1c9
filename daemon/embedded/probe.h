/*
 * embedded_probe: asks the embedded server for a sign of life, on a connection of its own.
 *
 * Used by embedded. A nats-server greets each connection before anybody logs in, so a
 * probe needs no password, and does not wait for what the server does for the daemon's
 * connection: a server that is busy there answers here.
 */
#ifndef DAEMON_EMBEDDED_PROBE_H
#define DAEMON_EMBEDDED_PROBE_H

#include <stdbool.h>
#include <uv.h>

struct embedded_probe;

/*
 * Connects to port of 127.0.0.1. done is called once from the loop, unless embedded_probe_stop came before: is_alive
 * when the server has sent something or has closed the connection; false when nobody listens. A server that
 * hangs causes no call. After done the probe frees itself.
 * NULL: it cannot be sent for a reason of this side, such as descriptors.
 */
struct embedded_probe *embedded_probe_start(uv_loop_t *loop, unsigned port, void (*done)(void *arg, bool is_alive),
                                            void *arg);
void embedded_probe_stop(struct embedded_probe *probe);

#endif
