#include "daemon/nats/connection.h"

#include "daemon/base/backoff.h"
#include "daemon/base/log.h"
#include "daemon/nats/credentials.h"
#include "daemon/nats/former.h"
#include "daemon/nats/libnats.h"
#include "daemon/nats/tls.h"
#include "daemon/nats/wire.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* Publishing stops while the server has this much to read: what waits stays in the requests, which have limits. */
#define CONGESTED_BYTES (32 * 1024 * 1024)

/* So much published is written before the turn ends; a message counts with what surrounds its payload. */
#define EARLY_BYTES         (32u * 1024u)
#define EARLY_MESSAGE_BYTES 128u

/* An attempt to connect that is to end, but hangs in the resolution of a name, is waited for so long. */
#define STOP_MAX_MS 2000u

/* While a thread connects, its sockets are checked so often in nats.connect_timeout, and when it is to end. */
#define CHECKS_PER_TIMEOUT 10u
#define ENDING_CHECK_MS    20u

/* A subject, with what the API's prefix and a bucket add. */
#define SUBJECT_BYTES 2048u

/* The wire's one subscription. */
#define INBOX_SID 1u

enum connection_state {
    LINK_STOPPED,    /* not wanted */
    LINK_CONNECTING, /* a worker thread is at it */
    LINK_UP,
    LINK_WAITING, /* until the backoff's timer */
    LINK_ENDING,  /* connection_stop was called while a worker thread is at it */
    LINK_ABANDONED
};

struct connection {
    uv_loop_t *loop;
    struct jobs *jobs;
    struct job reading; /* of the wire, when a slice was too short for what came */
    const struct conf *conf;
    struct connection_events events;
    struct connection_target target;
    enum connection_state state;
    bool target_changed; /* while connecting to another one */
    unsigned failures;   /* attempts since the last connection */
    struct connection_status status;
    char inbox[64];
    char unique_id[32];

    /* the worker thread's attempt to connect */
    uv_work_t work;
    struct libnats_attempt attempt;
    bool is_reached;
    bool was_slow;         /* a socket of it was ended because it took too long */
    uint64_t end_began_ms; /* when connection_stop was called in the middle of it */

    /* the connection */
    struct wire wire;
    uv_poll_t *poll;
    int poll_events;
    uint64_t number; /* of the connection, or of the last one; counts from 1 */
    char server_id[LIBNATS_SERVER_ID_BYTES];
    struct former former;   /* those before it */
    size_t unwritten_bytes; /* published since the last write, about */
    bool has_warned;        /* that credentials are not encrypted */

    /* the round-trip check */
    uv_timer_t timer; /* of the check while up, of the backoff while waiting, of the limit while connecting */
    char ping_subject[72];
    uint64_t ping_sent_ns; /* 0: none is out */
    unsigned pings_missed;

    struct log_limit complaint_log;
    bool is_deaf; /* the server has refused the subscription of the inbox */

    unsigned open_handles;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static void start_connecting(struct connection *connection);

/* --- Loss ------------------------------------------------------------------------------------------ */

static void count_closed(struct connection *connection)
{
    if (--connection->open_handles == 0)
        connection->stopped(connection->stopped_arg);
}

static void on_former_closed(void *arg)
{
    count_closed(arg);
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;

    free(handle);
    count_closed(connection);
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

static void wait_and_connect(struct connection *connection)
{
    uint64_t wait_ms = backoff_ms(connection->failures, connection->conf->nats.reconnect_min_ms,
                                  connection->conf->nats.reconnect_max_ms);

    connection->state = LINK_WAITING;
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

/* The connection is gone, or must go: tells the user and connects again. */
static void lose_connection(struct connection *connection, const char *why)
{
    if (connection->state != LINK_UP)
        return;
    log_warning("nats: connection to %s lost: %s", connection->status.url, why);
    snprintf(connection->status.last_error, sizeof(connection->status.last_error), "connection lost: %s", why);
    drop_connection(connection);
    connection->failures = 1;
    wait_and_connect(connection);
    connection->events.down(connection->events.arg);
}

/* --- Reading --------------------------------------------------------------------------------------- */

static void on_pong(struct connection *connection)
{
    if (connection->ping_sent_ns != 0)
        connection->status.rtt_us = (uv_hrtime() - connection->ping_sent_ns) / 1000;
    connection->ping_sent_ns = 0;
    connection->pings_missed = 0;
}

static void take_message(void *arg, struct message *message)
{
    struct connection *connection = arg;

    if (strcmp(message->subject, connection->ping_subject) == 0)
        on_pong(connection);
    else
        connection->events.message(connection->events.arg, message);
}

/*
 * "Permissions Violation for Publish to "subject"", or "for Subscription to …". The subject is quoted as Go quotes
 * strings; ours have nothing in them that this would change. False: it is about something else.
 */
static bool parse_denial(const char *text, enum connection_denied *what, char subject[SUBJECT_BYTES])
{
    static const char *const beginnings[] = {[LINK_DENIED_PUBLISH] = "Permissions Violation for Publish to \"",
                                             [LINK_DENIED_INBOX] = "Permissions Violation for Subscription to \""};

    for (unsigned i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++) {
        size_t length = strlen(beginnings[i]);
        if (strncasecmp(text, beginnings[i], length) != 0)
            continue;
        *what = (enum connection_denied)i;
        snprintf(subject, SUBJECT_BYTES, "%.*s", (int)strcspn(text + length, "\""), text + length);
        return true;
    }
    return false;
}

static void take_complaint(void *arg, const char *text)
{
    struct connection *connection = arg;
    char subject[SUBJECT_BYTES];
    enum connection_denied what;

    log_limited(&connection->complaint_log, "complaints of the NATS server", CONF_LOG_WARNING, "nats: %s", text);
    if (connection->state != LINK_UP || !parse_denial(text, &what, subject))
        return;
    if (what == LINK_DENIED_PUBLISH && strcmp(subject, connection->ping_subject) == 0) {
        on_pong(connection); /* that the server refuses it is an answer, too */
        return;
    }
    connection->is_deaf = connection->is_deaf || what == LINK_DENIED_INBOX;
    connection->events.denied(connection->events.arg, what, subject);
}

static bool is_slice_over(void *arg)
{
    return jobs_slice_is_over(((struct connection *)arg)->jobs);
}

static bool run_reading(struct job *job);

/* Reads for a slice of the turn. The wire is gone when the link was stopped from within. */
static bool read_wire(struct connection *connection)
{
    bool is_well = wire_read(&connection->wire);

    if (is_well && connection->wire.is_open && connection->wire.has_more)
        jobs_add(connection->jobs, &connection->reading, run_reading);
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

/* Over TLS each direction may have to wait for the other. */
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

/* libuv has one status for every error of a socket. What came before the error was read first. */
static void lose_broken_socket(struct connection *connection, int status)
{
    int error = 0;

    if (connection->state == LINK_UP)
        getsockopt(connection->wire.socket, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof(error)});
    lose_connection(connection, error != 0 ? strerror(error) : uv_strerror(status));
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct connection *connection = handle->data;
    bool is_readable = status != 0 || events & (UV_READABLE | UV_DISCONNECT);

    connection->status.reads += is_readable;
    jobs_begin_slice(connection->jobs); /* even in a turn without time: what NATS answers ends calls */
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
 * In a turn that publishes much the server begins before the turn ends. What goes wrong here is found out at the turn's
 * end: whoever publishes does not expect to lose the link in the middle of it.
 */
static void write_early(struct connection *connection, size_t bytes)
{
    connection->unwritten_bytes += bytes + EARLY_MESSAGE_BYTES;
    if (connection->unwritten_bytes < EARLY_BYTES || connection->poll_events & UV_WRITABLE)
        return;
    connection->unwritten_bytes = 0;
    wire_write(&connection->wire);
}

static enum connection_publish_result publish_on_wire(struct connection *connection, const char *subject,
                                                      const char *reply, const struct message_header *headers,
                                                      size_t header_count, const void *payload, size_t payload_bytes)
{
    switch (wire_publish(&connection->wire, subject, reply, headers, header_count, payload, payload_bytes)) {
    case WIRE_DONE:
        break;
    case WIRE_TOO_LARGE:
        return LINK_TOO_LARGE;
    case WIRE_NO_MEMORY:
        return LINK_NO_MEMORY;
    }
    return LINK_PUBLISHED;
}

enum connection_publish_result connection_publish(struct connection *connection, const char *subject, const char *reply,
                                                  const struct message_header *headers, size_t header_count,
                                                  const void *payload, size_t payload_bytes)
{
    enum connection_publish_result result;

    if (connection->state != LINK_UP)
        return LINK_NOT_UP;
    if (wire_unwritten_bytes(&connection->wire) > CONGESTED_BYTES)
        return LINK_CONGESTED;
    result = publish_on_wire(connection, subject, reply, headers, header_count, payload, payload_bytes);
    if (result == LINK_PUBLISHED)
        write_early(connection, payload_bytes);
    return result;
}

void connection_flush(struct connection *connection)
{
    if (connection->state != LINK_UP)
        return;
    connection->unwritten_bytes = 0;
    if (!(connection->poll_events & UV_WRITABLE) && !wire_write(&connection->wire))
        lose_connection(connection, connection->wire.lost);
    else
        set_poll_events(connection);
}

/* --- The round-trip check -------------------------------------------------------------------------- */

/* A message to ourselves: its way is that of any answer, through the inbox's subscription. */
static void on_check(uv_timer_t *timer)
{
    struct connection *connection = timer->data;

    if (connection->is_deaf) { /* the next connection finds out whether the permissions have changed */
        lose_connection(connection, "the server lets our user not subscribe to its inbox");
        return;
    }
    if (connection->ping_sent_ns != 0 && ++connection->pings_missed >= 2) {
        lose_connection(connection, "the server does not answer");
        return;
    }
    if (connection->ping_sent_ns == 0)
        connection->ping_sent_ns = uv_hrtime();
    connection_publish(connection, connection->ping_subject, NULL, NULL, 0, "", 0);
}

/* --- Connecting ------------------------------------------------------------------------------------ */

/* On a worker thread: nothing of the link but the attempt's own members is touched. */
static void connect_on_thread(uv_work_t *work)
{
    struct connection *connection = work->data;

    connection->is_reached = libnats_connect(&connection->attempt);
}

static void connect_failed(struct connection *connection, const char *why)
{
    connection->failures++;
    /* The first failure of a row is news, and from then on one in a while. */
    if (connection->failures == 1 || strcmp(why, connection->status.last_error) != 0 || connection->failures % 30 == 0)
        log_warning("nats: cannot connect to %s%s: %s", connection->target.urls[0],
                    connection->target.url_count > 1 ? " and the others" : "", why);
    snprintf(connection->status.last_error, sizeof(connection->status.last_error), "%s", why);
    wait_and_connect(connection);
    connection->events.unreachable(connection->events.arg);
}

/* Once in the daemon's life, when a server gets credentials over a network without TLS. */
static void warn_unencrypted(struct connection *connection)
{
    const char *setting = credentials_in_clear_text(connection->conf, &connection->target);
    const struct libnats_connection *opened = &connection->attempt.connection;
    struct sockaddr_storage peer;
    struct sockaddr *address = (struct sockaddr *)&peer;

    if (setting == NULL || opened->tls != NULL || connection->has_warned ||
        getpeername(opened->socket, address, &(socklen_t){sizeof(peer)}) != 0 || !credentials_leave_machine(address))
        return;
    connection->has_warned = true;
    log_warning("nats: the connection to %s is not encrypted: %s and all data cross the network in clear text; use "
                "tls:// if the server has TLS",
                opened->url, setting);
}

static void close_opened(struct libnats_connection *opened)
{
    SSL_free(opened->tls);
    close(opened->socket);
}

/* Puts the new connection into the loop, and subscribes to the inbox. False with the reason. */
static bool take_over(struct connection *connection, const char **error)
{
    const struct wire_events events = {take_message, take_complaint, is_slice_over, connection};
    struct libnats_connection *opened = &connection->attempt.connection;
    char subject[sizeof(connection->inbox) + 2];

    *error = "out of memory";
    snprintf(subject, sizeof(subject), "%s>", connection->inbox);
    if (!wire_open(&connection->wire, opened->socket, opened->tls, opened->max_payload_bytes, &events)) {
        close_opened(opened);
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

static void come_up(struct connection *connection)
{
    const char *error;

    if (!take_over(connection, &error)) {
        drop_connection(connection);
        connect_failed(connection, error);
        return;
    }

    connection->state = LINK_UP;
    connection->failures = 0;
    connection->is_deaf = false;
    connection->pings_missed = 0;
    connection->ping_sent_ns = 0;
    if (connection->status.was_connected)
        connection->status.reconnects++;
    connection->status.connected = true;
    connection->status.was_connected = true;
    connection->status.last_error[0] = '\0';
    connection->status.max_payload_bytes = connection->attempt.connection.max_payload_bytes;
    snprintf(connection->status.url, sizeof(connection->status.url), "%s", connection->attempt.connection.url);
    log_info("nats: connected to %s%s", connection->status.url, connection->wire.tls != NULL ? " (encrypted)" : "");
    warn_unencrypted(connection);
    uv_timer_start(&connection->timer, on_check, 0, connection->conf->nats.ping_interval_ms);
    connection->events.up(connection->events.arg);
}

static void finish_stop(struct connection *connection);

static void attempt_failed(struct connection *connection)
{
    char slow[LIBNATS_ERROR_BYTES];

    snprintf(slow, sizeof(slow), "the server did not complete the connection within %g s (nats.connect_timeout)",
             (double)connection->conf->nats.connect_timeout_ms / 1000.0);
    connect_failed(connection,
                   connection->was_slow || connection->attempt.has_timed_out ? slow : connection->attempt.error);
}

static void on_connect_done(uv_work_t *work, int cancelled)
{
    struct connection *connection = work->data;

    (void)cancelled;
    if (connection->state == LINK_ABANDONED)
        return;
    uv_timer_stop(&connection->timer);
    bool is_unwanted = connection->state == LINK_ENDING || connection->target_changed;
    if (is_unwanted && connection->is_reached)
        close_opened(&connection->attempt.connection);
    if (connection->state == LINK_ENDING) {
        finish_stop(connection);
    } else if (connection->target_changed) {
        connection->target_changed = false;
        start_connecting(connection);
    } else if (connection->is_reached) {
        come_up(connection);
    } else {
        attempt_failed(connection);
    }
}

static void abandon(struct connection *connection)
{
    log_info("nats: ending in the middle of an attempt to connect");
    connection->state = LINK_ABANDONED;
    uv_timer_stop(&connection->timer);
    connection->stopped(connection->stopped_arg);
}

static void on_connect_check(uv_timer_t *timer)
{
    struct connection *connection = timer->data;
    uint64_t now_ms = uv_now(connection->loop);
    bool is_unwanted = connection->state == LINK_ENDING || connection->target_changed;
    uint64_t limit_ms = is_unwanted ? 0 : connection->conf->nats.connect_timeout_ms;

    if (libnats_end_slow_sockets(&connection->attempt, now_ms, limit_ms))
        connection->was_slow = true;
    if (connection->state == LINK_ENDING && now_ms - connection->end_began_ms >= STOP_MAX_MS)
        abandon(connection);
}

static void check_attempt(struct connection *connection, uint64_t first_ms, uint64_t interval_ms)
{
    uv_timer_start(&connection->timer, on_connect_check, first_ms, interval_ms);
}

static void start_connecting(struct connection *connection)
{
    uint64_t interval_ms = connection->conf->nats.connect_timeout_ms / CHECKS_PER_TIMEOUT + 1;

    if (!libnats_prepare(&connection->attempt, connection->conf, &connection->target)) {
        connect_failed(connection, connection->attempt.error);
        return;
    }
    connection->state = LINK_CONNECTING;
    connection->was_slow = false;
    connection->work.data = connection;
    check_attempt(connection, interval_ms, interval_ms);
    uv_queue_work(connection->loop, &connection->work, connect_on_thread, on_connect_done);
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
    /* "_INBOX." and a unique id */
    snprintf(connection->unique_id, sizeof(connection->unique_id), "%s", inbox + strlen("_INBOX."));
    snprintf(connection->inbox, sizeof(connection->inbox), "_INBOX.%s.", connection->unique_id);
    snprintf(connection->ping_subject, sizeof(connection->ping_subject), "%sping", connection->inbox);
    uv_timer_init(loop, &connection->timer);
    connection->timer.data = connection;
    connection->open_handles = 1;
    natsInbox_Destroy(inbox);
    return connection;
}

void connection_start(struct connection *connection, const struct connection_target *target)
{
    connection->target = *target;
    switch (connection->state) {
    case LINK_STOPPED:
        connection->status.lost_ms = uv_now(connection->loop);
        start_connecting(connection);
        break;
    case LINK_CONNECTING:
        connection->target_changed = true;
        check_attempt(connection, 0, ENDING_CHECK_MS);
        break;
    case LINK_UP:
        lose_connection(connection, "the server's address has changed");
        /* fallthrough */
    case LINK_WAITING:
        uv_timer_stop(&connection->timer);
        start_connecting(connection);
        break;
    case LINK_ENDING:
    case LINK_ABANDONED:
        break;
    }
}

static void on_handle_closed(uv_handle_t *handle)
{
    count_closed(handle->data);
}

static void finish_stop(struct connection *connection)
{
    connection->state = LINK_STOPPED;
    former_close_all(&connection->former);
    uv_close((uv_handle_t *)&connection->timer, on_handle_closed);
}

void connection_stop(struct connection *connection, void (*stopped)(void *arg), void *arg)
{
    connection->stopped = stopped;
    connection->stopped_arg = arg;
    switch (connection->state) {
    case LINK_CONNECTING:
        connection->state = LINK_ENDING;
        connection->end_began_ms = uv_now(connection->loop);
        check_attempt(connection, 0, ENDING_CHECK_MS);
        return;
    case LINK_UP:
        wire_write(&connection->wire);
        drop_connection(connection);
        break;
    case LINK_WAITING:
    case LINK_STOPPED:
    case LINK_ENDING:
    case LINK_ABANDONED:
        break;
    }
    finish_stop(connection);
}

bool connection_is_abandoned(const struct connection *connection)
{
    return connection->state == LINK_ABANDONED;
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
    if (connection->state == LINK_UP)
        uv_timer_start(&connection->timer, on_check, connection->conf->nats.ping_interval_ms,
                       connection->conf->nats.ping_interval_ms);
}

void connection_set_trouble(struct connection *connection, const char *text)
{
    snprintf(connection->status.trouble, sizeof(connection->status.trouble), "%s", text);
}

bool connection_is_up(const struct connection *connection)
{
    return connection->state == LINK_UP;
}

uint64_t connection_number(const struct connection *connection)
{
    return connection->number;
}

bool connection_earlier_are_closed(const struct connection *connection, uint64_t first)
{
    return former_are_closed(&connection->former, first);
}

const char *connection_server_id(const struct connection *connection)
{
    return connection->server_id;
}

const struct connection_status *connection_get_status(const struct connection *connection)
{
    return &connection->status;
}

const char *connection_inbox(const struct connection *connection)
{
    return connection->inbox;
}

const char *connection_unique_id(const struct connection *connection)
{
    return connection->unique_id;
}
