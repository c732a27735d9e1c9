/*
 * host: a daemon in the simulation: the rooms from transport to nats, put together as main does it.
 */
#ifndef SIM_HOST_H
#define SIM_HOST_H

#include "tests/sim/pipe.h"

#include <stdbool.h>

struct host;

/* Set where daemons have the files that their next run reads. Before the first host; borrowed. */
void host_set_directory(const char *path);

/* settings: YAML, added to the configuration that every host has. */
struct host *host_new(const char *name, bool is_embedded, const char *settings);
void host_forget_all(void);

/* Start the daemon. */
void host_start(struct host *host);
bool host_is_running(const struct host *host);

/* Shut it down, as SIGTERM does. */
void host_stop(struct host *host);

/* End its process at once. Its memory stays until the end of the simulation's process. */
void host_kill(struct host *host);

/* Its process is stopped until until_ns. */
void host_suspend(struct host *host, uint64_t until_ns);

/* The embedded server has started again; main learns that from embedded/process. */
void host_note_server_started(struct host *host);

/* A client connects with this pipe. If no daemon runs, the pipe is closed at once. */
void host_connect(struct host *host, struct pipe *pipe);

#endif
