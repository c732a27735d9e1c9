#include "daemon/base/backoff.h"
#include "daemon/nats/connection_parts.h"
#include "daemon/nats/denial.h"
#include "daemon/nats/tls.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Publishing fails while more than this is unsent. Messages that wait stay in the requests, which have limits. */
#define CONGESTED_BYTES (32 * 1024 * 1024)

/* So much published is sent before the turn ends. */
#define EARLY_BYTES (32u * 1024u)

/* How long connection_stop waits for an attempt to connect that hangs in the resolution of a name. */
#define STOP_MAX_MS 2000u

/* The wire's one subscription. */
#define INBOX_SID 1u

static void start_connecting(struct connection *connection);

/* --- Loss ------------------------------------------------------------------------------------------ */

static void connection_count_closed(struct connection *connection)
{
    if (--connection->open_handles == 0)
        connection->stopped(connection->stopped_arg);
}

static void on_former_closed(void *arg)
{
    connection_count_closed(arg);
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;

    free(handle);
    connection_count_closed(connection);
}

/* The socket is about to be closed. */
static void stop_polling(struct connection *connection)
{
    if (connection->poll == NULL)
        return;
    wire_finish_writing(&connection->wire);
    connection->open_handles += former_keep(&connection->former, connection->wire.socket, connection->number);
    uv_poll_stop(connection->poll);
    uv_close((uv_handle_t *)connection->poll, on_poll_closed);
    connection->poll = NULL;
}

static void on_backoff_over(uv_timer_t *timer)
{
    start_connecting(timer->data);
}

static void connection_back_off(struct connection *connection)
{
    uint64_t wait_ms = backoff_ms(connection->failures, connection->conf->nats.reconnect_min_ms,
                                  connection->conf->nats.reconnect_max_ms);

    connection->state = CONNECTION_BACKING_OFF;
    uv_timer_start(&connection->timer, on_backoff_over, wait_ms, 0);
}

static void drop_connection(struct connection *connection)
{
    stop_polling(connection);
    uv_timer_stop(&connection->timer);
    jobs_remove(connection->jobs, &connection->reading);
    wire_close(&connection->wire);
    connection->status.connected = false;
    connection->status.lost_ms = uv_now(connection->loop);
    connection->status.url[0] = '\0';
}

/* The connection is lost, or must be given up: report it and reconnect. */
static void lose_connection(struct connection *connection, const char *why)
{
    if (connection->state != CONNECTION_UP)
        return;
    log_warning("nats: connection to %s lost: %s; reconnecting", connection->status.url, why);
    snprintf(connection->status.last_error, sizeof(connection->status.last_error), "connection lost: %s", why);
    drop_connection(connection);
    connection->failures = 1;
    if (dialer_is_busy(&connection->dialer)) /* with the changed credentials: see connection_reload_credentials */
        connection->state = CONNECTION_CONNECTING;
    else
        connection_back_off(connection);
    connection->events.down(connection->events.arg);
}

/* --- Reading --------------------------------------------------------------------------------------- */

static void on_wire_message(void *arg, struct message *message)
{
    struct connection *connection = arg;

    if (ping_is_subject(&connection->ping, message->subject))
        ping_end(&connection->ping, message->payload, message->payload_bytes, &connection->status.rtt_us,
                 &connection->status.rtt_min_us);
    else
        connection->events.message(connection->events.arg, message);
}

/* An error of the server (-ERR) that does not end the connection. */
static void on_wire_error(void *arg, const char *text)
{
    struct connection *connection = arg;
    char subject[DENIAL_SUBJECT_BYTES];
    enum denial_kind kind;

    log_limited(&connection->error_log, "errors of the NATS server", CONF_LOG_WARNING, "nats: %s", text);
    if (connection->state != CONNECTION_UP || !denial_parse(text, &kind, subject))
        return;
    if (kind == DENIAL_PUBLISH && ping_is_subject(&connection->ping, subject)) {
        /* The denial is a reply, too. */
        ping_end(&connection->ping, NULL, 0, &connection->status.rtt_us, &connection->status.rtt_min_us);
        return;
    }
    connection->is_inbox_denied = connection->is_inbox_denied || kind == DENIAL_SUBSCRIPTION;
    connection->events.denied(connection->events.arg, kind, subject);
}

static bool is_slice_over(void *arg)
{
    return jobs_slice_is_over(((struct connection *)arg)->jobs);
}

static bool run_reading(struct job *job);

/* Read for a slice of the turn. An event may have stopped the connection, and so closed the wire. */
static bool read_wire(struct connection *connection)
{
    bool is_well = wire_read(&connection->wire);

    if (is_well && connection->wire.is_open && connection->wire.has_more)
        jobs_add_shared(connection->jobs, &connection->reading, run_reading);
    return is_well;
}

static bool run_reading(struct job *job)
{
    struct connection *connection = (struct connection *)((char *)job - offsetof(struct connection, reading));

    if (connection->wire.is_open && !read_wire(connection))
        lose_connection(connection, connection->wire.lost);
    return false;
}

static void set_poll_events(struct connection *connection);

/* Over TLS each direction may have to wait for the other one. */
static void move_wire(struct connection *connection, bool is_readable, bool is_writable)
{
    struct wire *wire = &connection->wire;
    bool must_read = is_readable || (is_writable && wire->read_waits_to_write);
    bool is_well = !must_read || jobs_is_queued(&connection->reading) || read_wire(connection);

    bool may_write = is_writable || (is_readable && wire->write_waits_to_read);
    if (is_well && wire->is_open && may_write && wire_unwritten_bytes(wire) > 0)
        is_well = wire_write(wire);
    if (!is_well)
        lose_connection(connection, wire->lost);
    else if (wire->is_open)
        set_poll_events(connection);
}

/* libuv reports the same status for every error of a socket. What came before the error was read first. */
static void lose_broken_socket(struct connection *connection, int status)
{
    int error = 0;

    if (connection->state == CONNECTION_UP)
        getsockopt(connection->wire.socket, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof(error)});
    lose_connection(connection, error != 0 ? strerror(error) : uv_strerror(status));
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct connection *connection = handle->data;
    bool is_readable = status != 0 || events & (UV_READABLE | UV_DISCONNECT);

    connection->status.reads += is_readable;
    jobs_begin_slice(connection->jobs); /* even if the turn has no time left: replies end calls */
    move_wire(connection, is_readable, (events & UV_WRITABLE) != 0);
    if (status != 0) /* the poll has stopped */
        lose_broken_socket(connection, status);
}

static void set_poll_events(struct connection *connection)
{
    int events = wire_wants_to_write(&connection->wire) ? UV_READABLE | UV_WRITABLE : UV_READABLE;

    if (connection->poll_events == events)
        return;
    connection->poll_events = events;
    uv_poll_start(connection->poll, events, on_poll);
}

/* --- Writing --------------------------------------------------------------------------------------- */

/*
 * Let the server begin its work before the end of a turn that publishes much. An error is handled at the turn's end:
 * callers of connection_publish do not expect to lose the connection within it.
 */
static void write_early(struct connection *connection, size_t bytes)
{
    connection->unwritten_bytes += bytes;
    if (connection->unwritten_bytes < EARLY_BYTES || connection->poll_events & UV_WRITABLE)
        return;
    connection->unwritten_bytes = 0;
    wire_write(&connection->wire);
}

enum connection_publish_result connection_publish(struct connection *connection, const char *subject, const char *reply,
                                                  const struct message_header *headers, size_t header_count,
                                                  const void *payload, size_t payload_bytes)
{
    static const enum connection_publish_result results[] = {[WIRE_DONE] = CONNECTION_PUBLISHED,
                                                             [WIRE_TOO_LARGE] = CONNECTION_TOO_LARGE,
                                                             [WIRE_NO_MEMORY] = CONNECTION_NO_MEMORY};

    if (connection->state != CONNECTION_UP)
        return CONNECTION_NOT_UP;
    if (wire_unwritten_bytes(&connection->wire) > CONGESTED_BYTES)
        return CONNECTION_CONGESTED;
    size_t unwritten = wire_unwritten_bytes(&connection->wire);
    enum wire_result result =
        wire_publish(&connection->wire, subject, reply, headers, header_count, payload, payload_bytes);
    if (result == WIRE_DONE)
        write_early(connection, wire_unwritten_bytes(&connection->wire) - unwritten);
    return results[result];
}

void connection_flush(struct connection *connection)
{
    if (connection->state != CONNECTION_UP)
        return;
    connection->unwritten_bytes = 0;
    if (!(connection->poll_events & UV_WRITABLE) && !wire_write(&connection->wire))
        lose_connection(connection, connection->wire.lost);
    else
        set_poll_events(connection);
}

/* --- Pings ----------------------------------------------------------------------------------------- */

static bool send_ping(struct connection *connection)
{
    struct ping_times times = ping_times_now();

    return connection_publish(connection, connection->ping.subject, NULL, NULL, 0, &times, sizeof(times)) ==
           CONNECTION_PUBLISHED;
}

void connection_ping(struct connection *connection)
{
    if (connection->state == CONNECTION_UP && ping_may_begin(&connection->ping) && send_ping(connection))
        ping_begin(&connection->ping);
}

static void on_ping_timer(uv_timer_t *timer)
{
    struct connection *connection = timer->data;

    if (connection->is_inbox_denied) { /* the next connection shows whether the permissions have changed */
        lose_connection(connection, "the server denies kvstored's user to subscribe to its inbox");
    } else if (ping_is_missed(&connection->ping, connection->conf->nats.ping_interval_ms)) {
        lose_connection(connection, "the server does not answer");
    } else {
        send_ping(connection);
        ping_begin(&connection->ping); /* if the connection is congested, no reply comes */
    }
}

/* --- Connecting ------------------------------------------------------------------------------------ */

static void note_failed_attempt(struct connection *connection, const char *why)
{
    if (connection->state == CONNECTION_UP) {
        log_error("nats: cannot connect with the changed credentials: %s; keeping the connection to %s, which was made "
                  "with the former ones; correct them and reload",
                  why, connection->status.url);
        return;
    }
    connection->failures++;
    /* Attempts with the former and the new credentials alternate. Only failures with the new ones are logged. */
    if (dialer_uses_former_secrets(&connection->dialer))
        return;
    /* Log the first failure in a row, a new reason, and one in a while. */
    if (connection->failures == 1 || strcmp(why, connection->status.last_error) != 0 || connection->failures % 30 == 0)
        log_warning("nats: cannot connect to %s%s: %s; retrying", connection->target.urls[0],
                    connection->target.url_count > 1 ? " and the others" : "", why);
    snprintf(connection->status.last_error, sizeof(connection->status.last_error), "%s", why);
}

static void on_connect_failed(void *arg, const char *why)
{
    struct connection *connection = arg;

    note_failed_attempt(connection, why);
    if (connection->state == CONNECTION_UP)
        return;
    connection_back_off(connection);
    connection->events.unreachable(connection->events.arg);
}

/* The connection that has these credentials may have been lost meanwhile. */
static void on_dialer_unchanged(void *arg)
{
    struct connection *connection = arg;

    if (connection->state == CONNECTION_CONNECTING)
        start_connecting(connection);
}

static void start_connecting(struct connection *connection)
{
    if (connection->is_held) {
        on_connect_failed(connection, "nats-server does not run");
        return;
    }
    connection->state = CONNECTION_CONNECTING;
    if (!dialer_start(&connection->dialer, &connection->target))
        on_connect_failed(connection, dialer_error(&connection->dialer));
}

/* Put the new connection into the loop, and subscribe to the inbox. Return false with the reason. */
static bool connection_take_over(struct connection *connection, struct libnats_connection *opened, const char **error)
{
    const struct wire_events events = {on_wire_message, on_wire_error, is_slice_over, connection};
    char subject[sizeof(connection->inbox) + 2];

    *error = "out of memory";
    snprintf(subject, sizeof(subject), "%s>", connection->inbox);
    if (!wire_open(&connection->wire, opened->socket, opened->tls, opened->max_payload_bytes, &events)) {
        libnats_close(opened);
        return false;
    }
    connection->poll = wire_subscribe(&connection->wire, subject, INBOX_SID) ? malloc(sizeof(*connection->poll)) : NULL;
    if (connection->poll == NULL)
        return false;
    int status = uv_poll_init_socket(connection->loop, connection->poll, opened->socket);
    if (status != 0) {
        *error = uv_strerror(status);
        free(connection->poll);
        connection->poll = NULL;
        return false;
    }
    connection->open_handles++;
    connection->number++;
    snprintf(connection->server_id, sizeof(connection->server_id), "%s", opened->server_id);
    connection->poll->data = connection;
    connection->poll_events = 0;
    set_poll_events(connection);
    return true;
}

static void note_connected(struct connection *connection, const struct libnats_connection *opened)
{
    struct connection_status *status = &connection->status;

    connection->state = CONNECTION_UP;
    connection->failures = 0;
    connection->is_inbox_denied = false;
    ping_reset(&connection->ping);
    status->rtt_min_us = 0;
    if (status->was_connected)
        status->reconnects++;
    status->connected = true;
    status->was_connected = true;
    status->last_error[0] = '\0';
    status->max_payload_bytes = opened->max_payload_bytes;
    snprintf(status->url, sizeof(status->url), "%s", opened->url);
}

static void on_dialer_connected(void *arg, struct libnats_connection *opened)
{
    struct connection *connection = arg;
    const char *error;

    if (connection->state == CONNECTION_UP) {
        log_info("nats: the credentials have changed; replacing the connection to %s", connection->status.url);
        drop_connection(connection);
        connection->state = CONNECTION_CONNECTING;
        connection->events.down(connection->events.arg);
    }
    if (!connection_take_over(connection, opened, &error)) {
        drop_connection(connection);
        on_connect_failed(connection, error);
        return;
    }
    note_connected(connection, opened);
    log_info("nats: connected to %s%s", opened->url, opened->tls != NULL ? " (encrypted)" : "");
    if (dialer_uses_former_secrets(&connection->dialer))
        log_warning("nats: this connection has the former credentials, because the present ones were refused; correct "
                    "them and reload");
    connection_warn_unencrypted(connection, opened);
    uv_timer_start(&connection->timer, on_ping_timer, 0, connection->conf->nats.ping_interval_ms);
    connection->events.up(connection->events.arg);
}

static void connection_finish_stop(struct connection *connection);

static void on_dialer_cancelled(void *arg)
{
    struct connection *connection = arg;

    if (connection->state == CONNECTION_STOPPING)
        connection_finish_stop(connection);
    else if (connection->state == CONNECTION_UP)
        connection_reload_credentials(connection);
    else
        start_connecting(connection);
}

static void on_dialer_abandoned(void *arg)
{
    struct connection *connection = arg;

    log_info("nats: exiting during an attempt to connect, which did not end within %u s", STOP_MAX_MS / 1000);
    connection->state = CONNECTION_ABANDONED;
    connection->stopped(connection->stopped_arg);
}

/* --- Life ------------------------------------------------------------------------------------------ */

struct connection *connection_new(uv_loop_t *loop, struct jobs *jobs, const struct conf *conf,
                                  const struct connection_events *events)
{
    struct connection *connection = calloc(1, sizeof(*connection));
    natsInbox *inbox = NULL;

    if (connection == NULL)
        return NULL;
    if (!tls_init() || natsInbox_Create(&inbox) != NATS_OK) {
        free(connection);
        return NULL;
    }

    connection->loop = loop;
    connection->jobs = jobs;
    connection->status.lost_ms = uv_now(loop);
    connection->conf = conf;
    connection->events = *events;
    connection->former = (struct former){.loop = loop, .closed = on_former_closed, .arg = connection};
    /* The library returns "_INBOX." and a unique id. */
    snprintf(connection->unique_id, sizeof(connection->unique_id), "%s", inbox + strlen("_INBOX."));
    snprintf(connection->inbox, sizeof(connection->inbox), "_INBOX.%s.", connection->unique_id);
    snprintf(connection->ping.subject, sizeof(connection->ping.subject), "%sping", connection->inbox);
    const struct dialer_events dialed = {on_dialer_connected, on_connect_failed,   on_dialer_unchanged,
                                         on_dialer_cancelled, on_dialer_abandoned, connection};
    dialer_init(&connection->dialer, loop, conf, &dialed);
    uv_timer_init(loop, &connection->timer);
    connection->timer.data = connection;
    connection->open_handles = 2; /* the dialer's, and the timer */
    natsInbox_Destroy(inbox);
    return connection;
}

/* The attempt that runs, or waits for its time, is made again from the beginning. */
static void restart_attempt(struct connection *connection)
{
    if (connection->state == CONNECTION_CONNECTING) {
        connection->state = CONNECTION_RETARGETING;
        dialer_cancel(&connection->dialer, 0);
    } else if (connection->state == CONNECTION_BACKING_OFF) {
        uv_timer_stop(&connection->timer);
        start_connecting(connection);
    }
}

void connection_start(struct connection *connection, const struct connection_target *target)
{
    connection->target = *target;
    connection->is_held = false;
    switch (connection->state) {
    case CONNECTION_STOPPED:
        connection->status.lost_ms = uv_now(connection->loop);
        start_connecting(connection);
        break;
    case CONNECTION_UP:
        lose_connection(connection, "the server's address has changed");
        restart_attempt(connection);
        break;
    case CONNECTION_CONNECTING:
    case CONNECTION_BACKING_OFF:
        restart_attempt(connection);
        break;
    case CONNECTION_RETARGETING:
    case CONNECTION_STOPPING:
    case CONNECTION_ABANDONED:
        break;
    }
}

void connection_hold(struct connection *connection)
{
    connection->is_held = true;
    if (connection->state == CONNECTION_CONNECTING)
        restart_attempt(connection);
}

void connection_reload_credentials(struct connection *connection)
{
    switch (connection->state) {
    case CONNECTION_UP:
        /* An attempt that already runs has read other ones. Its next event would be lost: see on_dialer_cancelled. */
        if (dialer_is_busy(&connection->dialer))
            dialer_cancel(&connection->dialer, 0);
        else if (!dialer_start_changed(&connection->dialer, &connection->target))
            note_failed_attempt(connection, dialer_error(&connection->dialer));
        break;
    case CONNECTION_CONNECTING:
    case CONNECTION_BACKING_OFF:
        restart_attempt(connection);
        break;
    case CONNECTION_STOPPED:
    case CONNECTION_RETARGETING:
    case CONNECTION_STOPPING:
    case CONNECTION_ABANDONED:
        break;
    }
}

static void connection_on_handle_closed(uv_handle_t *handle)
{
    connection_count_closed(handle->data);
}

static void connection_finish_stop(struct connection *connection)
{
    connection->state = CONNECTION_STOPPED;
    former_close_all(&connection->former);
    dialer_close(&connection->dialer, connection_on_handle_closed);
    uv_close((uv_handle_t *)&connection->timer, connection_on_handle_closed);
}

void connection_stop(struct connection *connection, void (*stopped)(void *arg), void *arg)
{
    connection->stopped = stopped;
    connection->stopped_arg = arg;
    switch (connection->state) {
    case CONNECTION_CONNECTING:
    case CONNECTION_RETARGETING:
        connection->state = CONNECTION_STOPPING;
        dialer_cancel(&connection->dialer, STOP_MAX_MS);
        return;
    case CONNECTION_UP:
        wire_write(&connection->wire);
        drop_connection(connection);
        if (dialer_is_busy(&connection->dialer)) {
            connection->state = CONNECTION_STOPPING;
            dialer_cancel(&connection->dialer, STOP_MAX_MS);
            return;
        }
        break;
    case CONNECTION_BACKING_OFF:
        uv_timer_stop(&connection->timer);
        break;
    case CONNECTION_STOPPED:
    case CONNECTION_STOPPING:
    case CONNECTION_ABANDONED:
        break;
    }
    connection_finish_stop(connection);
}

void connection_free(struct connection *connection)
{
    if (connection == NULL)
        return;
    assert(connection->open_handles == 0);
    free(connection);
}

void connection_set_ping_interval(struct connection *connection)
{
    if (connection->state == CONNECTION_UP)
        uv_timer_start(&connection->timer, on_ping_timer, connection->conf->nats.ping_interval_ms,
                       connection->conf->nats.ping_interval_ms);
}
