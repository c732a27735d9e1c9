/*
 * host: a daemon in the simulation: the rooms from transport to nats, put together as main does it.
 */
#ifndef SIM_HOST_H
#define SIM_HOST_H

#include "tests/sim/pipe.h"

#include <stdbool.h>

struct host;

/* How a daemon is configured: YAML, beside what every host has. */
struct host *host_new(const char *name, bool is_embedded, const char *settings);
void host_forget_all(void);

/* Start the daemon. */
void host_start(struct host *host);
bool host_is_running(const struct host *host);

/* Shut it down, as SIGTERM does. */
void host_stop(struct host *host);

/* End its process at once. Its memory stays until the end of the simulation's process. */
void host_kill(struct host *host);

/* Its process is stopped for a while. */
void host_suspend(struct host *host, uint64_t until_ns);

/* The embedded server has started again: as the process room tells main. */
void host_note_server_started(struct host *host);

/* A client connects. The pipe is its end; if no daemon runs, it has ended. */
void host_connect(struct host *host, struct pipe *pipe);

#endif
