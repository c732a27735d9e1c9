/*
 * The top of the library: makes and closes handles, and passes what a connection reports to the calls, watches and
 * locks.
 */
#include "client/lib/call.h"
#include "client/lib/clock.h"
#include "client/lib/ephemeral.h"
#include "client/lib/error.h"
#include "client/lib/lock.h"
#include "client/lib/options.h"
#include "client/lib/watch.h"
#include "proto/rpc.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define DEFAULT_CONNECT_TIMEOUT_S 5.0
#define DEFAULT_MESSAGE_BYTES     (64u * 1024 * 1024)
#define DEFAULT_QUEUED_BYTES      (64u * 1024 * 1024)
#define DEFAULT_EPHEMERAL_BYTES   (16u * 1024 * 1024)
#define DEFAULT_IN_FLIGHT         65536u
#define LARGEST_IN_FLIGHT         (1u << 24)

/* A list of all keys of a huge bucket must fit; and the unpacker of msgpack-c has 32 levels. */
#define MESSAGE_ELEMENTS (4u * 1024 * 1024)
/* If max_message_bytes allows more: one element for this many bytes. */
#define MESSAGE_ELEMENT_BYTES 8u
#define MESSAGE_DEPTH         32u

/* --- What the connection reports ------------------------------------------------------------- */

static bool kvs_on_is_needed(void *owner)
{
    const struct kvs *kvs = owner;

    return kvs->calls.held > 0 || clock_now_ms() >= kvs->watch_due_ms || clock_now_ms() >= kvs->ephemeral_due_ms ||
           lock_needs_connection(kvs);
}

static void kvs_on_turn_begin(void *owner)
{
    call_send_held(owner);
    watch_run(owner);
    lock_run(owner);
    ephemeral_run(owner);
}

static bool kvs_on_is_paused(void *owner)
{
    const struct kvs *kvs = owner;

    return kvs->awaited != NULL && watch_has_event(kvs->awaited);
}

static void kvs_on_turn_end(void *owner)
{
    call_expire(owner, clock_now_ms());
    lock_expire(owner);
}

static void kvs_on_lost(void *owner, const struct kvs_error *reason)
{
    struct kvs *kvs = owner;

    watch_lose_all(kvs, reason);
    lock_lose_all(kvs, reason);
    ephemeral_lose_all(kvs);
    call_end_all(kvs, reason);
    watch_deliver_ends(kvs);
    lock_announce_ends(kvs);
    kvs->error = *reason;
}

static enum kvs_code kvs_lose_for_envelope(struct kvs *kvs, const char *wrong)
{
    struct kvs_error error;

    if (strcmp(wrong, "out of memory") == 0)
        client_error_set(&error, KVS_NO_MEMORY, "out of memory for the daemon's answer");
    else
        client_error_set(&error, KVS_PROTOCOL, "the daemon broke the protocol: %s", wrong);
    return connection_lose(&kvs->connection, &error);
}

/*
 * Return whether the daemon says that it has begun none of the calls without an answer. It dismisses the session, or it
 * refuses a new one. A message that it could not read ends the session, too, but earlier calls have begun.
 */
static bool kvs_is_dismissal(const struct kvs *kvs, const struct kvs_error *error)
{
    bool is_refusal = error->code == KVS_RESOURCE_EXHAUSTED && !kvs->connection.has_answered;

    return error->outcome == KVS_OUTCOME_NONE && (error->code == KVS_UNAVAILABLE || is_refusal);
}

/* A response without a msgid: the daemon ends this session and says why. */
static enum kvs_code kvs_lose_for_response(struct kvs *kvs, const struct rpc_message *message)
{
    struct kvs_error error, reason;

    if (!client_error_read(&error, &message->error))
        return connection_lose_for_message(&kvs->connection, "has no msgid and no error");
    /* A daemon that shuts down is not different from one that has gone. */
    client_error_set(&reason, error.code == KVS_UNAVAILABLE ? KVS_IO : KVS_PROTOCOL,
                     "the daemon ended the session: %.200s", error.message);
    reason.retryable = error.retryable; /* there were too many sessions: watches reconnect */
    reason.outcome = kvs_is_dismissal(kvs, &error) ? KVS_OUTCOME_NONE : KVS_OUTCOME_ABSENT;
    return connection_lose(&kvs->connection, &reason);
}

static void kvs_deliver_notification(struct kvs *kvs, const struct rpc_message *message)
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

static enum kvs_code kvs_handle_message(struct kvs *kvs, const struct rpc_message *message)
{
    const char *wrong = NULL;

    /* The daemon that refuses a session, or is about to end, has not answered. */
    if (message->type != RPC_RESPONSE || message->has_msgid)
        connection_mark_answered(&kvs->connection);
    switch (message->type) {
    case RPC_NOTIFICATION:
        if (!watch_receive(kvs, message, &wrong) && !lock_receive(kvs, message, &wrong) &&
            !ephemeral_receive(kvs, message))
            kvs_deliver_notification(kvs, message);
        break;
    case RPC_RESPONSE:
        if (!message->has_msgid)
            return kvs_lose_for_response(kvs, message);
        wrong = call_answer(kvs, message);
        break;
    default:
        wrong = "is a request";
    }
    return wrong == NULL ? KVS_OK : connection_lose_for_message(&kvs->connection, wrong);
}

static enum kvs_code kvs_on_frame(void *owner, const char *bytes, size_t size)
{
    struct kvs *kvs = owner;
    struct rpc_message message;
    const char *wrong = rpc_decode(bytes, size, kvs->zone, &message);

    enum kvs_code code = wrong != NULL ? kvs_lose_for_envelope(kvs, wrong) : kvs_handle_message(kvs, &message);
    msgpack_zone_clear(kvs->zone);
    return code;
}

static const struct connection_ops kvs_connection_ops = {.is_needed = kvs_on_is_needed,
                                                         .on_turn_begin = kvs_on_turn_begin,
                                                         .on_frame = kvs_on_frame,
                                                         .is_paused = kvs_on_is_paused,
                                                         .on_turn_end = kvs_on_turn_end,
                                                         .on_lost = kvs_on_lost};

/* --- Making and closing a handle ------------------------------------------------------------- */

static enum kvs_code kvs_set_options(struct kvs *kvs, const struct kvs_options *options)
{
    struct kvs_options *own = &kvs->options;

    const char *wrong = options_copy(own, sizeof(*own), options);
    if (wrong != NULL)
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "%s", wrong);
    if (!(own->connect_timeout_s >= 0) || !(own->timeout_s >= 0))
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "a timeout must be a number of seconds, or 0");
    if (own->connect_timeout_s <= 0)
        own->connect_timeout_s = DEFAULT_CONNECT_TIMEOUT_S;
    if (own->max_message_bytes == 0)
        own->max_message_bytes = DEFAULT_MESSAGE_BYTES;
    if (own->max_queued_bytes == 0)
        own->max_queued_bytes = DEFAULT_QUEUED_BYTES;
    if (own->max_ephemeral_bytes == 0)
        own->max_ephemeral_bytes = DEFAULT_EPHEMERAL_BYTES;
    if (own->max_in_flight == 0)
        own->max_in_flight = DEFAULT_IN_FLIGHT;
    if (own->max_in_flight > LARGEST_IN_FLIGHT)
        own->max_in_flight = LARGEST_IN_FLIGHT;
    return KVS_OK;
}

static enum kvs_code kvs_open(struct kvs *kvs, const char *path)
{
    struct connection *connection = &kvs->connection;

    connection->ops = &kvs_connection_ops;
    connection->owner = kvs;
    connection->reconnect = kvs->options.reconnect;
    connection->limits = (struct frame_limits){
        .size_bytes = kvs->options.max_message_bytes, .elements = MESSAGE_ELEMENTS, .depth = MESSAGE_DEPTH};
    /* With more bytes come more elements: a listing of ten million keys has 140 MB. */
    size_t elements = kvs->options.max_message_bytes / MESSAGE_ELEMENT_BYTES;
    if (elements > MESSAGE_ELEMENTS)
        connection->limits.elements = elements < UINT32_MAX ? (uint32_t)elements : UINT32_MAX;
    enum kvs_code code = connection_open(connection, path, kvs->options.connect_timeout_s);
    if (code != KVS_OK)
        kvs->error = connection->error;
    return code;
}

static void kvs_release(struct kvs *kvs)
{
    watch_free_all(kvs);
    lock_free_all(kvs);
    ephemeral_free_all(kvs);
    request_release(&kvs->scratch);
    request_release(&kvs->inner);
    connection_release(&kvs->connection);
    msgpack_zone_free(kvs->zone);
    free(kvs->calls.calls);
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
    kvs->connection.fd = -1;
    kvs->zone = zone;
    kvs->watch_due_ms = INT64_MAX;
    kvs->lock_due_ms = kvs->lock_ends_ms = INT64_MAX;
    kvs->ephemerals_away_end = &kvs->ephemerals_away;
    kvs->ephemeral_due_ms = INT64_MAX;
    call_table_init(&kvs->calls);
    if (getrandom(&kvs->identity, sizeof(kvs->identity), 0) != sizeof(kvs->identity)) {
        client_error_set(error, KVS_IO, "getrandom: %s", strerror(errno));
        kvs_release(kvs);
        return NULL;
    }
    if (kvs_set_options(kvs, options) != KVS_OK || kvs_open(kvs, path) != KVS_OK) {
        *error = kvs->error;
        kvs_release(kvs);
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
    /* A callback that submits once more is refused. */
    kvs->options.reconnect = false;
    kvs->connection.reconnect = false;
    client_error_set(&reason, KVS_IO, "the program closed the connection");
    connection_lose(&kvs->connection, &reason);
    kvs_release(kvs);
}

const struct kvs_error *kvs_last_error(const struct kvs *kvs)
{
    return &kvs->error;
}

static_assert(__builtin_strcmp(KVS_VERSION, KVSTORED_VERSION) == 0,
              "the version of kvstore.h is that of the Makefile, which reads it from there");

const char *kvs_version(void)
{
    return KVS_VERSION;
}
