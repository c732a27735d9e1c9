#include "daemon/nats/link.h"

#include "daemon/backoff.h"
#include "daemon/log.h"
#include "daemon/nats/certificate.h"
#include "daemon/nats/former.h"
#include "daemon/nats/library.h"
#include "daemon/nats/wire.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Publishing stops while the server has this much to read: what waits stays in the requests, which have limits. */
#define CONGESTED_BYTES (32 * 1024 * 1024)

/* So much published is written before the turn ends; a message counts with what surrounds its payload. */
#define EARLY_BYTES         (32u * 1024u)
#define EARLY_MESSAGE_BYTES 128u

/* The library's attempt to connect cannot be cancelled, and may take as long as nats.connect_timeout for each server.
 */
#define STOP_MAX_MS 2000u

/* The server's complaints that wait for the loop; and a subject, with what the API's prefix and a bucket add. */
#define COMPLAINTS_MAX 16u
#define SUBJECT_BYTES  2048u

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

    /* the attempt of the worker thread */
    uv_work_t work;
    bool is_reached;
    char connect_error[LIBRARY_ERROR_BYTES];

    /* the connection */
    struct library library;
    struct wire wire; /* of a plain connection; one with TLS is the library's to read and write */
    uv_poll_t *poll;
    int poll_events;
    uint64_t number; /* of the connection, or of the last one; counts from 1 */
    char server_id[LIBRARY_SERVER_ID_BYTES];
    struct former former;   /* those before it */
    size_t unwritten_bytes; /* published since the last write, about */

    /* the round-trip check */
    uv_timer_t timer; /* of the check while up, of the backoff while waiting */
    char ping_subject[72];
    uint64_t ping_sent_ns; /* 0: none is out */
    unsigned pings_missed;

    /* what the library says from its own threads */
    uv_async_t wake;
    uv_mutex_t complaint_lock;
    char complaints[COMPLAINTS_MAX][LIBRARY_ERROR_BYTES];
    unsigned complaint_count;

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

/* The library is about to close the socket. */
static void stop_polling(void *arg)
{
    struct link *link = arg;

    if (link->poll == NULL)
        return;
    link->open_handles += former_keep(&link->former, link->library.socket, link->number);
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

/*
 * The poll stops first: the library may close the socket later, and what comes until then would be read as what an
 * encrypted connection brings, from the socket of the next attempt (which so was left with a SO_RCVLOWAT of 20 KB).
 */
static void drop_connection(struct link *link)
{
    stop_polling(link);
    uv_timer_stop(&link->timer);
    jobs_remove(link->jobs, &link->reading);
    wire_close(&link->wire);
    library_close(&link->library);
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

/* Whether the library has given the connection up. */
static void check_connection(struct link *link)
{
    const char *why = link->state == LINK_UP ? library_lost(&link->library) : NULL;

    if (why != NULL)
        lose_connection(link, why);
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

static void take_no_responders(void *arg)
{
    struct link *link = arg;

    link->events.no_responders(link->events.arg);
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

static void move_wire(struct link *link, bool is_readable)
{
    bool is_well = !is_readable || jobs_is_queued(&link->reading) || read_wire(link);

    if (is_well && link->wire.is_open && wire_unwritten_bytes(&link->wire) > 0 && link->poll_events & UV_WRITABLE)
        is_well = wire_write(&link->wire);
    if (!is_well)
        lose_connection(link, link->wire.lost);
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct link *link = handle->data;
    bool is_readable = status != 0 || events & (UV_READABLE | UV_DISCONNECT);

    link->status.reads += is_readable;
    jobs_begin_slice(link->jobs); /* even in a turn without time: what NATS answers ends calls */

    if (link->wire.is_open) {
        move_wire(link, is_readable);
        if (status != 0) /* the poll has stopped */
            lose_connection(link, uv_strerror(status));
        return;
    }
    if (link->state != LINK_UP || !link->library.is_tls)
        return;
    if (is_readable)
        library_read(&link->library, status != 0);
    if (events & UV_WRITABLE && link->state == LINK_UP)
        library_write(&link->library);
    check_connection(link);
}

static void set_poll_events(struct link *link, int events)
{
    if (link->poll == NULL || link->poll_events == events)
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
    if (link->wire.is_open)
        wire_write(&link->wire);
    else
        library_write(&link->library);
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

static size_t unwritten_bytes(const struct link *link)
{
    return link->wire.is_open ? wire_unwritten_bytes(&link->wire) : library_unwritten_bytes(&link->library);
}

enum link_publish_result link_publish(struct link *link, const char *subject, const char *reply,
                                      const struct message_header *headers, size_t header_count, const void *payload,
                                      size_t payload_bytes)
{
    enum link_publish_result result;

    if (link->state != LINK_UP)
        return LINK_NOT_UP;
    if (unwritten_bytes(link) > CONGESTED_BYTES)
        return LINK_CONGESTED;
    if (link->wire.is_open)
        result = publish_on_wire(link, subject, reply, headers, header_count, payload, payload_bytes);
    else
        result = library_publish(&link->library, subject, reply, headers, header_count, payload, payload_bytes);
    if (result == LINK_PUBLISHED)
        write_early(link, payload_bytes);
    return result;
}

void link_flush(struct link *link)
{
    if (link->state != LINK_UP)
        return;
    link->unwritten_bytes = 0;
    if (link->wire.is_open) {
        if (!(link->poll_events & UV_WRITABLE) && !wire_write(&link->wire)) {
            lose_connection(link, link->wire.lost);
            return;
        }
        set_poll_events(link, wire_unwritten_bytes(&link->wire) > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
        return;
    }
    if (!(link->poll_events & UV_WRITABLE))
        library_write(&link->library);
    /* What the socket did not take waits for it. */
    set_poll_events(link, link->library.wants_write ? UV_READABLE | UV_WRITABLE : UV_READABLE);
    check_connection(link);
}

/* --- The round-trip check -------------------------------------------------------------------------- */

/*
 * A message to ourselves, instead of the library's ping: that one runs on a timer
 * thread of the library and would close the connection from there.
 */
static void on_check(uv_timer_t *timer)
{
    struct link *link = timer->data;

    library_tidy(&link->library);
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

/* On a thread of the library's. */
static void note_complaint(void *arg, const char *text)
{
    struct link *link = arg;

    uv_mutex_lock(&link->complaint_lock);
    if (link->complaint_count < COMPLAINTS_MAX) /* else the next attempt hears it again */
        snprintf(link->complaints[link->complaint_count++], LIBRARY_ERROR_BYTES, "%s", text);
    uv_mutex_unlock(&link->complaint_lock);
    uv_async_send(&link->wake);
}

static void on_wake(uv_async_t *async)
{
    struct link *link = async->data;
    char complaints[COMPLAINTS_MAX][LIBRARY_ERROR_BYTES];

    uv_mutex_lock(&link->complaint_lock);
    unsigned count = link->complaint_count;
    memcpy(complaints, link->complaints, count * sizeof(complaints[0]));
    link->complaint_count = 0;
    uv_mutex_unlock(&link->complaint_lock);
    for (unsigned i = 0; i < count; i++)
        take_complaint(link, complaints[i]);
    check_connection(link);
}

/*
 * A plain connection becomes the wire's. The library turns to TLS by itself where the server insists on it, and does
 * not tell: so the server is asked, before anything is sent that is nobody's business. False: it does not understand.
 */
static bool open_wire(struct link *link)
{
    if (!wire_open(&link->wire, link->library.socket, library_max_payload(&link->library)))
        return false;
    if (wire_prove(&link->wire, link->conf->nats.connect_timeout_ms))
        return true;
    wire_close(&link->wire);
    return false;
}

/* On a worker thread: nothing of the link but the attempt's own members is touched. */
static void connect_on_thread(uv_work_t *work)
{
    struct link *link = work->data;

    link->is_reached = library_connect(&link->library, link->connect_error);
    if (link->is_reached && !link->library.is_tls && !open_wire(link))
        link->is_reached = library_connect_tls(&link->library, link->connect_error);
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

/* The connection is made: polls it, and listens on the inbox. False with the reason. */
static bool take_over(struct link *link, char error[LIBRARY_ERROR_BYTES])
{
    const struct wire_events events = {take_message, take_complaint, is_slice_over, link};
    char subject[sizeof(link->inbox) + 2];

    snprintf(subject, sizeof(subject), "%s>", link->inbox);
    snprintf(error, LIBRARY_ERROR_BYTES, "out of memory");
    if (link->wire.is_open) {
        wire_set_events(&link->wire, &events);
        if (!wire_subscribe(&link->wire, subject, INBOX_SID))
            return false;
    } else if (!library_subscribe(&link->library, subject, error)) {
        return false;
    }

    link->poll = malloc(sizeof(*link->poll));
    if (link->poll == NULL)
        return false;
    int status = uv_poll_init_socket(link->loop, link->poll, link->library.socket);
    if (status != 0) {
        snprintf(error, LIBRARY_ERROR_BYTES, "%s", uv_strerror(status));
        free(link->poll);
        link->poll = NULL;
        return false;
    }
    link->open_handles++;
    link->number++;
    library_write_server_id(&link->library, link->server_id);
    link->poll->data = link;
    link->poll_events = 0;
    set_poll_events(link, UV_READABLE);
    return true;
}

static void come_up(struct link *link)
{
    if (!take_over(link, link->connect_error)) {
        drop_connection(link);
        connect_failed(link, link->connect_error);
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
    link->status.max_payload_bytes = library_max_payload(&link->library);
    library_write_url(&link->library, link->status.url, sizeof(link->status.url));
    log_info("nats: connected to %s", link->status.url);
    uv_timer_start(&link->timer, on_check, 0, link->conf->nats.ping_interval_ms);
    link->events.up(link->events.arg);
}

static void finish_stop(struct link *link);

static void on_connect_done(uv_work_t *work, int cancelled)
{
    struct link *link = work->data;

    (void)cancelled;
    if (link->state == LINK_ABANDONED)
        return;
    library_settle(&link->library);
    if (link->state == LINK_ENDING || link->target_changed) {
        wire_close(&link->wire);
        library_close(&link->library);
        if (link->state == LINK_ENDING) {
            finish_stop(link);
        } else {
            link->target_changed = false;
            start_connecting(link);
        }
        return;
    }
    if (link->is_reached)
        come_up(link);
    else
        connect_failed(link, link->connect_error);
}

static void start_connecting(struct link *link)
{
    if (!library_prepare(&link->library, link->conf, &link->target, link->connect_error)) {
        connect_failed(link, link->connect_error);
        return;
    }
    link->state = LINK_CONNECTING;
    link->work.data = link;
    uv_queue_work(link->loop, &link->work, connect_on_thread, on_connect_done);
}

/* --- Life ------------------------------------------------------------------------------------------ */

struct link *link_new(uv_loop_t *loop, struct jobs *jobs, const struct conf *conf, const struct link_events *events)
{
    struct link *link = calloc(1, sizeof(*link));
    natsInbox *inbox = NULL;

    if (link == NULL)
        return NULL;
    if (!certificate_ignore_common_names() || natsInbox_Create(&inbox) != NATS_OK)
        goto free_link;
    if (uv_mutex_init(&link->complaint_lock) != 0)
        goto free_inbox;

    link->loop = loop;
    link->jobs = jobs;
    link->status.lost_ms = uv_now(loop);
    link->conf = conf;
    link->events = *events;
    link->former = (struct former){.loop = loop, .closed = on_former_closed, .arg = link};
    link->library.events =
        (struct library_events){take_message, take_no_responders, stop_polling, note_complaint, link};
    /* "_INBOX." and a unique id */
    snprintf(link->unique_id, sizeof(link->unique_id), "%s", inbox + strlen("_INBOX."));
    snprintf(link->inbox, sizeof(link->inbox), "_INBOX.%s.", link->unique_id);
    snprintf(link->ping_subject, sizeof(link->ping_subject), "%sping", link->inbox);
    uv_timer_init(loop, &link->timer);
    uv_async_init(loop, &link->wake, on_wake);
    link->timer.data = link;
    link->wake.data = link;
    link->open_handles = 2;
    natsInbox_Destroy(inbox);
    return link;

free_inbox:
    natsInbox_Destroy(inbox);
free_link:
    free(link);
    return NULL;
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
    uv_close((uv_handle_t *)&link->wake, on_handle_closed);
}

static void on_stop_late(uv_timer_t *timer)
{
    struct link *link = timer->data;

    log_info("nats: ending in the middle of an attempt to connect");
    link->state = LINK_ABANDONED;
    link->stopped(link->stopped_arg);
}

void link_stop(struct link *link, void (*stopped)(void *arg), void *arg)
{
    link->stopped = stopped;
    link->stopped_arg = arg;
    switch (link->state) {
    case LINK_CONNECTING:
        link->state = LINK_ENDING;
        uv_timer_start(&link->timer, on_stop_late, STOP_MAX_MS, 0);
        return;
    case LINK_UP:
        if (link->wire.is_open)
            wire_write(&link->wire);
        else
            library_write(&link->library);
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
    uv_mutex_destroy(&link->complaint_lock);
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
