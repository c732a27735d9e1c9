/*
 * core: all modules of the daemon between its sockets and NATS: how they are put together, their part of a turn of the
 * loop, and how they end.
 *
 * Used by main, which adds the listening socket, the embedded server, the signals and the service manager; and by the
 * simulation (tests/sim/host.c), which replaces these.
 */
#ifndef DAEMON_CORE_H
#define DAEMON_CORE_H

#include "conf/conf.h"
#include "daemon/base/jobs.h"
#include "daemon/base/metrics.h"
#include "daemon/base/timers.h"
#include "daemon/handlers/service.h"
#include "daemon/monitor/monitor.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/store/store.h"
#include "daemon/transport/session.h"

enum core_state { CORE_RUNNING, CORE_DRAINING, CORE_STOPPING };

/* The members may be used by those who embed it. */
struct core {
    struct conf *conf;
    enum core_state state;
    struct metrics metrics;
    struct jobs jobs;
    struct timers timers;
    struct store store;
    struct session_list sessions;
    struct service service;
    struct dispatcher dispatcher;
    struct monitor monitor;
    uv_timer_t drain_limit;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

/*
 * Create the modules. The core is zeroed; conf and loop are borrowed. Return 0, or -1 with an error text, after which
 * the process can only end.
 */
int core_init(struct core *core, uv_loop_t *loop, struct conf *conf, char error[static CONF_ERROR_BYTES]);

/* Begin to serve the metrics. Return 0, or -1 if memory ran out. */
int core_start_monitor(struct core *core);

/* Do the turn's work before the loop waits: send the requests and the answers, and run jobs. */
void core_work(struct core *core);

/* Return whether a turn must follow at once. */
bool core_has_more(const struct core *core);

/* now_ns: by uv_hrtime. Return how long the turn took, in ns; 0: it did nothing. */
uint64_t core_end_turn(struct core *core, uint64_t now_ns);

/*
 * Shut down: answer the calls in flight, end the sessions, delete the keys that lived with them, and stop the store.
 * Then call stopped, once. What takes longer than calls.drain_timeout is given up. Nothing happens if it was called
 * before.
 */
void core_drain(struct core *core, void (*stopped)(void *arg), void *arg);

/* After stopped was called: close the handles that are left. */
void core_close(struct core *core);

/* After the loop has ended. */
void core_free(struct core *core);

#endif
