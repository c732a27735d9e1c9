#include "daemon/nats/link.h"

#include "daemon/backoff.h"
#include "daemon/log.h"
#include "daemon/nats/identity.h"
#include "daemon/nats/wire.h"

#include <assert.h>
#include <errno.h>
#include <nats/nats.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/*
 * The library hands each destroyed message, received or published, to a thread of its own to be
 * freed, and wakes it with a futex when it sleeps. Messages are collected and let
 * go of in one stroke, so that one wake-up serves many.
 */
#define TRASH_MESSAGES 2048u
#define TRASH_BYTES    (4u * 1024u * 1024u)

/* Publishing stops while the server has this much to read: what waits stays in the requests, which have limits. */
#define CONGESTED_BYTES (32 * 1024 * 1024)

/* The library's buffers: on a plain connection the wire has its own, and these serve only to connect. */
#define TLS_BUFFER_BYTES     (128 * 1024)
#define CONNECT_BUFFER_BYTES (4 * 1024)

/* So much published is written before the turn ends; a message counts with what surrounds its payload. */
#define EARLY_BYTES         (32u * 1024u)
#define EARLY_MESSAGE_BYTES 128u

/*
 * The receive buffer of a TLS connection. A record has up to 16 KB, but the kernel counts whole packet buffers, and
 * a window that closes in the middle of a record which we wait for would stay closed
 * (measured with the 128 KB that it begins with).
 */
#define TLS_RECEIVE_BYTES (1024 * 1024)
/* The wire's one subscription. */
#define INBOX_SID 1u

/* Records that are read in one go. */
#define TLS_RECORDS 16u

enum link_state {
    LINK_STOPPED,    /* not wanted */
    LINK_CONNECTING, /* a worker thread is at it */
    LINK_UP,
    LINK_WAITING, /* until the backoff's timer */
    LINK_ENDING   /* link_stop was called while a worker thread is at it */
};

struct link {
    uv_loop_t *loop;
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
    natsOptions *options;
    natsConnection *connecting;
    natsConnection *attached;
    natsStatus connect_result;
    char connect_error[256];

    /* the connection */
    natsConnection *connection;
    natsSubscription *subscription;
    uv_os_sock_t socket; /* as the library attached it */
    uv_poll_t *poll;
    int poll_events;
    struct wire wire;       /* of a plain connection; one with TLS is the library's to read and write */
    bool write_wanted;      /* the library has something in its buffer */
    size_t unwritten_bytes; /* published since the last write, about */
    bool is_tls;            /* also found out by the attempt: a server may insist on it */
    int low_water;          /* SO_RCVLOWAT of the socket */

    /* the round-trip check */
    uv_timer_t timer; /* of the check while up, of the backoff while waiting */
    char ping_subject[72];
    uint64_t ping_sent_ns; /* 0: none is out */
    unsigned pings_missed;

    /* what the library says from its own threads */
    uv_async_t wake;
    uv_mutex_t complaint_lock;
    char complaint[256];

    natsMsg *trash[TRASH_MESSAGES];
    size_t trash_count;
    size_t trash_bytes;

    unsigned open_handles;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static void start_connecting(struct link *link);

/* --- The library's event-loop adapter ------------------------------------------------------------ */

/*
 * These replace the adapter that comes with the library. That one can only attach
 * on the loop's thread, so that the first connect would block the loop; and it
 * waits for the loop to say 'writable' before each write, which costs three system
 * calls per turn that link_flush saves.
 */

static natsStatus adapter_attach(void **user_data, void *loop, natsConnection *connection, natsSock socket)
{
    struct link *link = loop;

    /* Still on the worker thread; polling starts on the loop when it is done. */
    link->attached = connection;
    link->socket = socket;
    *user_data = link;
    return NATS_OK;
}

static void count_closed(struct link *link)
{
    if (--link->open_handles == 0)
        link->stopped(link->stopped_arg);
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct link *link = handle->data;

    free(handle);
    count_closed(link);
}

static natsStatus adapter_read(void *user_data, bool add)
{
    struct link *link = user_data;

    if (add)
        return NATS_OK;
    if (link->poll != NULL) {
        uv_poll_stop(link->poll);
        uv_close((uv_handle_t *)link->poll, on_poll_closed);
        link->poll = NULL;
    }
#if NATS_VERSION_NUMBER >= 0x030A00
    /* From 3.10 on the library leaves closing the socket to the adapter. */
    natsConnection_ProcessCloseEvent(&link->socket);
#endif
    return NATS_OK;
}

static natsStatus adapter_write(void *user_data, bool add)
{
    struct link *link = user_data;

    link->write_wanted = add;
    return NATS_OK;
}

static natsStatus adapter_detach(void *user_data)
{
    struct link *link = user_data;

#if NATS_VERSION_NUMBER >= 0x030B00
    natsConnection_ProcessDetachedEvent(link->attached);
#endif
    link->attached = NULL;
    return NATS_OK;
}

/* --- Loss ------------------------------------------------------------------------------------------ */

static void empty_trash(struct link *link)
{
    for (size_t i = 0; i < link->trash_count; i++)
        natsMsg_Destroy(link->trash[i]);
    link->trash_count = 0;
    link->trash_bytes = 0;
}

static void throw_away(struct link *link, natsMsg *message)
{
    link->trash[link->trash_count++] = message;
    link->trash_bytes += (size_t)natsMsg_GetDataLength(message);
    if (link->trash_count == TRASH_MESSAGES || link->trash_bytes > TRASH_BYTES)
        empty_trash(link);
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

/* Lets go of the library's connection, which is closed or about to be. */
static void drop_connection(struct link *link)
{
    uv_timer_stop(&link->timer);
    empty_trash(link);
    wire_close(&link->wire);
    natsSubscription_Destroy(link->subscription);
    link->subscription = NULL;
    if (!natsConnection_IsClosed(link->connection)) {
        /* The library flushes on close and would block; a socket that is shut down answers at once. */
        shutdown(link->socket, SHUT_RDWR);
        natsConnection_ProcessReadEvent(link->connection);
    }
    natsConnection_Destroy(link->connection);
    link->connection = NULL;
    link->write_wanted = false;
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

static void check_connection(struct link *link)
{
    const char *reason = NULL;

    if (link->connection == NULL || !natsConnection_IsClosed(link->connection))
        return;
    natsConnection_GetLastError(link->connection, &reason);
    lose_connection(link, reason != NULL && reason[0] != '\0' ? reason : "closed by the server");
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

static void hand_over(struct link *link, natsMsg *native)
{
    struct message message = {
        .subject = natsMsg_GetSubject(native),
        .reply = natsMsg_GetReply(native),
        .payload = natsMsg_GetData(native),
        .payload_bytes = (size_t)natsMsg_GetDataLength(native),
        .native = native,
    };

    take_message(link, &message);
    throw_away(link, native);
}

static void take_complaint(void *arg, const char *text)
{
    (void)arg;
    log_warning("nats: %s", text);
}

/* Takes everything out of the inbox that the last read brought. */
static void drain_inbox(struct link *link)
{
    uint64_t queued = 0;

    /* Asking first is cheaper than an empty NextMsg, which formats an error text. */
    while (link->subscription != NULL && natsSubscription_QueuedMsgs(link->subscription, &queued) == NATS_OK) {
        if (queued == 0)
            return;
        while (queued-- > 0 && link->subscription != NULL) {
            natsMsg *native = NULL;
            natsStatus status = natsSubscription_NextMsg(&native, link->subscription, 0);
            if (status == NATS_OK)
                hand_over(link, native);
            else if (status == NATS_NO_RESPONDERS)
                link->events.no_responders(link->events.arg);
            else
                return;
        }
    }
}

/*
 * Over TLS the library's read blocks until the record that has begun is whole.
 * Lets it read only when that is so; else asks the kernel to wake us when it is. The kernel
 * must have room for a whole record beside what it holds of the last ones (see TLS_RECEIVE_BYTES).
 */
static bool tls_record_is_there(struct link *link)
{
    unsigned char header[5]; /* RFC 8446, 5.1: type, version, length */
    int available = 0, low_water = 1;
    ssize_t peeked = recv(link->socket, header, sizeof(header), MSG_PEEK | MSG_DONTWAIT);

    if (peeked < 0 && errno == EAGAIN)
        return false;
    if (peeked <= 0)
        return true; /* closed or failed: the library's to find out */
    if (ioctl(link->socket, FIONREAD, &available) != 0)
        return true;
    int wanted = peeked < 5 ? 5 : 5 + (header[3] << 8 | header[4]);
    if (available < wanted)
        low_water = wanted;
    if (low_water != link->low_water)
        setsockopt(link->socket, SOL_SOCKET, SO_RCVLOWAT, &low_water, sizeof(low_water));
    link->low_water = low_water;
    return available >= wanted;
}

static void read_some(struct link *link, int poll_status)
{
    if (!link->is_tls || poll_status != 0) {
        natsConnection_ProcessReadEvent(link->connection);
        return;
    }
    for (unsigned i = 0; i < TLS_RECORDS && !natsConnection_IsClosed(link->connection); i++) {
        if (!tls_record_is_there(link))
            return;
        natsConnection_ProcessReadEvent(link->connection);
    }
}

/* The wire is gone when the link was stopped from within. */
static void move_wire(struct link *link, bool is_readable)
{
    bool is_well = !is_readable || wire_read(&link->wire);

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

    if (link->wire.is_open) {
        move_wire(link, is_readable);
        if (status != 0) /* the poll has stopped */
            lose_connection(link, uv_strerror(status));
        return;
    }
    if (is_readable) {
        read_some(link, status);
        drain_inbox(link);
    }
    if (events & UV_WRITABLE && link->connection != NULL)
        natsConnection_ProcessWriteEvent(link->connection);
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
    else if (link->write_wanted)
        natsConnection_ProcessWriteEvent(link->connection);
}

static enum link_publish_result publish_on_wire(struct link *link, const char *subject, const char *reply,
                                                const struct message_header *headers, size_t header_count,
                                                const void *payload, size_t payload_bytes)
{
    if (wire_unwritten_bytes(&link->wire) > CONGESTED_BYTES)
        return LINK_CONGESTED;
    switch (wire_publish(&link->wire, subject, reply, headers, header_count, payload, payload_bytes)) {
    case WIRE_DONE:
        break;
    case WIRE_TOO_LARGE:
        return LINK_TOO_LARGE;
    case WIRE_NO_MEMORY:
        return LINK_NO_MEMORY;
    }
    write_early(link, payload_bytes);
    return LINK_PUBLISHED;
}

enum link_publish_result link_publish(struct link *link, const char *subject, const char *reply,
                                      const struct message_header *headers, size_t header_count, const void *payload,
                                      size_t payload_bytes)
{
    natsStatus status;

    if (link->state != LINK_UP)
        return LINK_NOT_UP;
    if (link->wire.is_open)
        return publish_on_wire(link, subject, reply, headers, header_count, payload, payload_bytes);
    if (natsConnection_Buffered(link->connection) > CONGESTED_BYTES)
        return LINK_CONGESTED;

    if (header_count == 0) {
        status = reply != NULL
                     ? natsConnection_PublishRequest(link->connection, subject, reply, payload, (int)payload_bytes)
                     : natsConnection_Publish(link->connection, subject, payload, (int)payload_bytes);
    } else {
        natsMsg *message = NULL;
        status = natsMsg_Create(&message, subject, reply, payload, (int)payload_bytes);
        for (size_t i = 0; status == NATS_OK && i < header_count; i++)
            status = natsMsgHeader_Set(message, headers[i].name, headers[i].value);
        if (status == NATS_OK)
            status = natsConnection_PublishMsg(link->connection, message);
        if (message != NULL)
            throw_away(link, message);
    }
    if (status == NATS_OK) {
        write_early(link, payload_bytes);
        return LINK_PUBLISHED;
    }
    if (status == NATS_MAX_PAYLOAD)
        return LINK_TOO_LARGE;
    return status == NATS_NO_MEMORY ? LINK_NO_MEMORY : LINK_NOT_UP;
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
    if (link->write_wanted && !(link->poll_events & UV_WRITABLE))
        natsConnection_ProcessWriteEvent(link->connection);
    /* What the socket did not take waits for it. */
    set_poll_events(link, link->write_wanted ? UV_READABLE | UV_WRITABLE : UV_READABLE);
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

    if (link->trash_count > 0)
        empty_trash(link);
    if (link->ping_sent_ns != 0 && ++link->pings_missed >= 2) {
        lose_connection(link, "the server does not answer");
        return;
    }
    if (link->ping_sent_ns == 0)
        link->ping_sent_ns = uv_hrtime();
    link_publish(link, link->ping_subject, NULL, NULL, 0, "", 0);
}

/* --- Connecting ------------------------------------------------------------------------------------ */

static void on_library_error(natsConnection *connection, natsSubscription *subscription, natsStatus status,
                             void *closure)
{
    struct link *link = closure;
    const char *text = NULL;

    (void)subscription;
    if (natsConnection_GetLastError(connection, &text) == NATS_OK || text == NULL || text[0] == '\0')
        text = natsStatus_GetText(status);
    uv_mutex_lock(&link->complaint_lock);
    snprintf(link->complaint, sizeof(link->complaint), "%s", text);
    uv_mutex_unlock(&link->complaint_lock);
    uv_async_send(&link->wake);
}

static void on_wake(uv_async_t *async)
{
    struct link *link = async->data;
    char complaint[sizeof(link->complaint)];

    uv_mutex_lock(&link->complaint_lock);
    memcpy(complaint, link->complaint, sizeof(complaint));
    link->complaint[0] = '\0';
    uv_mutex_unlock(&link->complaint_lock);
    if (complaint[0] != '\0')
        log_warning("nats: %s", complaint);
    check_connection(link);
}

static natsStatus make_options(struct link *link, natsOptions **made)
{
    natsOptions *options = NULL;
    natsStatus status = natsOptions_Create(&options);

    if (status == NATS_OK)
        status = natsOptions_SetServers(options, (const char **)link->target.urls, (int)link->target.url_count);
    if (status == NATS_OK)
        status = natsOptions_SetName(options, "kvstored");
    if (status == NATS_OK)
        status = natsOptions_SetTimeout(options, link->conf->nats.connect_timeout_ms);
    if (status == NATS_OK)
        status = natsOptions_SetAllowReconnect(options, false);
    if (status == NATS_OK)
        status = natsOptions_SetPingInterval(options, 0);
    if (status == NATS_OK)
        status = natsOptions_SetSendAsap(options, true);
    link->is_tls = identity_wants_tls(link->conf, &link->target);
    if (status == NATS_OK)
        status = natsOptions_SetIOBufSize(options, link->is_tls ? TLS_BUFFER_BYTES : CONNECT_BUFFER_BYTES);
    if (status == NATS_OK)
        status = natsOptions_SetErrorHandler(options, on_library_error, link);
    if (status == NATS_OK)
        status = natsOptions_SetEventLoop(options, link, adapter_attach, adapter_read, adapter_write, adapter_detach);
    if (status == NATS_OK)
        status = identity_set(options, link->conf, &link->target);
    if (status != NATS_OK) {
        natsOptions_Destroy(options);
        options = NULL;
    }
    *made = options;
    return status;
}

/*
 * A plain connection becomes the wire's. The library turns to TLS by itself where the server insists on it, and does
 * not tell: so the server is asked, before anything is sent that is nobody's business. False: it does not understand.
 */
static bool open_wire(struct link *link)
{
    if (!wire_open(&link->wire, link->socket, (size_t)natsConnection_GetMaxPayload(link->connecting)))
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

    link->connect_result = natsConnection_Connect(&link->connecting, link->options);
    if (link->connect_result == NATS_OK && !link->is_tls && !open_wire(link)) {
        link->is_tls = true;
        natsConnection_Destroy(link->connecting);
        link->connecting = NULL;
        link->connect_result = natsConnection_Connect(&link->connecting, link->options);
    }
    if (link->connect_result != NATS_OK) {
        natsStatus status;
        const char *text = nats_GetLastError(&status);
        snprintf(link->connect_error, sizeof(link->connect_error), "%s",
                 text != NULL && text[0] != '\0' ? text : natsStatus_GetText(link->connect_result));
    }
    nats_ReleaseThreadMemory();
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

/* The connection is made: polls it, and listens on the inbox. */
static natsStatus take_over(struct link *link)
{
    const struct wire_events events = {take_message, take_complaint, link};
    natsStatus status;
    char subject[sizeof(link->inbox) + 2];

    snprintf(subject, sizeof(subject), "%s>", link->inbox);
    if (link->wire.is_open) {
        wire_set_events(&link->wire, &events);
        status = wire_subscribe(&link->wire, subject, INBOX_SID) ? NATS_OK : NATS_NO_MEMORY;
    } else {
        status = natsConnection_SubscribeSync(&link->subscription, link->connection, subject);
        if (status == NATS_OK)
            status = natsSubscription_SetPendingLimits(link->subscription, -1, -1);
    }
    if (status != NATS_OK)
        return status;

    link->poll = malloc(sizeof(*link->poll));
    if (link->poll == NULL)
        return NATS_NO_MEMORY;
    if (uv_poll_init_socket(link->loop, link->poll, link->socket) != 0) {
        free(link->poll);
        link->poll = NULL;
        return NATS_ERR;
    }
    link->low_water = 1;
    if (link->is_tls)
        setsockopt(link->socket, SOL_SOCKET, SO_RCVBUF, &(int){TLS_RECEIVE_BYTES}, sizeof(int));
    link->open_handles++;
    link->poll->data = link;
    link->poll_events = 0;
    set_poll_events(link, UV_READABLE);
    return NATS_OK;
}

static void note_url(struct link *link)
{
    char url[256] = "";

    natsConnection_GetConnectedUrl(link->connection, url, sizeof(url));
    /* scheme://user:password@host: only the scheme and the host are anybody's business */
    const char *at = strrchr(url, '@');
    const char *scheme_end = strstr(url, "://");
    if (at != NULL && scheme_end != NULL && at > scheme_end)
        snprintf(link->status.url, sizeof(link->status.url), "%.*s%s", (int)(scheme_end + 3 - url), url, at + 1);
    else
        snprintf(link->status.url, sizeof(link->status.url), "%s", url);
}

static void come_up(struct link *link)
{
    link->connection = link->connecting;
    link->connecting = NULL;
    natsStatus status = take_over(link);
    if (status != NATS_OK) {
        drop_connection(link);
        connect_failed(link, natsStatus_GetText(status));
        return;
    }

    link->state = LINK_UP;
    link->failures = 0;
    link->pings_missed = 0;
    link->ping_sent_ns = 0;
    if (link->status.was_connected)
        link->status.reconnects++;
    link->status.connected = true;
    link->status.was_connected = true;
    link->status.last_error[0] = '\0';
    link->status.max_payload_bytes = (size_t)natsConnection_GetMaxPayload(link->connection);
    note_url(link);
    log_info("nats: connected to %s", link->status.url);
    uv_timer_start(&link->timer, on_check, 0, link->conf->nats.ping_interval_ms);
    link->events.up(link->events.arg);
}

static void finish_stop(struct link *link);

static void on_connect_done(uv_work_t *work, int cancelled)
{
    struct link *link = work->data;

    (void)cancelled;
    natsOptions_Destroy(link->options);
    link->options = NULL;

    if (link->state == LINK_ENDING || link->target_changed) {
        wire_close(&link->wire);
        if (link->connect_result == NATS_OK)
            natsConnection_Destroy(link->connecting);
        link->connecting = NULL;
        if (link->state == LINK_ENDING) {
            finish_stop(link);
        } else {
            link->target_changed = false;
            start_connecting(link);
        }
        return;
    }
    if (link->connect_result == NATS_OK)
        come_up(link);
    else
        connect_failed(link, link->connect_error);
}

static void start_connecting(struct link *link)
{
    natsStatus status = make_options(link, &link->options);

    if (status != NATS_OK) {
        natsStatus last;
        const char *text = nats_GetLastError(&last);
        connect_failed(link, text != NULL && text[0] != '\0' ? text : natsStatus_GetText(status));
        return;
    }
    link->state = LINK_CONNECTING;
    link->work.data = link;
    uv_queue_work(link->loop, &link->work, connect_on_thread, on_connect_done);
}

/* --- Life ------------------------------------------------------------------------------------------ */

struct link *link_new(uv_loop_t *loop, const struct conf *conf, const struct link_events *events)
{
    struct link *link = calloc(1, sizeof(*link));
    natsInbox *inbox = NULL;

    if (link == NULL)
        return NULL;
    if (natsInbox_Create(&inbox) != NATS_OK)
        goto free_link;
    if (uv_mutex_init(&link->complaint_lock) != 0)
        goto free_inbox;

    link->loop = loop;
    link->status.lost_ms = uv_now(loop);
    link->conf = conf;
    link->events = *events;
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
    uv_close((uv_handle_t *)&link->timer, on_handle_closed);
    uv_close((uv_handle_t *)&link->wake, on_handle_closed);
}

void link_stop(struct link *link, void (*stopped)(void *arg), void *arg)
{
    link->stopped = stopped;
    link->stopped_arg = arg;
    switch (link->state) {
    case LINK_CONNECTING:
        link->state = LINK_ENDING;
        return;
    case LINK_UP:
        if (link->wire.is_open)
            wire_write(&link->wire);
        else
            natsConnection_ProcessWriteEvent(link->connection);
        drop_connection(link);
        break;
    case LINK_WAITING:
    case LINK_STOPPED:
    case LINK_ENDING:
        break;
    }
    finish_stop(link);
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

bool link_is_up(const struct link *link)
{
    return link->state == LINK_UP;
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
