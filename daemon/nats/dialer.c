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

/* On a worker thread: of the dialer only attempt and result are written. */
static void connect_on_thread(uv_work_t *work)
{
    struct dialer *dialer = work->data;

    dialer->result = libnats_connect(&dialer->attempt);
}

static void report_failure(struct dialer *dialer)
{
    char slow[LIBNATS_ERROR_BYTES];

    snprintf(slow, sizeof(slow), "the server did not complete the connection within %g s (nats.connect_timeout)",
             (double)dialer->conf->nats.connect_timeout_ms / 1000.0);
    dialer->events.failed(dialer->events.arg,
                          dialer->was_slow || dialer->attempt.has_timed_out ? slow : dialer->attempt.error);
}

/* The thread has ended: keep the secrets of a connection, and decide with which ones the next attempt is made. */
static void keep_secrets(struct dialer *dialer)
{
    struct libnats_attempt *attempt = &dialer->attempt;

    if (dialer->result == LIBNATS_CONNECTED) {
        secrets_clear(&dialer->accepted);
        dialer->accepted = attempt->secrets;
        dialer->has_accepted = true;
        attempt->secrets = (struct secrets){0};
    }
    bool try_former = dialer->result == LIBNATS_FAILED && attempt->blames_secrets && dialer->has_accepted &&
                      attempt->purpose != LIBNATS_CONNECT_AGAIN &&
                      !secrets_are_equal(&attempt->secrets, &dialer->accepted);
    dialer->next = try_former ? LIBNATS_CONNECT_AGAIN : LIBNATS_CONNECT;
    secrets_clear(&attempt->secrets);
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
    keep_secrets(dialer);
    if (state == DIALER_CANCELLED) {
        if (dialer->result == LIBNATS_CONNECTED)
            libnats_close(&dialer->attempt.connection);
        dialer->events.cancelled(dialer->events.arg);
    } else if (dialer->result == LIBNATS_CONNECTED) {
        dialer->events.connected(dialer->events.arg, &dialer->attempt.connection);
    } else if (dialer->result == LIBNATS_UNCHANGED) {
        dialer->events.unchanged(dialer->events.arg);
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

static bool start_attempt(struct dialer *dialer, const struct connection_target *target, enum libnats_purpose purpose)
{
    uint64_t interval_ms = dialer->conf->nats.connect_timeout_ms / CHECKS_PER_TIMEOUT + 1;

    if (!libnats_prepare(&dialer->attempt, dialer->conf, target, purpose, &dialer->accepted))
        return false;
    dialer->state = DIALER_CONNECTING;
    dialer->was_slow = false;
    dialer->abandon_at_ms = UINT64_MAX;
    uv_timer_start(&dialer->check, on_dialer_check, interval_ms, interval_ms);
    uv_queue_work(dialer->loop, &dialer->work, connect_on_thread, on_thread_done);
    return true;
}

bool dialer_start(struct dialer *dialer, const struct connection_target *target)
{
    return start_attempt(dialer, target, dialer->next);
}

bool dialer_start_changed(struct dialer *dialer, const struct connection_target *target)
{
    return start_attempt(dialer, target, LIBNATS_CONNECT_CHANGED);
}

bool dialer_is_busy(const struct dialer *dialer)
{
    return dialer->state != DIALER_IDLE;
}

bool dialer_uses_former_secrets(const struct dialer *dialer)
{
    return dialer->attempt.purpose == LIBNATS_CONNECT_AGAIN;
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
    secrets_clear(&dialer->accepted);
    uv_close((uv_handle_t *)&dialer->check, closed);
}
