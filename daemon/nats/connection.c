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

enum link_state {
    LINK_STOPPED,    /* not wanted */
    LINK_CONNECTING, /* a worker thread is at it */
    LINK_UP,
    LINK_WAITING, /* until the backoff's timer */
    LINK_ENDING,  /* link_stop was called while a worker thread is at it */
    LINK_ABANDONED
};

struct link {
    uv_loop_t *loop;
    struct jobs *jobs;
    struct job reading; /* of the wire, when a slice was too short for what came */
    const struct conf *conf;
    struct link_events events;
    struct link_target target;
    enum link_state state;
    bool target_changed; /* while connecting to another one */
    unsigned failures;   /* attempts since the last connection */
    struct link_status status;
    char inbox[64];
    char unique_id[32];

    /* the worker thread's attempt to connect */
    uv_work_t work;
    struct libnats_attempt attempt;
    bool is_reached;
    bool was_slow;         /* a socket of it was ended because it took too long */
    uint64_t end_began_ms; /* when link_stop was called in the middle of it */

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

static void start_connecting(struct link *link);

/* --- Loss ------------------------------------------------------------------------------------------ */

static void count_closed(struct link *link)
{
    if (--link->open_handles == 0)
        link->stopped(link->stopped_arg);
}

static void on_former_closed(void *arg)
{
    count_closed(arg);
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct link *link = handle->data;

    free(handle);
    count_closed(link);
}

/* The socket is about to be closed. */
static void stop_polling(struct link *link)
{
    if (link->poll == NULL)
        return;
    wire_finish_writing(&link->wire);
    link->open_handles += former_keep(&link->former, link->wire.socket, link->number);
    uv_poll_stop(link->poll);
    uv_close((uv_handle_t *)link->poll, on_poll_closed);
    link->poll = NULL;
}

static void on_backoff_over(uv_timer_t *timer)
{
    start_connecting(timer->data);
}

static void wait_and_connect(struct link *link)
{
    uint64_t wait_ms = backoff_ms(link->failures, link->conf->nats.reconnect_min_ms, link->conf->nats.reconnect_max_ms);

    link->state = LINK_WAITING;
    uv_timer_start(&link->timer, on_backoff_over, wait_ms, 0);
}

static void drop_connection(struct link *link)
{
    stop_polling(link);
    uv_timer_stop(&link->timer);
    jobs_remove(link->jobs, &link->reading);
    wire_close(&link->wire);
    link->status.connected = false;
    link->status.lost_ms = uv_now(link->loop);
    link->status.url[0] = '\0';
}

/* The connection is gone, or must go: tells the user and connects again. */
static void lose_connection(struct link *link, const char *why)
{
    if (link->state != LINK_UP)
        return;
    log_warning("nats: connection to %s lost: %s", link->status.url, why);
    snprintf(link->status.last_error, sizeof(link->status.last_error), "connection lost: %s", why);
    drop_connection(link);
    link->failures = 1;
    wait_and_connect(link);
    link->events.down(link->events.arg);
}

/* --- Reading --------------------------------------------------------------------------------------- */

static void on_pong(struct link *link)
{
    if (link->ping_sent_ns != 0)
        link->status.rtt_us = (uv_hrtime() - link->ping_sent_ns) / 1000;
    link->ping_sent_ns = 0;
    link->pings_missed = 0;
}

static void take_message(void *arg, struct message *message)
{
    struct link *link = arg;

    if (strcmp(message->subject, link->ping_subject) == 0)
        on_pong(link);
    else
        link->events.message(link->events.arg, message);
}

/*
 * "Permissions Violation for Publish to "subject"", or "for Subscription to …". The subject is quoted as Go quotes
 * strings; ours have nothing in them that this would change. False: it is about something else.
 */
static bool parse_denial(const char *text, enum link_denied *what, char subject[SUBJECT_BYTES])
{
    static const char *const beginnings[] = {[LINK_DENIED_PUBLISH] = "Permissions Violation for Publish to \"",
                                             [LINK_DENIED_INBOX] = "Permissions Violation for Subscription to \""};

    for (unsigned i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++) {
        size_t length = strlen(beginnings[i]);
        if (strncasecmp(text, beginnings[i], length) != 0)
            continue;
        *what = (enum link_denied)i;
        snprintf(subject, SUBJECT_BYTES, "%.*s", (int)strcspn(text + length, "\""), text + length);
        return true;
    }
    return false;
}

static void take_complaint(void *arg, const char *text)
{
    struct link *link = arg;
    char subject[SUBJECT_BYTES];
    enum link_denied what;

    log_limited(&link->complaint_log, "complaints of the NATS server", CONF_LOG_WARNING, "nats: %s", text);
    if (link->state != LINK_UP || !parse_denial(text, &what, subject))
        return;
    if (what == LINK_DENIED_PUBLISH && strcmp(subject, link->ping_subject) == 0) {
        on_pong(link); /* that the server refuses it is an answer, too */
        return;
    }
    link->is_deaf = link->is_deaf || what == LINK_DENIED_INBOX;
    link->events.denied(link->events.arg, what, subject);
}

static bool is_slice_over(void *arg)
{
    return jobs_slice_is_over(((struct link *)arg)->jobs);
}

static bool run_reading(struct job *job);

/* Reads for a slice of the turn. The wire is gone when the link was stopped from within. */
static bool read_wire(struct link *link)
{
    bool is_well = wire_read(&link->wire);

    if (is_well && link->wire.is_open && link->wire.has_more)
        jobs_add(link->jobs, &link->reading, run_reading);
    return is_well;
}

static bool run_reading(struct job *job)
{
    struct link *link = (struct link *)((char *)job - offsetof(struct link, reading));

    if (link->wire.is_open && !read_wire(link))
        lose_connection(link, link->wire.lost);
    return false;
}

static void set_poll_events(struct link *link);

/* Over TLS each direction may have to wait for the other. */
static void move_wire(struct link *link, bool is_readable, bool is_writable)
{
    struct wire *wire = &link->wire;
    bool must_read = is_readable || (is_writable && wire->read_waits_to_write);
    bool is_well = !must_read || jobs_is_queued(&link->reading) || read_wire(link);

    bool may_write = is_writable || (is_readable && wire->write_waits_to_read);
    if (is_well && wire->is_open && may_write && wire_unwritten_bytes(wire) > 0)
        is_well = wire_write(wire);
    if (!is_well)
        lose_connection(link, wire->lost);
    else if (wire->is_open)
        set_poll_events(link);
}

/* libuv has one status for every error of a socket. What came before the error was read first. */
static void lose_broken_socket(struct link *link, int status)
{
    int error = 0;

    if (link->state == LINK_UP)
        getsockopt(link->wire.socket, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof(error)});
    lose_connection(link, error != 0 ? strerror(error) : uv_strerror(status));
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct link *link = handle->data;
    bool is_readable = status != 0 || events & (UV_READABLE | UV_DISCONNECT);

    link->status.reads += is_readable;
    jobs_begin_slice(link->jobs); /* even in a turn without time: what NATS answers ends calls */
    move_wire(link, is_readable, (events & UV_WRITABLE) != 0);
    if (status != 0) /* the poll has stopped */
        lose_broken_socket(link, status);
}

static void set_poll_events(struct link *link)
{
    int events = wire_wants_to_write(&link->wire) ? UV_READABLE | UV_WRITABLE : UV_READABLE;

    if (link->poll_events == events)
        return;
    link->poll_events = events;
    uv_poll_start(link->poll, events, on_poll);
}

/* --- Writing --------------------------------------------------------------------------------------- */

/*
 * In a turn that publishes much the server begins before the turn ends. What goes wrong here is found out at the turn's
 * end: whoever publishes does not expect to lose the link in the middle of it.
 */
static void write_early(struct link *link, size_t bytes)
{
    link->unwritten_bytes += bytes + EARLY_MESSAGE_BYTES;
    if (link->unwritten_bytes < EARLY_BYTES || link->poll_events & UV_WRITABLE)
        return;
    link->unwritten_bytes = 0;
    wire_write(&link->wire);
}

static enum link_publish_result publish_on_wire(struct link *link, const char *subject, const char *reply,
                                                const struct message_header *headers, size_t header_count,
                                                const void *payload, size_t payload_bytes)
{
    switch (wire_publish(&link->wire, subject, reply, headers, header_count, payload, payload_bytes)) {
    case WIRE_DONE:
        break;
    case WIRE_TOO_LARGE:
        return LINK_TOO_LARGE;
    case WIRE_NO_MEMORY:
        return LINK_NO_MEMORY;
    }
    return LINK_PUBLISHED;
}

enum link_publish_result link_publish(struct link *link, const char *subject, const char *reply,
                                      const struct message_header *headers, size_t header_count, const void *payload,
                                      size_t payload_bytes)
{
    enum link_publish_result result;

    if (link->state != LINK_UP)
        return LINK_NOT_UP;
    if (wire_unwritten_bytes(&link->wire) > CONGESTED_BYTES)
        return LINK_CONGESTED;
    result = publish_on_wire(link, subject, reply, headers, header_count, payload, payload_bytes);
    if (result == LINK_PUBLISHED)
        write_early(link, payload_bytes);
    return result;
}

void link_flush(struct link *link)
{
    if (link->state != LINK_UP)
        return;
    link->unwritten_bytes = 0;
    if (!(link->poll_events & UV_WRITABLE) && !wire_write(&link->wire))
        lose_connection(link, link->wire.lost);
    else
        set_poll_events(link);
}

/* --- The round-trip check -------------------------------------------------------------------------- */

/* A message to ourselves: its way is that of any answer, through the inbox's subscription. */
static void on_check(uv_timer_t *timer)
{
    struct link *link = timer->data;

    if (link->is_deaf) { /* the next connection finds out whether the permissions have changed */
        lose_connection(link, "the server lets our user not subscribe to its inbox");
        return;
    }
    if (link->ping_sent_ns != 0 && ++link->pings_missed >= 2) {
        lose_connection(link, "the server does not answer");
        return;
    }
    if (link->ping_sent_ns == 0)
        link->ping_sent_ns = uv_hrtime();
    link_publish(link, link->ping_subject, NULL, NULL, 0, "", 0);
}

/* --- Connecting ------------------------------------------------------------------------------------ */

/* On a worker thread: nothing of the link but the attempt's own members is touched. */
static void connect_on_thread(uv_work_t *work)
{
    struct link *link = work->data;

    link->is_reached = libnats_connect(&link->attempt);
}

static void connect_failed(struct link *link, const char *why)
{
    link->failures++;
    /* The first failure of a row is news, and from then on one in a while. */
    if (link->failures == 1 || strcmp(why, link->status.last_error) != 0 || link->failures % 30 == 0)
        log_warning("nats: cannot connect to %s%s: %s", link->target.urls[0],
                    link->target.url_count > 1 ? " and the others" : "", why);
    snprintf(link->status.last_error, sizeof(link->status.last_error), "%s", why);
    wait_and_connect(link);
    link->events.unreachable(link->events.arg);
}

/* Once in the daemon's life, when a server gets credentials over a network without TLS. */
static void warn_unencrypted(struct link *link)
{
    const char *setting = credentials_in_clear_text(link->conf, &link->target);
    const struct libnats_connection *connection = &link->attempt.connection;
    struct sockaddr_storage peer;
    struct sockaddr *address = (struct sockaddr *)&peer;

    if (setting == NULL || connection->tls != NULL || link->has_warned ||
        getpeername(connection->socket, address, &(socklen_t){sizeof(peer)}) != 0 ||
        !credentials_leave_machine(address))
        return;
    link->has_warned = true;
    log_warning("nats: the connection to %s is not encrypted: %s and all data cross the network in clear text; use "
                "tls:// if the server has TLS",
                connection->url, setting);
}

static void close_connection(struct libnats_connection *connection)
{
    SSL_free(connection->tls);
    close(connection->socket);
}

/* Puts the new connection into the loop, and subscribes to the inbox. False with the reason. */
static bool take_over(struct link *link, const char **error)
{
    const struct wire_events events = {take_message, take_complaint, is_slice_over, link};
    struct libnats_connection *connection = &link->attempt.connection;
    char subject[sizeof(link->inbox) + 2];

    *error = "out of memory";
    snprintf(subject, sizeof(subject), "%s>", link->inbox);
    if (!wire_open(&link->wire, connection->socket, connection->tls, connection->max_payload_bytes, &events)) {
        close_connection(connection);
        return false;
    }
    link->poll = wire_subscribe(&link->wire, subject, INBOX_SID) ? malloc(sizeof(*link->poll)) : NULL;
    if (link->poll == NULL)
        return false;
    int status = uv_poll_init_socket(link->loop, link->poll, connection->socket);
    if (status != 0) {
        *error = uv_strerror(status);
        free(link->poll);
        link->poll = NULL;
        return false;
    }
    link->open_handles++;
    link->number++;
    snprintf(link->server_id, sizeof(link->server_id), "%s", connection->server_id);
    link->poll->data = link;
    link->poll_events = 0;
    set_poll_events(link);
    return true;
}

static void come_up(struct link *link)
{
    const char *error;

    if (!take_over(link, &error)) {
        drop_connection(link);
        connect_failed(link, error);
        return;
    }

    link->state = LINK_UP;
    link->failures = 0;
    link->is_deaf = false;
    link->pings_missed = 0;
    link->ping_sent_ns = 0;
    if (link->status.was_connected)
        link->status.reconnects++;
    link->status.connected = true;
    link->status.was_connected = true;
    link->status.last_error[0] = '\0';
    link->status.max_payload_bytes = link->attempt.connection.max_payload_bytes;
    snprintf(link->status.url, sizeof(link->status.url), "%s", link->attempt.connection.url);
    log_info("nats: connected to %s%s", link->status.url, link->wire.tls != NULL ? " (encrypted)" : "");
    warn_unencrypted(link);
    uv_timer_start(&link->timer, on_check, 0, link->conf->nats.ping_interval_ms);
    link->events.up(link->events.arg);
}

static void finish_stop(struct link *link);

static void attempt_failed(struct link *link)
{
    char slow[LIBNATS_ERROR_BYTES];

    snprintf(slow, sizeof(slow), "the server did not complete the connection within %g s (nats.connect_timeout)",
             (double)link->conf->nats.connect_timeout_ms / 1000.0);
    connect_failed(link, link->was_slow || link->attempt.has_timed_out ? slow : link->attempt.error);
}

static void on_connect_done(uv_work_t *work, int cancelled)
{
    struct link *link = work->data;

    (void)cancelled;
    if (link->state == LINK_ABANDONED)
        return;
    uv_timer_stop(&link->timer);
    bool is_unwanted = link->state == LINK_ENDING || link->target_changed;
    if (is_unwanted && link->is_reached)
        close_connection(&link->attempt.connection);
    if (link->state == LINK_ENDING) {
        finish_stop(link);
    } else if (link->target_changed) {
        link->target_changed = false;
        start_connecting(link);
    } else if (link->is_reached) {
        come_up(link);
    } else {
        attempt_failed(link);
    }
}

static void abandon(struct link *link)
{
    log_info("nats: ending in the middle of an attempt to connect");
    link->state = LINK_ABANDONED;
    uv_timer_stop(&link->timer);
    link->stopped(link->stopped_arg);
}

static void on_connect_check(uv_timer_t *timer)
{
    struct link *link = timer->data;
    uint64_t now_ms = uv_now(link->loop);
    bool is_unwanted = link->state == LINK_ENDING || link->target_changed;
    uint64_t limit_ms = is_unwanted ? 0 : link->conf->nats.connect_timeout_ms;

    if (libnats_end_slow_sockets(&link->attempt, now_ms, limit_ms))
        link->was_slow = true;
    if (link->state == LINK_ENDING && now_ms - link->end_began_ms >= STOP_MAX_MS)
        abandon(link);
}

static void check_attempt(struct link *link, uint64_t first_ms, uint64_t interval_ms)
{
    uv_timer_start(&link->timer, on_connect_check, first_ms, interval_ms);
}

static void start_connecting(struct link *link)
{
    uint64_t interval_ms = link->conf->nats.connect_timeout_ms / CHECKS_PER_TIMEOUT + 1;

    if (!libnats_prepare(&link->attempt, link->conf, &link->target)) {
        connect_failed(link, link->attempt.error);
        return;
    }
    link->state = LINK_CONNECTING;
    link->was_slow = false;
    link->work.data = link;
    check_attempt(link, interval_ms, interval_ms);
    uv_queue_work(link->loop, &link->work, connect_on_thread, on_connect_done);
}

/* --- Life ------------------------------------------------------------------------------------------ */

struct link *link_new(uv_loop_t *loop, struct jobs *jobs, const struct conf *conf, const struct link_events *events)
{
    struct link *link = calloc(1, sizeof(*link));
    natsInbox *inbox = NULL;

    if (link == NULL)
        return NULL;
    if (!tls_init() || natsInbox_Create(&inbox) != NATS_OK) {
        free(link);
        return NULL;
    }

    link->loop = loop;
    link->jobs = jobs;
    link->status.lost_ms = uv_now(loop);
    link->conf = conf;
    link->events = *events;
    link->former = (struct former){.loop = loop, .closed = on_former_closed, .arg = link};
    /* "_INBOX." and a unique id */
    snprintf(link->unique_id, sizeof(link->unique_id), "%s", inbox + strlen("_INBOX."));
    snprintf(link->inbox, sizeof(link->inbox), "_INBOX.%s.", link->unique_id);
    snprintf(link->ping_subject, sizeof(link->ping_subject), "%sping", link->inbox);
    uv_timer_init(loop, &link->timer);
    link->timer.data = link;
    link->open_handles = 1;
    natsInbox_Destroy(inbox);
    return link;
}

void link_start(struct link *link, const struct link_target *target)
{
    link->target = *target;
    switch (link->state) {
    case LINK_STOPPED:
        link->status.lost_ms = uv_now(link->loop);
        start_connecting(link);
        break;
    case LINK_CONNECTING:
        link->target_changed = true;
        check_attempt(link, 0, ENDING_CHECK_MS);
        break;
    case LINK_UP:
        lose_connection(link, "the server's address has changed");
        /* fallthrough */
    case LINK_WAITING:
        uv_timer_stop(&link->timer);
        start_connecting(link);
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

static void finish_stop(struct link *link)
{
    link->state = LINK_STOPPED;
    former_close_all(&link->former);
    uv_close((uv_handle_t *)&link->timer, on_handle_closed);
}

void link_stop(struct link *link, void (*stopped)(void *arg), void *arg)
{
    link->stopped = stopped;
    link->stopped_arg = arg;
    switch (link->state) {
    case LINK_CONNECTING:
        link->state = LINK_ENDING;
        link->end_began_ms = uv_now(link->loop);
        check_attempt(link, 0, ENDING_CHECK_MS);
        return;
    case LINK_UP:
        wire_write(&link->wire);
        drop_connection(link);
        break;
    case LINK_WAITING:
    case LINK_STOPPED:
    case LINK_ENDING:
    case LINK_ABANDONED:
        break;
    }
    finish_stop(link);
}

bool link_is_abandoned(const struct link *link)
{
    return link->state == LINK_ABANDONED;
}

void link_free(struct link *link)
{
    if (link == NULL)
        return;
    assert(link->open_handles == 0);
    free(link);
}

void link_set_ping_interval(struct link *link)
{
    if (link->state == LINK_UP)
        uv_timer_start(&link->timer, on_check, link->conf->nats.ping_interval_ms, link->conf->nats.ping_interval_ms);
}

void link_set_trouble(struct link *link, const char *text)
{
    snprintf(link->status.trouble, sizeof(link->status.trouble), "%s", text);
}

bool link_is_up(const struct link *link)
{
    return link->state == LINK_UP;
}

uint64_t link_number(const struct link *link)
{
    return link->number;
}

bool link_earlier_are_closed(const struct link *link, uint64_t first)
{
    return former_are_closed(&link->former, first);
}

const char *link_server_id(const struct link *link)
{
    return link->server_id;
}

const struct link_status *link_get_status(const struct link *link)
{
    return &link->status;
}

const char *link_inbox(const struct link *link)
{
    return link->inbox;
}

const char *link_unique_id(const struct link *link)
{
    return link->unique_id;
}
