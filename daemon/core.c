#include "daemon/core.h"

#include "daemon/base/log.h"
#include "daemon/handlers/methods.h"
#include "daemon/handlers/waiting_get.h"
#include "daemon/store/lease/leases.h"

#include <stdio.h>

/* --- Starting -------------------------------------------------------------------------------------- */

int core_init(struct core *core, uv_loop_t *loop, struct conf *conf, char error[static CONF_ERROR_BYTES])
{
    core->conf = conf;
    jobs_init(&core->jobs);
    timers_init(&core->timers, loop, &core->jobs);
    uv_timer_init(loop, &core->drain_limit);
    core->drain_limit.data = core;
    if (store_init(&core->store, loop, &core->jobs, &core->timers, conf) != 0 ||
        session_list_init(&core->sessions, loop, &core->jobs, &core->timers, conf, &core->metrics,
                          &dispatcher_session_ops, &core->dispatcher) != 0) {
        snprintf(error, CONF_ERROR_BYTES, "out of memory");
        return -1;
    }
    service_init(&core->service, &core->store, &core->sessions, &core->monitor);
    return dispatcher_init(&core->dispatcher, &methods_ops, &core->service, loop, conf, &core->metrics,
                           &core->sessions.usage, error);
}

int core_start_monitor(struct core *core)
{
    return monitor_init(&core->monitor, &core->store, &core->metrics, &core->sessions.usage);
}

/* --- The turn of the loop -------------------------------------------------------------------------- */

/*
 * All requests of the turn leave in one write to NATS, and the answers to each client in one write. NATS comes first,
 * so that the server works while the daemon writes answers.
 */
static void core_flush(struct core *core)
{
    store_flush(&core->store);
    session_list_flush(&core->sessions);
}

void core_work(struct core *core)
{
    core_flush(core);
    jobs_run(&core->jobs);
    core_flush(core); /* jobs may have made requests and answers */
}

bool core_has_more(const struct core *core)
{
    return core->sessions.dirty != NULL || jobs_are_waiting(&core->jobs);
}

uint64_t core_end_turn(struct core *core, uint64_t now_ns)
{
    uint64_t took_ns = jobs_end_turn(&core->jobs);

    if (took_ns > 0)
        metrics_note(&core->metrics.turns, took_ns / 1000);
    metrics_settle(&core->metrics, now_ns);
    return took_ns;
}

/* --- The end --------------------------------------------------------------------------------------- */

/* All sessions are gone, and their keys. */
static void core_on_leases_idle(void *arg)
{
    struct core *core = arg;

    if (core->state == CORE_STOPPING)
        return;
    core->state = CORE_STOPPING;
    uv_timer_stop(&core->drain_limit);
    monitor_stop(&core->monitor);
    store_stop(&core->store, core->stopped, core->stopped_arg);
}

/* The keys that lived with the sessions are being deleted. */
static void core_on_sessions_gone(void *arg)
{
    struct core *core = arg;

    if (core->state != CORE_STOPPING)
        leases_await_idle(&core->store, core_on_leases_idle, core);
}

static void core_on_drain_limit(uv_timer_t *timer)
{
    struct core *core = timer->data;
    unsigned limit_ms = core->conf->calls.drain_timeout_ms;

    if (core->sessions.first == NULL) {
        log_warning("locks and ephemeral keys of sessions are not deleted after %.3g s (calls.drain_timeout)",
                    limit_ms / 1000.0);
        core_on_leases_idle(core);
        return;
    }
    log_warning("%u calls are not answered after %.3g s (calls.drain_timeout)", core->metrics.calls, limit_ms / 1000.0);
    uv_timer_start(timer, core_on_drain_limit, limit_ms, 0);
    session_list_end(&core->sessions);
}

void core_drain(struct core *core, void (*stopped)(void *arg), void *arg)
{
    if (core->state != CORE_RUNNING)
        return;
    core->state = CORE_DRAINING;
    core->stopped = stopped;
    core->stopped_arg = arg;
    log_info("ending: %u sessions, %u calls in flight", core->metrics.sessions, core->metrics.calls);
    waiting_get_drop_all(&core->service);
    uv_timer_start(&core->drain_limit, core_on_drain_limit, core->conf->calls.drain_timeout_ms, 0);
    leases_drain(&core->store);
    session_list_drain(&core->sessions, core_on_sessions_gone, core);
}

void core_close(struct core *core)
{
    uv_close((uv_handle_t *)&core->drain_limit, NULL);
    timers_close(&core->timers);
}

void core_free(struct core *core)
{
    monitor_free(&core->monitor);
    store_free(&core->store);
    dispatcher_free(&core->dispatcher);
    service_free(&core->service);
    session_list_free(&core->sessions);
}
