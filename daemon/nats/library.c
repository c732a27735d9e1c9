#include "daemon/nats/library.h"

#include "daemon/nats/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * The library hands each destroyed message, received or published, to a thread of its own to be
 * freed, and wakes it with a futex when it sleeps. Messages are collected and let
 * go of in one stroke, so that one wake-up serves many.
 */
#define TRASH_BYTES (4u * 1024u * 1024u)

/* The library's buffers: on a plain connection the wire has its own, and these serve only to connect. */
#define TLS_BUFFER_BYTES     (128 * 1024)
#define CONNECT_BUFFER_BYTES (4 * 1024)

/*
 * The receive buffer of a TLS connection. A record has up to 16 KB, but the kernel counts whole packet buffers, and
 * a window that closes in the middle of a record which we wait for would stay closed
 * (measured with the 128 KB that it begins with).
 */
#define TLS_RECEIVE_BYTES (1024 * 1024)

/* Records that are read in one go. */
#define TLS_RECORDS 16u

/* --- The library's event-loop adapter -------------------------------------------------------------- */

/*
 * These replace the adapter that comes with the library. That one can only attach
 * on the loop's thread, so that the first connect would block the loop; and it
 * waits for the loop to say 'writable' before each write, which costs three system
 * calls per turn.
 */

static natsStatus adapter_attach(void **user_data, void *loop, natsConnection *connection, natsSock socket)
{
    struct library *library = loop;

    /* Still on the worker thread; polling starts on the loop when it is done. */
    library->attached = connection;
    library->socket = socket;
    *user_data = library;
    return NATS_OK;
}

static natsStatus adapter_read(void *user_data, bool add)
{
    struct library *library = user_data;

    if (add)
        return NATS_OK;
    library->events.closing(library->events.arg);
#if NATS_VERSION_NUMBER >= 0x030A00
    /* From 3.10 on the library leaves closing the socket to the adapter. */
    natsConnection_ProcessCloseEvent(&library->socket);
#endif
    return NATS_OK;
}

static natsStatus adapter_write(void *user_data, bool add)
{
    struct library *library = user_data;

    library->wants_write = add;
    return NATS_OK;
}

static natsStatus adapter_detach(void *user_data)
{
    struct library *library = user_data;

#if NATS_VERSION_NUMBER >= 0x030B00
    natsConnection_ProcessDetachedEvent(library->attached);
#endif
    library->attached = NULL;
    return NATS_OK;
}

/* --- Messages that are over ------------------------------------------------------------------------ */

void library_tidy(struct library *library)
{
    for (size_t i = 0; i < library->trash_count; i++)
        natsMsg_Destroy(library->trash[i]);
    library->trash_count = 0;
    library->trash_bytes = 0;
}

static void throw_away(struct library *library, natsMsg *message)
{
    library->trash[library->trash_count++] = message;
    library->trash_bytes += (size_t)natsMsg_GetDataLength(message);
    if (library->trash_count == LIBRARY_TRASH_MESSAGES || library->trash_bytes > TRASH_BYTES)
        library_tidy(library);
}

/* --- Connecting ------------------------------------------------------------------------------------ */

static void write_last_error(char error[LIBRARY_ERROR_BYTES], natsStatus status)
{
    natsStatus last;
    const char *text = nats_GetLastError(&last);

    snprintf(error, LIBRARY_ERROR_BYTES, "%s", text != NULL && text[0] != '\0' ? text : natsStatus_GetText(status));
}

static void on_complaint(natsConnection *connection, natsSubscription *subscription, natsStatus status, void *closure)
{
    struct library *library = closure;
    const char *text = NULL;

    (void)subscription;
    if (natsConnection_GetLastError(connection, &text) == NATS_OK || text == NULL || text[0] == '\0')
        text = natsStatus_GetText(status);
    library->events.complaint(library->events.arg, text);
}

bool library_prepare(struct library *library, const struct conf *conf, const struct link_target *target,
                     char error[LIBRARY_ERROR_BYTES])
{
    natsOptions *options = NULL;
    natsStatus status = natsOptions_Create(&options);

    error[0] = '\0';
    library->is_tls = identity_wants_tls(conf, target);
    if (status == NATS_OK)
        status = natsOptions_SetServers(options, (const char **)target->urls, (int)target->url_count);
    if (status == NATS_OK)
        status = natsOptions_SetName(options, "kvstored");
    if (status == NATS_OK)
        status = natsOptions_SetTimeout(options, conf->nats.connect_timeout_ms);
    if (status == NATS_OK)
        status = natsOptions_SetAllowReconnect(options, false);
    if (status == NATS_OK)
        status = natsOptions_SetPingInterval(options, 0);
    if (status == NATS_OK)
        status = natsOptions_SetSendAsap(options, true);
    if (status == NATS_OK)
        status = natsOptions_SetIOBufSize(options, library->is_tls ? TLS_BUFFER_BYTES : CONNECT_BUFFER_BYTES);
    if (status == NATS_OK)
        status = natsOptions_SetErrorHandler(options, on_complaint, library);
    if (status == NATS_OK)
        status =
            natsOptions_SetEventLoop(options, library, adapter_attach, adapter_read, adapter_write, adapter_detach);
    if (status == NATS_OK)
        status = identity_set(options, conf, target, error, LIBRARY_ERROR_BYTES);
    if (status == NATS_OK) {
        library->options = options;
        return true;
    }
    if (error[0] == '\0')
        write_last_error(error, status);
    natsOptions_Destroy(options);
    return false;
}

bool library_connect(struct library *library, char error[LIBRARY_ERROR_BYTES])
{
    natsStatus status = natsConnection_Connect(&library->connection, library->options);

    if (status != NATS_OK) {
        library->connection = NULL;
        write_last_error(error, status);
    }
    nats_ReleaseThreadMemory();
    return status == NATS_OK;
}

bool library_connect_tls(struct library *library, char error[LIBRARY_ERROR_BYTES])
{
    library->is_tls = true;
    natsConnection_Destroy(library->connection);
    library->connection = NULL;
    return library_connect(library, error);
}

void library_settle(struct library *library)
{
    natsOptions_Destroy(library->options);
    library->options = NULL;
}

void library_write_server_id(const struct library *library, char id[LIBRARY_SERVER_ID_BYTES])
{
    if (natsConnection_GetConnectedServerId(library->connection, id, LIBRARY_SERVER_ID_BYTES) != NATS_OK)
        id[0] = '\0';
}

size_t library_max_payload(const struct library *library)
{
    return (size_t)natsConnection_GetMaxPayload(library->connection);
}

void library_write_url(const struct library *library, char *written, size_t bytes)
{
    char url[256] = "";

    natsConnection_GetConnectedUrl(library->connection, url, sizeof(url));
    /* scheme://user:password@host: only the scheme and the host are anybody's business */
    const char *at = strrchr(url, '@');
    const char *scheme_end = strstr(url, "://");
    if (at != NULL && scheme_end != NULL && at > scheme_end)
        snprintf(written, bytes, "%.*s%s", (int)(scheme_end + 3 - url), url, at + 1);
    else
        snprintf(written, bytes, "%s", url);
}

bool library_subscribe(struct library *library, const char *subject, char error[LIBRARY_ERROR_BYTES])
{
    natsStatus status = natsConnection_SubscribeSync(&library->subscription, library->connection, subject);

    if (status == NATS_OK)
        status = natsSubscription_SetPendingLimits(library->subscription, -1, -1);
    if (status != NATS_OK)
        write_last_error(error, status);
    library->low_water = 1;
    setsockopt(library->socket, SOL_SOCKET, SO_RCVBUF, &(int){TLS_RECEIVE_BYTES}, sizeof(int));
    return status == NATS_OK;
}

/* --- Reading --------------------------------------------------------------------------------------- */

static void hand_over(struct library *library, natsMsg *native)
{
    struct message message = {
        .subject = natsMsg_GetSubject(native),
        .reply = natsMsg_GetReply(native),
        .payload = natsMsg_GetData(native),
        .payload_bytes = (size_t)natsMsg_GetDataLength(native),
        .native = native,
    };

    library->events.message(library->events.arg, &message);
    throw_away(library, native);
}

/* Takes everything out of the inbox that the last read brought. */
static void drain_inbox(struct library *library)
{
    uint64_t queued = 0;

    /* Asking first is cheaper than an empty NextMsg, which formats an error text. */
    while (library->subscription != NULL && natsSubscription_QueuedMsgs(library->subscription, &queued) == NATS_OK) {
        if (queued == 0)
            return;
        while (queued-- > 0 && library->subscription != NULL) {
            natsMsg *native = NULL;
            natsStatus status = natsSubscription_NextMsg(&native, library->subscription, 0);
            if (status == NATS_OK)
                hand_over(library, native);
            else if (status == NATS_NO_RESPONDERS)
                library->events.no_responders(library->events.arg);
            else
                return;
        }
    }
}

/*
 * The library flushes on close and would block; a socket whose other end is closed answers at once. It gets another one
 * in the place of its own, which must not be shut down: whether the server closes it is still to be seen (see former).
 */
static void close_from_under(int descriptor)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
        shutdown(descriptor, SHUT_RDWR);
        return;
    }
    close(ends[1]);
    dup3(ends[0], descriptor, O_CLOEXEC);
    close(ends[0]);
}

/*
 * Over TLS the library's read blocks until the record that has begun is whole.
 * Lets it read only when that is so; else asks the kernel to wake us when it is. The kernel
 * must have room for a whole record beside what it holds of the last ones (see TLS_RECEIVE_BYTES).
 */
static bool record_is_there(struct library *library)
{
    unsigned char header[5]; /* RFC 8446, 5.1: type, version, length */
    int available = 0, low_water = 1;
    ssize_t peeked = recv(library->socket, header, sizeof(header), MSG_PEEK | MSG_DONTWAIT);

    if (peeked < 0 && errno == EAGAIN)
        return false;
    if (peeked <= 0)
        return true; /* closed or failed: the library's to find out */
    if (ioctl(library->socket, FIONREAD, &available) != 0)
        return true;
    /* Not encrypted after all: a cut was taken for a server that insists on it. The next attempt finds out. */
    bool is_record = header[0] >= 20 && header[0] <= 24 && (peeked < 2 || header[1] == 3);
    if (!is_record) {
        close_from_under(library->socket);
        return true;
    }
    int wanted = peeked < 5 ? 5 : 5 + (header[3] << 8 | header[4]);
    if (available < wanted)
        low_water = wanted;
    if (low_water != library->low_water)
        setsockopt(library->socket, SOL_SOCKET, SO_RCVLOWAT, &low_water, sizeof(low_water));
    library->low_water = low_water;
    return available >= wanted;
}

static void read_some(struct library *library, bool is_broken)
{
    if (is_broken) {
        natsConnection_ProcessReadEvent(library->connection);
        return;
    }
    for (unsigned i = 0; i < TLS_RECORDS && !natsConnection_IsClosed(library->connection); i++) {
        if (!record_is_there(library))
            return;
        natsConnection_ProcessReadEvent(library->connection);
    }
}

void library_read(struct library *library, bool is_broken)
{
    read_some(library, is_broken);
    drain_inbox(library);
}

/* --- Writing --------------------------------------------------------------------------------------- */

static natsStatus publish_with_headers(struct library *library, const char *subject, const char *reply,
                                       const struct message_header *headers, size_t header_count, const void *payload,
                                       size_t payload_bytes)
{
    natsMsg *message = NULL;
    natsStatus status = natsMsg_Create(&message, subject, reply, payload, (int)payload_bytes);

    for (size_t i = 0; status == NATS_OK && i < header_count; i++)
        status = natsMsgHeader_Set(message, headers[i].name, headers[i].value);
    if (status == NATS_OK)
        status = natsConnection_PublishMsg(library->connection, message);
    if (message != NULL)
        throw_away(library, message);
    return status;
}

enum link_publish_result library_publish(struct library *library, const char *subject, const char *reply,
                                         const struct message_header *headers, size_t header_count, const void *payload,
                                         size_t payload_bytes)
{
    natsStatus status;

    if (header_count > 0)
        status = publish_with_headers(library, subject, reply, headers, header_count, payload, payload_bytes);
    else if (reply != NULL)
        status = natsConnection_PublishRequest(library->connection, subject, reply, payload, (int)payload_bytes);
    else
        status = natsConnection_Publish(library->connection, subject, payload, (int)payload_bytes);
    switch (status) {
    case NATS_OK:
        return LINK_PUBLISHED;
    case NATS_MAX_PAYLOAD:
        return LINK_TOO_LARGE;
    case NATS_NO_MEMORY:
        return LINK_NO_MEMORY;
    default:
        return LINK_NOT_UP;
    }
}

void library_write(struct library *library)
{
    if (library->wants_write)
        natsConnection_ProcessWriteEvent(library->connection);
}

size_t library_unwritten_bytes(const struct library *library)
{
    int buffered = natsConnection_Buffered(library->connection);

    return buffered > 0 ? (size_t)buffered : 0;
}

/* --- The end --------------------------------------------------------------------------------------- */

const char *library_lost(const struct library *library)
{
    const char *reason = NULL;

    if (!natsConnection_IsClosed(library->connection))
        return NULL;
    natsConnection_GetLastError(library->connection, &reason);
    return reason != NULL && reason[0] != '\0' ? reason : "closed by the server";
}

void library_close(struct library *library)
{
    library_tidy(library);
    natsSubscription_Destroy(library->subscription);
    library->subscription = NULL;
    if (library->connection == NULL)
        return;
    if (!natsConnection_IsClosed(library->connection)) {
        close_from_under(library->socket);
        natsConnection_ProcessReadEvent(library->connection);
    }
    natsConnection_Destroy(library->connection);
    library->connection = NULL;
    library->wants_write = false;
}
