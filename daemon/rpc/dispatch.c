#include "daemon/rpc/dispatch.h"

#include "daemon/base/log.h"
#include "daemon/nats/kv.h"
#include "daemon/rpc/arguments.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* What a call of no bytes to speak of costs in memory: its struct, its arena, its place in the store. */
#define CALL_OVERHEAD_BYTES 6144u

/* --- The envelope ---------------------------------------------------------------------------------- */

static void refuse_envelope(struct session *session, const struct rpc_message *message, const char *wrong)
{
    struct error error;

    error_set(&error, ERROR_INVALID_ARGUMENT, "%s", wrong);
    error_set_default_outcome(&error);
    session_pack_error(session, message->has_msgid ? &message->msgid : NULL, &error);
    session->list->metrics->errors[error.code]++;
    session_answered(session);
}

/* The limits of the user and of all sessions. False: the call is answered. */
static bool check_limits(struct call *call)
{
    struct usage *usage = call->dispatcher->usage;
    struct error error;

    if (usage_check(usage, call->user, USAGE_CALLS, 0, &error) &&
        usage_check(usage, call->user, USAGE_CALL_BYTES, 0, &error))
        return true;
    call_fail(call, &error);
    return false;
}

/* --- The row --------------------------------------------------------------------------------------- */

static const struct method *find_method(const struct dispatcher *dispatcher, const char *name, size_t length)
{
    for (size_t row = 0; row < METHOD_COUNT; row++) {
        const struct method *method = &dispatcher->methods[row];
        if (strlen(method->name) == length && memcmp(method->name, name, length) == 0)
            return method;
    }
    return NULL;
}

/* The access that the method's flags ask for. */
static enum conf_access needed_access(const struct method *method)
{
    if ((method->flags & METHOD_NEEDS_ADMIN) != 0)
        return CONF_ACCESS_ADMIN;
    if ((method->flags & METHOD_NEEDS_WRITE) != 0)
        return CONF_ACCESS_WRITE;
    return (method->flags & METHOD_NEEDS_READ) != 0 ? CONF_ACCESS_READ : CONF_ACCESS_NONE;
}

/*
 * Part params into the positional arguments and the map of options after them, which may also be nil or an empty array.
 * Return false if the call is answered.
 */
static bool part_params(struct call *call, const msgpack_object_array *params)
{
    const struct method *method = call->method;
    uint32_t count = params->size;

    call->arguments = params->ptr;
    const msgpack_object *last = count > method->arguments_min ? &params->ptr[count - 1] : NULL;
    if (last != NULL && (last->type == MSGPACK_OBJECT_MAP || argument_is_nothing(last))) {
        count--;
        call->options = argument_to_map(last);
    }
    call->argument_count = count;
    if (count < method->arguments_min || count > method->arguments_max) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s takes %u%s arguments and then a map of options; there were %u",
                       method->name, method->arguments_min,
                       method->arguments_max > method->arguments_min ? " or more" : "", count);
        return false;
    }
    return true;
}

static bool check_options(struct call *call)
{
    double timeout_s;

    if (call->options != NULL && !map_check_names(call, call->options, call->method->name, call->method->options))
        return false;
    const struct conf *conf = call->dispatcher->conf;
    double max_s = conf->calls.max_timeout_ms / 1000.0;
    if (!option_number(call, "timeout", conf->calls.timeout_ms / 1000.0, &timeout_s))
        return false;
    if (!(timeout_s > 0 && timeout_s <= max_s)) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT,
                       "timeout must be seconds, over 0 and up to %.3g (calls.max_timeout), not %.3g", max_s,
                       timeout_s);
        return false;
    }
    call->deadline_ms = uv_now(call->store->loop) + (uint64_t)ceil(timeout_s * 1000);
    return true;
}

enum conf_access call_access(const struct call *call, const char *bucket)
{
    struct session *session = call->session;

    return session != NULL ? access_of(&call->dispatcher->access, &session->access, session_socket(session), bucket)
                           : CONF_ACCESS_NONE;
}

/* False: the call is answered. */
static bool check_bucket_and_access(struct call *call)
{
    const struct method *method = call->method;

    if ((method->flags & METHOD_NAMES_BUCKET) == 0 || call->argument_count == 0)
        return true;
    if (!argument_name(call, 0, "a bucket's name", kv_check_bucket, &call->bucket))
        return false;
    enum conf_access allowed = call_access(call, call->bucket);
    if (allowed < needed_access(method)) {
        log_limited(&call->dispatcher->refused_log, "calls were refused", CONF_LOG_INFO,
                    "session of pid %d uid %u: %s refused for bucket %s", (int)call->session->pid,
                    (unsigned)call->session->uid, method->name, call->bucket);
        call_fail_with(call, ERROR_PERMISSION_DENIED,
                       "uid %u may not call %s for this bucket; the access rules say who may",
                       (unsigned)call->session->uid, method->name);
        return false;
    }
    return true;
}

bool call_needs_nats(struct call *call)
{
    struct error error;

    if (store_is_available(call->store, &error))
        return true;
    call_fail(call, &error);
    return false;
}

const char *dispatch_last_method(const struct dispatcher *dispatcher)
{
    return dispatcher->last_method != NULL ? dispatcher->last_method->name : "none";
}

static void dispatch_call(struct call *call, const struct rpc_message *message)
{
    call->method = find_method(call->dispatcher, message->method, message->method_length);
    if (call->method == NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "unknown method \"%.*s\"",
                       (int)(message->method_length < 64 ? message->method_length : 64), message->method);
        return;
    }
    call->dispatcher->last_method = call->method;
    call->metrics = &call->dispatcher->metrics->methods[call->method - call->dispatcher->methods];
    call->metrics->calls++;
    if (!check_limits(call) || !part_params(call, &message->params.via.array) || !check_options(call) ||
        !check_bucket_and_access(call))
        return;
    if ((call->method->flags & METHOD_NEEDS_NATS) != 0 && !call_needs_nats(call))
        return;
    call->method->handle(call);
}

void dispatch_begin(struct dispatcher *dispatcher)
{
    dispatcher->came_ns = uv_hrtime();
}

void dispatch_message(struct dispatcher *dispatcher, struct session *session, const uint8_t *bytes, size_t size,
                      uint64_t elements)
{
    struct rpc_message message;
    struct call *call = call_new(&dispatcher->pool, dispatcher, session, CALL_OVERHEAD_BYTES);

    if (call == NULL) {
        memset(&message, 0, sizeof(message));
        refuse_envelope(session, &message, "out of memory");
        return;
    }
    call->store = dispatcher->store;
    call->started_ns = dispatcher->came_ns;

    /* The bytes are the session's only until it reads on; the call's arguments point into a copy. */
    char *copy = arena_strndup(&call->arena, (const char *)bytes, size);
    const char *wrong = copy != NULL ? rpc_decode(copy, size, &call->arena.zone, &message) : "out of memory";
    if (copy == NULL)
        memset(&message, 0, sizeof(message));
    /* What is decoded takes more than its bytes: a 0 is one byte, and 24 in memory. */
    arena_charge(&call->arena, (size_t)elements * sizeof(msgpack_object));
    if (wrong == NULL && message.type == RPC_RESPONSE)
        wrong = "the daemon sends no requests, so there is nothing to respond to";
    if (wrong != NULL) {
        refuse_envelope(session, &message, wrong);
        call->is_notification = true;
        call_drop(call);
        return;
    }
    call->msgid = message.msgid;
    call->is_notification = message.type == RPC_NOTIFICATION;
    dispatch_call(call, &message);
}

/* --- Life ------------------------------------------------------------------------------------------ */

int dispatcher_init(struct dispatcher *dispatcher, const struct method *methods, const struct conf *conf,
                    struct store *store, struct metrics *metrics, struct usage *usage, char error[CONF_ERROR_BYTES])
{
    memset(dispatcher, 0, sizeof(*dispatcher));
    dispatcher->methods = methods;
    dispatcher->conf = conf;
    dispatcher->store = store;
    dispatcher->metrics = metrics;
    dispatcher->usage = usage;
    dispatcher->started_ms = uv_now(store->loop);
    msgpack_sbuffer_init(&dispatcher->discarded);
    msgpack_sbuffer_init(&dispatcher->packed[0].bytes);
    msgpack_sbuffer_init(&dispatcher->packed[1].bytes);
    return access_set_rules(&dispatcher->access, conf, error);
}

void dispatcher_free(struct dispatcher *dispatcher)
{
    call_pool_free(&dispatcher->pool);
    access_free(&dispatcher->access);
    msgpack_sbuffer_destroy(&dispatcher->discarded);
    msgpack_sbuffer_destroy(&dispatcher->packed[0].bytes);
    msgpack_sbuffer_destroy(&dispatcher->packed[1].bytes);
}
