/*
 * dialer: connects to a NATS server on a worker thread.
 *
 * Used by connection. The C library of NATS blocks while it connects, and older versions without a limit. The dialer
 * runs one attempt at a time and ends it after nats.connect_timeout. On the loop's thread nothing blocks.
 *
 * Each attempt reads the files of the credentials again, on its thread. If they cannot be used, or a server refuses
 * them, the next attempt is made with those of the last connection.
 */
#ifndef DAEMON_NATS_DIALER_H
#define DAEMON_NATS_DIALER_H

#include "daemon/nats/libnats.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/* One of them is called for each attempt, from the loop. */
struct dialer_events {
    /* The callee takes over the socket and the TLS session. opened is over after the call. */
    void (*connected)(void *arg, struct libnats_connection *opened);
    void (*failed)(void *arg, const char *why);
    /* Only after dialer_start_changed: nothing has changed, so no connection was made. */
    void (*unchanged)(void *arg);
    void (*cancelled)(void *arg);
    /*
     * The attempt was cancelled and its thread did not end in time. It still uses the dialer's memory, which may never
     * be freed, and the loop would wait for it: the process has to exit as it is.
     */
    void (*abandoned)(void *arg);
    void *arg;
};

enum dialer_state {
    DIALER_IDLE,
    DIALER_CONNECTING, /* a worker thread runs the attempt */
    DIALER_CANCELLED,  /* it still runs, but its connection is not wanted */
    DIALER_ABANDONED
};

/* Zeroed before dialer_init. All members are private. */
struct dialer {
    uv_loop_t *loop;
    const struct conf *conf;
    struct dialer_events events;
    enum dialer_state state;
    uv_work_t work;
    uv_timer_t check;
    struct libnats_attempt attempt;
    enum libnats_result result; /* of the attempt */
    struct secrets accepted;    /* of the last connection, if has_accepted */
    bool has_accepted;
    enum libnats_purpose next; /* of dialer_start: CONNECT or CONNECT_AGAIN */
    bool was_slow;             /* one of its sockets was shut down because it took too long */
    uint64_t abandon_at_ms;    /* loop time; UINT64_MAX: never */
};

void dialer_init(struct dialer *dialer, uv_loop_t *loop, const struct conf *conf, const struct dialer_events *events);

/* Start an attempt; none may be in progress. Return false with a sentence in dialer_error if it could not be started.
 */
bool dialer_start(struct dialer *dialer, const struct connection_target *target);
const char *dialer_error(const struct dialer *dialer);

/* The same, but connect only if the secrets differ from those of the last connection. */
bool dialer_start_changed(struct dialer *dialer, const struct connection_target *target);

bool dialer_is_busy(const struct dialer *dialer);

/*
 * Return whether the present attempt, or the last one, uses the secrets of the last connection: a server or the library
 * has refused those of the configuration.
 */
bool dialer_uses_former_secrets(const struct dialer *dialer);

/*
 * End the attempt as soon as possible: events.cancelled follows, or, if the thread hangs for max_ms in the resolution
 * of a name, events.abandoned. max_ms 0: never.
 */
void dialer_cancel(struct dialer *dialer, unsigned max_ms);

/* Close the dialer's handle; no attempt may be in progress. closed is called with handle->data as dialer_init's arg. */
void dialer_close(struct dialer *dialer, uv_close_cb closed);

#endif
