#include "client/lib/connection.h"

#include "client/lib/call.h"
#include "client/lib/error.h"
#include "client/lib/watch.h"
#include "proto/rpc.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_PATH              "/run/kvstored/kvstored.sock"
#define DEFAULT_CONNECT_TIMEOUT_S 5.0
#define DEFAULT_MESSAGE_BYTES     (64u * 1024 * 1024)
#define DEFAULT_QUEUED_BYTES      (64u * 1024 * 1024)
#define DEFAULT_IN_FLIGHT         65536u
#define LARGEST_IN_FLIGHT         (1u << 24)
#define PAUSE_MIN_MS              50u
#define PAUSE_MAX_MS              2000u
#define FULL_PAUSE_MS             5 /* while the daemon's queue of new connections is full */
#define READ_BYTES                (64u * 1024)
#define READS_PER_RUN             16 /* then others get their turn on the caller's loop */

/* A list of all a huge bucket's keys must fit; and the unpacker of msgpack-c has 32 levels. */
#define MESSAGE_ELEMENTS (4u * 1024 * 1024)
#define MESSAGE_DEPTH    32u

int64_t connection_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t connection_moment_after(double seconds)
{
    int64_t now_ms = connection_now_ms();

    if (seconds < 0 || seconds > (double)(INT64_MAX / 2 - now_ms) / 1000)
        return INT64_MAX;
    return now_ms + (int64_t)(seconds * 1000);
}

/* --- Opening ------------------------------------------------------------------------------ */

/* Opens the socket without waiting. 0, or the errno: EAGAIN while the daemon's queue of connections is full. */
static int open_socket(struct kvs *kvs)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return errno;
    memcpy(address.sun_path, kvs->path, strlen(kvs->path) + 1);
    while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        if (errno == EINTR)
            continue;
        int reason = errno;
        close(fd);
        return reason;
    }

    kvs->fd = fd;
    kvs->connections++;
    frame_init(&kvs->scan, &kvs->limits);
    kvs->queued_bytes = 0;
    kvs->sent_bytes = 0;
    kvs->cannot_send = false;
    kvs->has_answered = false;
    return 0;
}

static enum kvs_code report_no_connection(struct kvs *kvs, int reason)
{
    const char *advice = reason == ENOENT || reason == ECONNREFUSED ? ": is kvstored running?"
                         : reason == EACCES                         ? ": ask for access to the socket"
                                                                    : "";

    client_error_set(&kvs->lost, KVS_IO, "cannot connect to %.120s: %s%s", kvs->path, strerror(reason), advice);
    kvs->lost.outcome = KVS_OUTCOME_NONE;
    kvs->error = kvs->lost;
    return KVS_IO;
}

/* xorshift: only spreads attempts of many processes in time */
uint32_t connection_random_below(struct kvs *kvs, uint32_t bound)
{
    kvs->jitter ^= kvs->jitter << 13;
    kvs->jitter ^= kvs->jitter >> 17;
    kvs->jitter ^= kvs->jitter << 5;
    return kvs->jitter % bound;
}

/* Half of the pause is jitter: not all clients of a restarted daemon come back in the same millisecond. */
uint32_t connection_grow_pause(struct kvs *kvs, unsigned *pause_ms)
{
    if (*pause_ms == 0)
        *pause_ms = PAUSE_MIN_MS;
    else if (*pause_ms < PAUSE_MAX_MS)
        *pause_ms = *pause_ms * 2 < PAUSE_MAX_MS ? *pause_ms * 2 : PAUSE_MAX_MS;
    return *pause_ms / 2 + connection_random_below(kvs, *pause_ms / 2 + 1);
}

static void pause_attempts(struct kvs *kvs)
{
    kvs->next_attempt_ms = connection_now_ms() + connection_grow_pause(kvs, &kvs->pause_ms);
}

enum kvs_code connection_ensure(struct kvs *kvs)
{
    if (kvs->fd >= 0)
        return KVS_OK;
    if (!kvs->options.reconnect || connection_now_ms() < kvs->next_attempt_ms) {
        kvs->error = kvs->lost;
        kvs->error.outcome = KVS_OUTCOME_NONE; /* of the call that is now refused */
        return kvs->error.code;
    }

    int reason = open_socket(kvs);
    if (reason == 0)
        return KVS_OK;
    pause_attempts(kvs);
    return report_no_connection(kvs, reason);
}

static enum kvs_code set_options(struct kvs *kvs, const struct kvs_options *options)
{
    struct kvs_options *own = &kvs->options;

    if (options != NULL)
        *own = *options;
    if (!(own->connect_timeout_s >= 0) || !(own->timeout_s >= 0))
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "a timeout must be a number of seconds, or 0");
    if (own->connect_timeout_s <= 0)
        own->connect_timeout_s = DEFAULT_CONNECT_TIMEOUT_S;
    if (own->max_message_bytes == 0)
        own->max_message_bytes = DEFAULT_MESSAGE_BYTES;
    if (own->max_queued_bytes == 0)
        own->max_queued_bytes = DEFAULT_QUEUED_BYTES;
    if (own->max_in_flight == 0)
        own->max_in_flight = DEFAULT_IN_FLIGHT;
    if (own->max_in_flight > LARGEST_IN_FLIGHT)
        own->max_in_flight = LARGEST_IN_FLIGHT;
    kvs->limits = (struct frame_limits){
        .size_bytes = own->max_message_bytes, .elements = MESSAGE_ELEMENTS, .depth = MESSAGE_DEPTH};
    return KVS_OK;
}

static enum kvs_code set_path(struct kvs *kvs, const char *path)
{
    if (path == NULL)
        path = getenv("KVSTORED_SOCKET");
    if (path == NULL || *path == '\0')
        path = DEFAULT_PATH;
    if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "the socket's path is longer than %zu bytes: %.150s",
                                sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1, path);
    kvs->path = strdup(path);
    return kvs->path != NULL ? KVS_OK : client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory");
}

static enum kvs_code connect_first(struct kvs *kvs)
{
    int64_t give_up_ms = connection_moment_after(kvs->options.connect_timeout_s);
    int reason;

    while ((reason = open_socket(kvs)) == EAGAIN && connection_now_ms() < give_up_ms)
        poll(NULL, 0, FULL_PAUSE_MS);
    return reason == 0 ? KVS_OK : report_no_connection(kvs, reason);
}

static void release(struct kvs *kvs)
{
    watch_free_all(kvs);
    request_release(&kvs->scratch);
    request_release(&kvs->inner);
    buffer_free(&kvs->in);
    buffer_free(&kvs->out);
    msgpack_zone_free(kvs->zone);
    free(kvs->calls);
    free(kvs->path);
    free(kvs);
}

struct kvs *kvs_connect(const char *path, const struct kvs_options *options, struct kvs_error *error)
{
    struct kvs *kvs = calloc(1, sizeof(*kvs));
    msgpack_zone *zone = msgpack_zone_new(MSGPACK_ZONE_CHUNK_SIZE);
    struct kvs_error ignored;

    if (error == NULL)
        error = &ignored;
    if (kvs == NULL || zone == NULL) {
        client_error_set(error, KVS_NO_MEMORY, "out of memory");
        msgpack_zone_free(zone);
        free(kvs);
        return NULL;
    }
    kvs->fd = -1;
    kvs->zone = zone;
    kvs->next_deadline_ms = INT64_MAX;
    kvs->watch_due_ms = INT64_MAX;
    /* Handles of one process that are opened in the same millisecond differ in their address. */
    kvs->jitter = ((uint32_t)getpid() << 16 ^ (uint32_t)connection_now_ms() ^ (uint32_t)((uintptr_t)kvs >> 4)) | 1u;
    if (set_options(kvs, options) != KVS_OK || set_path(kvs, path) != KVS_OK || connect_first(kvs) != KVS_OK) {
        *error = kvs->error;
        release(kvs);
        return NULL;
    }
    client_error_set(error, KVS_OK, "%s", "");
    return kvs;
}

void kvs_close(struct kvs *kvs)
{
    struct kvs_error reason;

    if (kvs == NULL)
        return;
    kvs->options.reconnect = false; /* a function that submits once more is refused */
    client_error_set(&reason, KVS_IO, "the program closed the connection");
    connection_lose(kvs, &reason);
    release(kvs);
}

const struct kvs_error *kvs_last_error(const struct kvs *kvs)
{
    return &kvs->error;
}

/* --- Losing ------------------------------------------------------------------------------- */

enum kvs_code connection_lose(struct kvs *kvs, const struct kvs_error *reason)
{
    struct kvs_error kept = *reason;

    if (kvs->fd >= 0)
        close(kvs->fd);
    kvs->fd = -1;
    kvs->lost = kept;
    /* A daemon that takes connections only to close them is not to be asked again and again at once. */
    if (kvs->has_answered)
        kvs->next_attempt_ms = 0;
    else
        pause_attempts(kvs);
    buffer_clear(&kvs->in);
    buffer_clear(&kvs->out);
    kvs->has_unhandled = false;
    watch_lose_all(kvs, &kept);
    call_end_all(kvs, &kept);
    watch_tell_ends(kvs);
    kvs->error = kept;
    return kept.code;
}

static enum kvs_code lose_socket(struct kvs *kvs, const char *what, int reason)
{
    struct kvs_error error;

    client_error_set(&error, KVS_IO, "the connection to the daemon was lost (%s%s%s)", what, reason != 0 ? ": " : "",
                     reason != 0 ? strerror(reason) : "");
    return connection_lose(kvs, &error);
}

/* what goes on after "its message ". */
static enum kvs_code lose_for_message(struct kvs *kvs, const char *what)
{
    struct kvs_error error;

    client_error_set(&error, KVS_PROTOCOL, "the daemon broke the protocol: its message %s", what);
    return connection_lose(kvs, &error);
}

static enum kvs_code lose_for_envelope(struct kvs *kvs, const char *wrong)
{
    struct kvs_error error;

    if (strcmp(wrong, "out of memory") == 0)
        client_error_set(&error, KVS_NO_MEMORY, "out of memory for the daemon's answer");
    else
        client_error_set(&error, KVS_PROTOCOL, "the daemon broke the protocol: %s", wrong);
    return connection_lose(kvs, &error);
}

/* --- Sending and receiving ------------------------------------------------------------------ */

static enum kvs_code send_queued(struct kvs *kvs)
{
    while (buffer_size(&kvs->out) > 0 && !kvs->cannot_send) {
        ssize_t sent = send(kvs->fd, kvs->out.bytes + kvs->out.begin, buffer_size(&kvs->out), MSG_NOSIGNAL);
        if (sent >= 0) {
            buffer_consume(&kvs->out, (size_t)sent);
            kvs->sent_bytes += (uint64_t)sent;
        } else if (errno == EAGAIN) {
            break;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            kvs->cannot_send = true; /* its last words may say why */
        } else if (errno != EINTR) {
            return lose_socket(kvs, "send", errno);
        }
    }
    return KVS_OK;
}

/* A response without a msgid: the daemon gives up this session and says why. */
static enum kvs_code lose_for_response(struct kvs *kvs, const struct rpc_message *message)
{
    struct kvs_error error, reason;

    if (!client_error_read(&error, &message->error))
        return lose_for_message(kvs, "has no msgid and no error");
    client_error_set(&reason, KVS_PROTOCOL, "the daemon ended the session: %.200s", error.message);
    reason.retryable = error.retryable; /* there were too many sessions: watches come again */
    reason.outcome = error.outcome;     /* NONE: and it has read nothing of what was sent */
    return connection_lose(kvs, &reason);
}

static void hand_notification(struct kvs *kvs, const struct rpc_message *message)
{
    char method[64];

    if (kvs->options.on_notification == NULL || message->method_length >= sizeof(method))
        return;
    memcpy(method, message->method, message->method_length);
    method[message->method_length] = '\0';
    kvs->in_callback = true;
    kvs->options.on_notification(kvs, method, (const struct kvs_value *)&message->params,
                                 kvs->options.notification_context);
    kvs->in_callback = false;
}

static enum kvs_code handle_message(struct kvs *kvs, const char *bytes, size_t size)
{
    struct rpc_message message;
    const char *wrong = rpc_decode(bytes, size, kvs->zone, &message);

    if (wrong != NULL)
        return lose_for_envelope(kvs, wrong);
    kvs->has_answered = true;
    kvs->pause_ms = 0;
    switch (message.type) {
    case RPC_NOTIFICATION:
        if (!watch_take(kvs, &message, &wrong))
            hand_notification(kvs, &message);
        break;
    case RPC_RESPONSE:
        if (!message.has_msgid)
            return lose_for_response(kvs, &message);
        wrong = call_answer(kvs, &message);
        break;
    default:
        wrong = "is a request";
    }
    return wrong == NULL ? KVS_OK : lose_for_message(kvs, wrong);
}

/* Handles the whole messages that are there, or as many as it takes until the awaited watch has an event. */
static enum kvs_code handle_received(struct kvs *kvs)
{
    kvs->has_unhandled = false;
    while (buffer_size(&kvs->in) > 0) {
        if (kvs->awaited != NULL && watch_has_event(kvs->awaited)) {
            kvs->has_unhandled = true;
            break;
        }
        const char *bytes = kvs->in.bytes + kvs->in.begin;
        enum frame_status status = frame_scan(&kvs->scan, (const uint8_t *)bytes, buffer_size(&kvs->in));

        if (status == FRAME_PARTIAL)
            break;
        if (status != FRAME_COMPLETE)
            return lose_for_message(kvs, frame_status_text(status));
        size_t size = kvs->scan.offset;
        enum kvs_code code = handle_message(kvs, bytes, size);
        msgpack_zone_clear(kvs->zone);
        if (code != KVS_OK)
            return code;
        buffer_consume(&kvs->in, size);
        frame_init(&kvs->scan, &kvs->limits);
    }
    return KVS_OK;
}

static enum kvs_code receive(struct kvs *kvs)
{
    for (int reads = 0; reads < READS_PER_RUN; reads++) {
        struct kvs_error error;

        if (!buffer_reserve(&kvs->in, READ_BYTES)) {
            client_error_set(&error, KVS_NO_MEMORY, "out of memory for the daemon's answer");
            return connection_lose(kvs, &error);
        }
        size_t room = kvs->in.capacity - kvs->in.end;
        ssize_t received = recv(kvs->fd, kvs->in.bytes + kvs->in.end, room, 0);
        if (received > 0) {
            kvs->in.end += (size_t)received;
            enum kvs_code code = handle_received(kvs);
            if (code != KVS_OK || kvs->has_unhandled)
                return code;
            if ((size_t)received < room && !kvs->cannot_send)
                return KVS_OK; /* as a rule there is no more: poll will tell otherwise */
        } else if (received == 0) {
            return lose_socket(kvs, "the daemon closed it", 0);
        } else if (errno == EAGAIN) {
            return kvs->cannot_send ? lose_socket(kvs, "the daemon takes no more requests", 0) : KVS_OK;
        } else if (errno != EINTR) {
            return lose_socket(kvs, "recv", errno);
        }
    }
    return KVS_OK;
}

enum kvs_code connection_run(struct kvs *kvs)
{
    enum kvs_code code;

    if (kvs->fd < 0 && (connection_now_ms() < kvs->watch_due_ms || connection_ensure(kvs) != KVS_OK)) {
        kvs->error = kvs->lost;
        return kvs->lost.code;
    }
    watch_run(kvs);
    if ((code = send_queued(kvs)) != KVS_OK || (kvs->has_unhandled && (code = handle_received(kvs)) != KVS_OK))
        return code;
    if (!kvs->has_unhandled && (code = receive(kvs)) != KVS_OK)
        return code;
    /* What the functions of the answers have submitted goes out in the same turn. */
    if ((code = send_queued(kvs)) != KVS_OK)
        return code;
    call_expire(kvs, connection_now_ms());
    return KVS_OK;
}

/* --- The caller's loop ---------------------------------------------------------------------- */

enum kvs_code kvs_process(struct kvs *kvs)
{
    if (kvs->in_callback)
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT,
                                "kvs_process from inside a function that receives an answer");
    return connection_run(kvs);
}

int kvs_fd(const struct kvs *kvs)
{
    return kvs->fd;
}

uint64_t kvs_connection_count(const struct kvs *kvs)
{
    return kvs->connections;
}

short kvs_events(const struct kvs *kvs)
{
    if (kvs->fd < 0)
        return 0;
    return buffer_size(&kvs->out) > 0 && !kvs->cannot_send ? POLLIN | POLLOUT : POLLIN;
}

int kvs_timeout_ms(const struct kvs *kvs)
{
    int64_t due_ms = kvs->watch_due_ms;

    if (kvs->has_unhandled)
        return 0;
    if (kvs->fd < 0 && due_ms < kvs->next_attempt_ms)
        due_ms = kvs->next_attempt_ms;
    if (kvs->in_flight > 0 && kvs->next_deadline_ms < due_ms)
        due_ms = kvs->next_deadline_ms;
    if (due_ms == INT64_MAX)
        return -1;
    int64_t left = due_ms - connection_now_ms();
    return left < 0 ? 0 : left < INT_MAX ? (int)left : INT_MAX;
}

void connection_wait(struct kvs *kvs, int timeout_ms)
{
    struct pollfd waited = {.fd = kvs_fd(kvs), .events = kvs_events(kvs)};

    if (poll(&waited, 1, timeout_ms) >= 0 || errno == EINTR)
        return;
    struct kvs_error reason;
    client_error_set(&reason, KVS_IO, "poll: %s", strerror(errno));
    connection_lose(kvs, &reason);
}

size_t kvs_in_flight(const struct kvs *kvs)
{
    return kvs->in_flight;
}

const char *kvs_version(void)
{
    return KVSTORED_VERSION;
}
