#include "client/lib/connection.h"

#include "client/lib/clock.h"
#include "client/lib/error.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_PATH  "/run/kvstored/kvstored.sock"
#define FULL_PAUSE_MS 5 /* while the daemon's queue of new connections is full */
#define READ_BYTES    (64u * 1024)
#define READS_PER_RUN 16 /* then others get their turn on the program's loop */

/* --- Opening ------------------------------------------------------------------------------ */

/* Open the socket without waiting. 0, or the errno: EAGAIN while the daemon's queue of new connections is full. */
static int connection_open_socket(struct connection *connection)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return errno;
    memcpy(address.sun_path, connection->path, strlen(connection->path) + 1);
    while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        if (errno == EINTR)
            continue;
        int reason = errno;
        close(fd);
        return reason;
    }

    connection->fd = fd;
    connection->opened_count++;
    frame_init(&connection->scan, &connection->limits);
    connection->queued_bytes = 0;
    connection->sent_bytes = 0;
    connection->cannot_send = false;
    connection->has_answered = false;
    return 0;
}

static enum kvs_code connection_report_failed_connect(struct connection *connection, int reason)
{
    const char *advice = reason == ENOENT || reason == ECONNREFUSED ? ": is kvstored running?"
                         : reason == EACCES                         ? ": ask for access to the socket"
                                                                    : "";

    client_error_set(&connection->lost, KVS_IO, "cannot connect to %.120s: %s%s", connection->path, strerror(reason),
                     advice);
    connection->lost.outcome = KVS_OUTCOME_NONE;
    connection->error = connection->lost;
    return KVS_IO;
}

static enum kvs_code connection_set_path(struct connection *connection, const char *path)
{
    if (path == NULL)
        path = getenv("KVSTORED_SOCKET");
    if (path == NULL || *path == '\0')
        path = DEFAULT_PATH;
    if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
        return client_error_set(&connection->error, KVS_INVALID_ARGUMENT,
                                "the socket's path is longer than %zu bytes: %.150s",
                                sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1, path);
    connection->path = strdup(path);
    return connection->path != NULL ? KVS_OK : client_error_set(&connection->error, KVS_NO_MEMORY, "out of memory");
}

enum kvs_code connection_open(struct connection *connection, const char *path, double timeout_s)
{
    int64_t give_up_ms = clock_moment_after(timeout_s);
    enum kvs_code code = connection_set_path(connection, path);
    int reason;

    connection->fd = -1;
    /* Connections of one process that are opened in the same millisecond differ in their address. */
    connection->random_state =
        ((uint32_t)getpid() << 16 ^ (uint32_t)clock_now_ms() ^ (uint32_t)((uintptr_t)connection >> 4)) | 1u;
    if (code != KVS_OK)
        return code;
    while ((reason = connection_open_socket(connection)) == EAGAIN && clock_now_ms() < give_up_ms)
        poll(NULL, 0, FULL_PAUSE_MS);
    return reason == 0 ? KVS_OK : connection_report_failed_connect(connection, reason);
}

void connection_release(struct connection *connection)
{
    buffer_free(&connection->in);
    buffer_free(&connection->out);
    free(connection->path);
}

static void connection_delay_next_attempt(struct connection *connection)
{
    connection->next_attempt_ms = clock_now_ms() + clock_grow_pause(&connection->random_state, &connection->pause_ms);
}

enum kvs_code connection_ensure(struct connection *connection)
{
    if (connection->fd >= 0)
        return KVS_OK;
    if (!connection->reconnect || clock_now_ms() < connection->next_attempt_ms) {
        connection->error = connection->lost;
        connection->error.outcome = KVS_OUTCOME_NONE; /* of the call that is refused now */
        return connection->error.code;
    }

    int reason = connection_open_socket(connection);
    if (reason == 0)
        return KVS_OK;
    if (reason == EAGAIN)
        connection->next_attempt_ms = clock_now_ms() + FULL_PAUSE_MS;
    else
        connection_delay_next_attempt(connection);
    return connection_report_failed_connect(connection, reason);
}

/* --- Losing ------------------------------------------------------------------------------- */

enum kvs_code connection_lose(struct connection *connection, const struct kvs_error *reason)
{
    struct kvs_error kept = *reason;

    if (connection->fd >= 0)
        close(connection->fd);
    connection->fd = -1;
    connection->lost = kept;
    /* A daemon that accepts connections only to close them must not be asked again and again at once. */
    if (connection->has_answered)
        connection->next_attempt_ms = 0;
    else
        connection_delay_next_attempt(connection);
    buffer_clear(&connection->in);
    buffer_clear(&connection->out);
    connection->has_unhandled = false;
    connection->ops->on_lost(connection->owner, &kept);
    connection->error = kept;
    return kept.code;
}

static enum kvs_code connection_lose_socket(struct connection *connection, const char *what, int reason)
{
    struct kvs_error error;

    client_error_set(&error, KVS_IO, "the connection to the daemon was lost (%s%s%s)", what, reason != 0 ? ": " : "",
                     reason != 0 ? strerror(reason) : "");
    return connection_lose(connection, &error);
}

enum kvs_code connection_lose_for_message(struct connection *connection, const char *what)
{
    struct kvs_error error;

    client_error_set(&error, KVS_PROTOCOL, "the daemon broke the protocol: its message %s", what);
    return connection_lose(connection, &error);
}

void connection_mark_answered(struct connection *connection)
{
    connection->has_answered = true;
    connection->pause_ms = 0;
}

/* --- Sending and receiving ------------------------------------------------------------------ */

static enum kvs_code connection_send(struct connection *connection)
{
    struct buffer *out = &connection->out;

    while (buffer_size(out) > 0 && !connection->cannot_send) {
        ssize_t sent = send(connection->fd, out->bytes + out->begin, buffer_size(out), MSG_NOSIGNAL);
        if (sent >= 0) {
            buffer_consume(out, (size_t)sent);
            connection->sent_bytes += (uint64_t)sent;
        } else if (errno == EAGAIN) {
            break;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            connection->cannot_send = true; /* what the daemon sent before may say why */
        } else if (errno != EINTR) {
            return connection_lose_socket(connection, "send", errno);
        }
    }
    return KVS_OK;
}

/* Hand the whole frames in the buffer to the owner, until it wants to pause. */
static enum kvs_code connection_handle_frames(struct connection *connection)
{
    connection->has_unhandled = false;
    while (buffer_size(&connection->in) > 0) {
        if (connection->ops->is_paused(connection->owner)) {
            connection->has_unhandled = true;
            break;
        }
        const char *bytes = connection->in.bytes + connection->in.begin;
        enum frame_status status = frame_scan(&connection->scan, (const uint8_t *)bytes, buffer_size(&connection->in));

        if (status == FRAME_PARTIAL)
            break;
        if (status != FRAME_COMPLETE)
            return connection_lose_for_message(connection, frame_status_text(status));
        size_t size = connection->scan.offset;
        enum kvs_code code = connection->ops->on_frame(connection->owner, bytes, size);
        if (code != KVS_OK)
            return code;
        buffer_consume(&connection->in, size);
        frame_init(&connection->scan, &connection->limits);
    }
    return KVS_OK;
}

static enum kvs_code connection_receive(struct connection *connection)
{
    struct buffer *in = &connection->in;

    for (int reads = 0; reads < READS_PER_RUN; reads++) {
        struct kvs_error error;

        if (!buffer_reserve(in, READ_BYTES)) {
            client_error_set(&error, KVS_NO_MEMORY, "out of memory for the daemon's answer");
            return connection_lose(connection, &error);
        }
        size_t room = in->capacity - in->end;
        ssize_t received = recv(connection->fd, in->bytes + in->end, room, 0);
        if (received > 0) {
            in->end += (size_t)received;
            enum kvs_code code = connection_handle_frames(connection);
            if (code != KVS_OK || connection->has_unhandled)
                return code;
            if ((size_t)received < room && !connection->cannot_send)
                return KVS_OK; /* usually there is no more; otherwise poll says so */
        } else if (received == 0) {
            return connection_lose_socket(connection, "the daemon closed it", 0);
        } else if (errno == EAGAIN) {
            return connection->cannot_send
                       ? connection_lose_socket(connection, "the daemon accepts no more requests", 0)
                       : KVS_OK;
        } else if (errno != EINTR) {
            return connection_lose_socket(connection, "recv", errno);
        }
    }
    return KVS_OK;
}

static enum kvs_code connection_run_once(struct connection *connection)
{
    enum kvs_code code;

    if (connection->fd < 0 &&
        (!connection->ops->is_needed(connection->owner) || connection_ensure(connection) != KVS_OK)) {
        connection->ops->on_turn_end(connection->owner);
        connection->error = connection->lost;
        return connection->lost.code;
    }
    connection->ops->on_turn_begin(connection->owner);
    if ((code = connection_send(connection)) != KVS_OK ||
        (connection->has_unhandled && (code = connection_handle_frames(connection)) != KVS_OK))
        return code;
    if (!connection->has_unhandled && (code = connection_receive(connection)) != KVS_OK)
        return code;
    /* Requests that were submitted while answers were handled leave in the same turn. */
    if ((code = connection_send(connection)) != KVS_OK)
        return code;
    connection->ops->on_turn_end(connection->owner);
    return KVS_OK;
}

enum kvs_code connection_run(struct connection *connection)
{
    bool was_open = connection->fd >= 0;
    enum kvs_code code = connection_run_once(connection);

    /* The daemon restarts, and its socket accepts connections meanwhile. */
    if (code != KVS_OK && was_open && connection->reconnect)
        code = connection_run_once(connection);
    return code;
}

short connection_events(const struct connection *connection)
{
    if (connection->fd < 0)
        return 0;
    return buffer_size(&connection->out) > 0 && !connection->cannot_send ? POLLIN | POLLOUT : POLLIN;
}

void connection_wait(struct connection *connection, int timeout_ms)
{
    struct pollfd waited = {.fd = connection->fd, .events = connection_events(connection)};

    if (poll(&waited, 1, timeout_ms) >= 0 || errno == EINTR)
        return;
    struct kvs_error reason;
    client_error_set(&reason, KVS_IO, "cannot wait for the daemon: %s", strerror(errno));
    connection_lose(connection, &reason);
}
