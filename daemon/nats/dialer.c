#include "daemon/nats/dialer.h"

#include <stdio.h>
#include <unistd.h>

/* While a thread connects, its sockets are checked so often in nats.connect_timeout. */
#define CHECKS_PER_TIMEOUT 10u

/* The interval of the checks after a cancellation. */
#define CANCEL_CHECK_MS 20u

static struct dialer *dialer_of_timer(uv_timer_t *timer)
{
    return (struct dialer *)((char *)timer - offsetof(struct dialer, check));
}

void dialer_init(struct dialer *dialer, uv_loop_t *loop, const struct conf *conf, const struct dialer_events *events)
{
    dialer->loop = loop;
    dialer->conf = conf;
    dialer->events = *events;
    uv_timer_init(loop, &dialer->check);
    dialer->check.data = events->arg;
    dialer->work.data = dialer;
}

/* On a worker thread: of the dialer only attempt and is_connected are touched. */
static void connect_on_thread(uv_work_t *work)
{
    struct dialer *dialer = work->data;

    dialer->is_connected = libnats_connect(&dialer->attempt);
}

static void report_failure(struct dialer *dialer)
{
    char slow[LIBNATS_ERROR_BYTES];

    snprintf(slow, sizeof(slow), "the server did not complete the connection within %g s (nats.connect_timeout)",
             (double)dialer->conf->nats.connect_timeout_ms / 1000.0);
    dialer->events.failed(dialer->events.arg,
                          dialer->was_slow || dialer->attempt.has_timed_out ? slow : dialer->attempt.error);
}

static void on_thread_done(uv_work_t *work, int status)
{
    struct dialer *dialer = work->data;
    enum dialer_state state = dialer->state;

    (void)status;
    if (state == DIALER_ABANDONED)
        return;
    uv_timer_stop(&dialer->check);
    dialer->state = DIALER_IDLE;
    if (state == DIALER_CANCELLED) {
        if (dialer->is_connected)
            libnats_close(&dialer->attempt.connection);
        dialer->events.cancelled(dialer->events.arg);
    } else if (dialer->is_connected) {
        dialer->events.connected(dialer->events.arg, &dialer->attempt.connection);
    } else {
        report_failure(dialer);
    }
}

static void on_dialer_check(uv_timer_t *timer)
{
    struct dialer *dialer = dialer_of_timer(timer);
    uint64_t now_ms = uv_now(dialer->loop);
    uint64_t limit_ms = dialer->state == DIALER_CANCELLED ? 0 : dialer->conf->nats.connect_timeout_ms;

    if (libnats_end_slow_sockets(&dialer->attempt, now_ms, limit_ms))
        dialer->was_slow = true;
    if (dialer->state == DIALER_CANCELLED && now_ms >= dialer->abandon_at_ms) {
        dialer->state = DIALER_ABANDONED;
        uv_timer_stop(timer);
        dialer->events.abandoned(dialer->events.arg);
    }
}

bool dialer_start(struct dialer *dialer, const struct connection_target *target)
{
    uint64_t interval_ms = dialer->conf->nats.connect_timeout_ms / CHECKS_PER_TIMEOUT + 1;

    if (!libnats_prepare(&dialer->attempt, dialer->conf, target))
        return false;
    dialer->state = DIALER_CONNECTING;
    dialer->was_slow = false;
    dialer->abandon_at_ms = UINT64_MAX;
    uv_timer_start(&dialer->check, on_dialer_check, interval_ms, interval_ms);
    uv_queue_work(dialer->loop, &dialer->work, connect_on_thread, on_thread_done);
    return true;
}

const char *dialer_error(const struct dialer *dialer)
{
    return dialer->attempt.error;
}

void dialer_cancel(struct dialer *dialer, unsigned max_ms)
{
    dialer->state = DIALER_CANCELLED;
    if (max_ms > 0)
        dialer->abandon_at_ms = uv_now(dialer->loop) + max_ms;
    uv_timer_start(&dialer->check, on_dialer_check, 0, CANCEL_CHECK_MS);
}

void dialer_close(struct dialer *dialer, uv_close_cb closed)
{
    uv_close((uv_handle_t *)&dialer->check, closed);
}
