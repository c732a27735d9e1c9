/*
 * host: a daemon in the simulation: the rooms from transport to nats, put together as main does it.
 */
#ifndef SIM_HOST_H
#define SIM_HOST_H

#include "tests/sim/link.h"
#include "tests/sim/pipe.h"

#include <stdbool.h>

struct host;

/* Set where daemons have the files that their next run reads. Before the first host; borrowed. */
void host_set_directory(const char *path);

/*
 * settings: YAML, added to the configuration that every host has. ended is called with the host when its daemon's
 * process has ended, in whatever way.
 */
struct host *host_new(const char *name, bool is_embedded, const char *settings, void (*ended)(void *host));
void host_forget_all(void);

/* Start the daemon. */
void host_start(struct host *host);
bool host_is_running(const struct host *host);

/* Shut it down, as SIGTERM does. */
void host_stop(struct host *host);

/* End its process at once. Its memory stays until the simulation's process ends. */
void host_kill(struct host *host);

/*
 * Kill the daemon's process within a turn, after this number of steps. A step is one packet sent to NATS, one reading
 * of the clock, or one write to a client's socket.
 */
void host_kill_after(struct host *host, unsigned steps);

/* It is not to be killed any more. */
void host_spare(struct host *host);

/* Its data directory is deleted, while no daemon runs. That of the embedded server's messages is the server's. */
void host_delete_data(struct host *host);

/* Its process is stopped until until_ns. */
void host_suspend(struct host *host, uint64_t until_ns);

/* The machine is suspended until until_ns. */
void host_suspend_machine(struct host *host, uint64_t until_ns);

/* Its clocks run faster than the world's time by this. Before it starts. */
void host_set_rate(struct host *host, int64_t ppm);

/* Its date is set, and no other clock. */
void host_step_clock(struct host *host, int64_t by_ns);
const struct clocks *host_clocks(const struct host *host);

/* The network between this host and the servers. */
struct way *host_way(const uv_loop_t *uv);

/* Nothing passes between the host and the servers until until_ns. */
void host_block(struct host *host, uint64_t until_ns);

/* Cut the connections between the host and the servers. */
void host_cut(struct host *host);

/* The embedded server has started again; main learns that from embedded/process. */
void host_note_server_started(struct host *host);

/* A client connects with this pipe. If no daemon runs, the pipe is closed at once. */
void host_connect(struct host *host, struct pipe *pipe);

#endif
