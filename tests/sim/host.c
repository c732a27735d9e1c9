#include "tests/sim/host.h"

#include "daemon/handlers/methods.h"
#include "daemon/handlers/service.h"
#include "daemon/handlers/waiting_get.h"
#include "daemon/store/lease/leases.h"
#include "daemon/transport/session.h"
#include "tests/sim/link.h"
#include "tests/sim/loop.h"
#include "tests/sim/memory.h"
#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One process of kvstored. */
struct daemon {
    struct daemon *next; /* in the list of killed daemons */
    struct host *host;
    struct conf conf;
    uv_loop_t uv;
    struct loop *loop;
    struct jobs jobs;
    struct timers timers;
    struct metrics metrics;
    struct store store;
    struct monitor monitor;
    struct service service;
    struct dispatcher dispatcher;
    struct session_list sessions;
    uv_timer_t drain_limit;
    bool is_draining, is_stopping;
};

struct host {
    struct host *next;
    char *name;
    bool is_embedded;
    char *settings;
    struct daemon *daemon; /* NULL: none runs */
};

static struct host *all;

/* What killed processes had; nobody frees it, as the kernel would. */
static struct daemon *killed;

/* --- The turn -------------------------------------------------------------------------------------- */

/* As main_on_turn_end. */
static bool daemon_end_turn(void *arg)
{
    struct daemon *daemon = arg;

    store_flush(&daemon->store);
    session_list_flush(&daemon->sessions);
    jobs_run(&daemon->jobs);
    store_flush(&daemon->store);
    session_list_flush(&daemon->sessions);
    bool has_more = daemon->sessions.dirty != NULL || jobs_are_waiting(&daemon->jobs);
    uint64_t took_ns = jobs_end_turn(&daemon->jobs);
    if (took_ns > 0)
        metrics_note(&daemon->metrics.turns, took_ns / 1000);
    metrics_settle(&daemon->metrics, uv_hrtime());
    return has_more;
}

/* --- Starting -------------------------------------------------------------------------------------- */

static void daemon_connect(struct daemon *daemon)
{
    const char *const urls[] = {"nats"};
    struct connection_target target = {urls, 1, NULL, NULL};

    connection_start(daemon->store.connection, &target);
}

static void daemon_read_conf(struct daemon *daemon, const struct host *host)
{
    char text[1024], error[CONF_ERROR_BYTES];
    int length =
        snprintf(text, sizeof(text), "listen:\n  path: /%s.sock\nnats:\n  mode: %s\n%s%s", host->name,
                 host->is_embedded ? "embedded" : "external",
                 host->is_embedded ? "  data_dir: /none\n" : "  servers: [nats://nats:4222]\n", host->settings);

    if (length >= (int)sizeof(text) || conf_parse(&daemon->conf, "sim", text, (size_t)length, error) != 0) {
        fprintf(stderr, "%s\n", error);
        abort();
    }
}

void host_start(struct host *host)
{
    struct daemon *daemon = memory_new(sizeof(*daemon));
    char error[CONF_ERROR_BYTES];

    trace("%s starts", host->name);
    host->daemon = daemon;
    daemon->host = host;
    daemon_read_conf(daemon, host);
    daemon->loop = loop_new(&daemon->uv, daemon_end_turn, daemon);
    jobs_init(&daemon->jobs);
    timers_init(&daemon->timers, &daemon->uv, &daemon->jobs);
    uv_timer_init(&daemon->uv, &daemon->drain_limit);
    daemon->drain_limit.data = daemon;
    if (store_init(&daemon->store, &daemon->uv, &daemon->jobs, &daemon->timers, &daemon->conf) != 0 ||
        session_list_init(&daemon->sessions, &daemon->uv, &daemon->jobs, &daemon->timers, &daemon->conf,
                          &daemon->metrics, &dispatcher_session_ops, &daemon->dispatcher) != 0)
        abort();
    service_init(&daemon->service, &daemon->store, &daemon->sessions, &daemon->monitor);
    if (dispatcher_init(&daemon->dispatcher, &methods_ops, &daemon->service, &daemon->uv, &daemon->conf,
                        &daemon->metrics, &daemon->sessions.usage, error) != 0 ||
        monitor_init(&daemon->monitor, &daemon->store, &daemon->metrics, &daemon->sessions.usage) != 0)
        abort();
    daemon_connect(daemon);
}

void host_note_server_started(struct host *host)
{
    if (host->daemon != NULL && host->is_embedded && !host->daemon->is_stopping)
        daemon_connect(host->daemon);
}

/* --- Clients --------------------------------------------------------------------------------------- */

struct arrival {
    struct arrival *next;
    struct daemon *daemon; /* NULL: it was accepted or refused */
    struct pipe *pipe;
};

static struct arrival *arrivals;

static void daemon_accept(void *arg)
{
    struct arrival *arrival = arg;
    struct daemon *daemon = arrival->daemon;

    arrival->daemon = NULL;
    if (daemon->is_draining)
        pipe_refuse(arrival->pipe);
    else
        session_accept(&daemon->sessions, pipe_descriptor(arrival->pipe));
}

/* The daemon's process ends: its listening socket does, too. */
static void daemon_refuse_rest(const struct daemon *daemon)
{
    for (struct arrival *arrival = arrivals; arrival != NULL; arrival = arrival->next) {
        if (arrival->daemon != daemon)
            continue;
        arrival->daemon = NULL;
        pipe_refuse(arrival->pipe);
    }
}

void host_connect(struct host *host, struct pipe *pipe)
{
    struct arrival *arrival = memory_new(sizeof(*arrival));

    *arrival = (struct arrival){arrivals, host->daemon, pipe};
    arrivals = arrival;
    if (host->daemon != NULL)
        loop_post(host->daemon->loop, daemon_accept, arrival);
    else
        pipe_refuse(pipe);
}

/* --- The end --------------------------------------------------------------------------------------- */

/* As main_run, after its loop. */
static void daemon_free(void *arg)
{
    struct daemon *daemon = arg;

    daemon_refuse_rest(daemon);
    loop_free(daemon->loop);
    monitor_free(&daemon->monitor);
    store_free(&daemon->store);
    dispatcher_free(&daemon->dispatcher);
    service_free(&daemon->service);
    session_list_free(&daemon->sessions);
    conf_free(&daemon->conf);
    daemon->host->daemon = NULL;
    trace("%s has ended", daemon->host->name);
    free(daemon);
}

/* The loop ends when it has no handles. */
static void daemon_wait_for_handles(void *arg)
{
    struct daemon *daemon = arg;

    if (loop_has_handles(daemon->loop))
        loop_post(daemon->loop, daemon_wait_for_handles, daemon);
    else
        world_after(0, daemon_free, daemon);
}

static void daemon_on_store_stopped(void *arg)
{
    struct daemon *daemon = arg;

    uv_close((uv_handle_t *)&daemon->drain_limit, NULL);
    timers_close(&daemon->timers);
    loop_post(daemon->loop, daemon_wait_for_handles, daemon);
}

static void daemon_on_leases_idle(void *arg)
{
    struct daemon *daemon = arg;

    if (daemon->is_stopping)
        return;
    daemon->is_stopping = true;
    uv_timer_stop(&daemon->drain_limit);
    monitor_stop(&daemon->monitor);
    store_stop(&daemon->store, daemon_on_store_stopped, daemon);
}

static void daemon_on_sessions_gone(void *arg)
{
    struct daemon *daemon = arg;

    if (!daemon->is_stopping)
        leases_await_idle(&daemon->store, daemon_on_leases_idle, daemon);
}

static void daemon_on_drain_limit(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;

    if (daemon->sessions.first == NULL) {
        daemon_on_leases_idle(daemon);
        return;
    }
    uv_timer_start(timer, daemon_on_drain_limit, daemon->conf.calls.drain_timeout_ms, 0);
    session_list_end(&daemon->sessions);
}

/* As main_drain. */
static void daemon_drain(void *arg)
{
    struct daemon *daemon = arg;

    if (daemon->is_draining)
        return;
    daemon->is_draining = true;
    trace("%s drains", daemon->host->name);
    waiting_get_drop_all(&daemon->service);
    uv_timer_start(&daemon->drain_limit, daemon_on_drain_limit, daemon->conf.calls.drain_timeout_ms, 0);
    leases_drain(&daemon->store);
    session_list_drain(&daemon->sessions, daemon_on_sessions_gone, daemon);
}

void host_stop(struct host *host)
{
    if (host->daemon != NULL)
        loop_post(host->daemon->loop, daemon_drain, host->daemon);
}

void host_kill(struct host *host)
{
    struct daemon *daemon = host->daemon;

    if (daemon == NULL)
        return;
    trace("%s is killed", host->name);
    daemon_refuse_rest(daemon);
    loop_free(daemon->loop);
    pipe_break_all(&daemon->uv);
    connection_die(daemon->store.connection);
    daemon->next = killed;
    killed = daemon;
    host->daemon = NULL;
}

void host_suspend(struct host *host, uint64_t until_ns)
{
    trace("%s is stopped for %.3f s", host->name, (double)(until_ns - world_now_ns()) / 1e9);
    if (host->daemon != NULL)
        loop_suspend(host->daemon->loop, until_ns);
}

bool host_is_running(const struct host *host)
{
    return host->daemon != NULL;
}

/* --- Life ------------------------------------------------------------------------------------------ */

struct host *host_new(const char *name, bool is_embedded, const char *settings)
{
    struct host *host = memory_new(sizeof(*host));

    *host = (struct host){.next = all, .name = strdup(name), .is_embedded = is_embedded, .settings = strdup(settings)};
    all = host;
    return host;
}

void host_forget_all(void)
{
    while (all != NULL) {
        struct host *host = all;
        all = host->next;
        free(host->name);
        free(host->settings);
        free(host);
    }
    while (arrivals != NULL) {
        struct arrival *arrival = arrivals;
        arrivals = arrival->next;
        free(arrival);
    }
}
