/*
 * probe: tests whether the embedded server is alive, on a connection of its own.
 *
 * Used by process. A nats-server greets each connection before a login, so a probe needs no password. A server that is
 * busy with the daemon's connection still answers a probe.
 */
#ifndef DAEMON_EMBEDDED_PROBE_H
#define DAEMON_EMBEDDED_PROBE_H

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

struct embedded_probe;

/*
 * Connect to port of 127.0.0.1. done is called once from the loop, unless embedded_probe_stop was called before:
 * is_alive is true if the server has sent something or has closed the connection, and false if nobody listens. If the
 * server hangs, done is not called. After done the probe frees itself. Return NULL if the probe cannot be sent for a
 * local reason, such as a lack of descriptors.
 */
struct embedded_probe *embedded_probe_start(uv_loop_t *loop, unsigned port, void (*done)(void *arg, bool is_alive),
                                            void *arg);
void embedded_probe_stop(struct embedded_probe *probe);

/* Return whether the process is stopped (SIGSTOP, state T). A server that is slow to start never is. */
bool embedded_probe_is_stopped(pid_t pid);

#endif
