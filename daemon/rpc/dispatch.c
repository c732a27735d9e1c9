#include "daemon/rpc/dispatch.h"

#include "daemon/base/log.h"
#include "daemon/rpc/options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a call takes in memory beyond its message: its struct, its arena, its place in the store. */
#define CALL_OVERHEAD_BYTES 6144u

/* An unknown method's name is quoted up to this length. */
#define QUOTED_BYTES 64u

/* --- Access ---------------------------------------------------------------------------------------- */

/* A session keeps which rules name its client, from its first call on. */
enum conf_access dispatcher_session_access(struct dispatcher *dispatcher, struct session *session, const char *bucket)
{
    if (dispatcher->access.count == 0)
        return CONF_ACCESS_ADMIN;
    if (session->context == NULL)
        session->context = calloc(1, sizeof(struct access_peer));
    if (session->context == NULL)
        return CONF_ACCESS_NONE;
    if (bucket == NULL)
        return access_of_all(&dispatcher->access, session->context, session_socket(session));
    return access_of(&dispatcher->access, session->context, session_socket(session), bucket);
}

enum conf_access call_access(const struct call *call, const char *bucket)
{
    if (call->session == NULL)
        return CONF_ACCESS_NONE;
    return dispatcher_session_access(call->dispatcher, call->session, bucket);
}

/* Return the access that the method's flags ask for. */
static enum conf_access method_access(const struct method *method)
{
    if ((method->flags & METHOD_NEEDS_ADMIN) != 0)
        return CONF_ACCESS_ADMIN;
    if ((method->flags & METHOD_NEEDS_WRITE) != 0)
        return CONF_ACCESS_WRITE;
    return (method->flags & METHOD_NEEDS_READ) != 0 ? CONF_ACCESS_READ : CONF_ACCESS_NONE;
}

/* bucket: to which the user has no access, the call's or the one that this copies; NULL: all. */
static void dispatch_refuse_access(struct call *call, const char *bucket)
{
    const struct method *method = call->method;
    unsigned uid = (unsigned)call->user->uid;

    log_limited(&call->dispatcher->refused_log, "calls were refused", CONF_LOG_INFO,
                "session of pid %d uid %u: %s refused for %s%s", (int)call->pid, uid, method->name,
                bucket != NULL ? "bucket " : "all buckets", bucket != NULL ? bucket : "");
    if (bucket == NULL || bucket == call->bucket)
        call_fail_with(call, ERROR_PERMISSION_DENIED, "uid %u may not call %s for %s; the access rules say who may",
                       uid, method->name, bucket != NULL ? "this bucket" : "all buckets");
    else
        call_fail_with(call, ERROR_PERMISSION_DENIED,
                       "uid %u may not call %s for the bucket %s, which this one copies; the access rules say who may",
                       uid, method->name, bucket);
}

/* False: the call is answered. */
static bool dispatch_check_access(struct call *call)
{
    enum conf_access needed = method_access(call->method);

    /* Without its bucket the method is about none. */
    if ((call->method->flags & METHOD_NAMES_BUCKET) != 0 && call->bucket == NULL)
        return true;
    if (needed == CONF_ACCESS_NONE || call_access(call, call->bucket) >= needed)
        return true;
    dispatch_refuse_access(call, call->bucket);
    return false;
}

/* A write to a mirror changes the bucket that it copies. Only a look-up shows whether the bucket is one. */
static void dispatch_on_written_bucket(struct call *call, const char *written)
{
    if (written == call->bucket || call_access(call, written) >= CONF_ACCESS_WRITE)
        call->method->handle(call);
    else
        dispatch_refuse_access(call, written);
}

static bool dispatch_must_find_written_bucket(const struct call *call)
{
    return (call->method->flags & METHOD_WRITES) == METHOD_WRITES && call->dispatcher->access.count > 0;
}

/* --- Checks of a call: false means that the call is answered ----------------------------------------- */

/* The limits of the user and of all sessions. */
static bool dispatch_check_limits(struct call *call)
{
    struct usage *usage = call->dispatcher->usage;
    struct error error;

    if (usage_check(usage, call->user, USAGE_CALLS, 0, &error) &&
        usage_check(usage, call->user, USAGE_CALL_BYTES, 0, &error))
        return true;
    call_fail(call, &error);
    return false;
}

/*
 * Divide the parameters into the positional arguments and the map of options after them, which may also be nil or an
 * empty array.
 */
static bool dispatch_divide_parameters(struct call *call, const msgpack_object_array *parameters)
{
    const struct method *method = call->method;
    uint32_t count = parameters->size;

    call->arguments = parameters->ptr;
    const msgpack_object *last = count > method->arguments_min ? &parameters->ptr[count - 1] : NULL;
    if (last != NULL && (last->type == MSGPACK_OBJECT_MAP || argument_is_nothing(last))) {
        count--;
        call->options = argument_to_map(last);
    }
    call->argument_count = count;
    if (count >= method->arguments_min && count <= method->arguments_max)
        return true;
    call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s takes %u%s arguments and then a map of options; there were %u",
                   method->name, method->arguments_min, method->arguments_max > method->arguments_min ? " or more" : "",
                   count);
    return false;
}

static bool dispatch_check_options(struct call *call)
{
    const struct conf *conf = call->dispatcher->conf;
    double timeout_s, max_s = conf->calls.max_timeout_ms / 1000.0;

    if (call->options != NULL && !option_check_names(call, call->options, call->method->name, call->method->options))
        return false;
    if (!option_number(call, "timeout", conf->calls.timeout_ms / 1000.0, &timeout_s))
        return false;
    if (!(timeout_s > 0 && timeout_s <= max_s)) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT,
                       "timeout must be seconds, over 0 and up to %.3g (calls.max_timeout), not %.3g", max_s,
                       timeout_s);
        return false;
    }
    call->timeout_ms = (uint64_t)ceil(timeout_s * 1000);
    call->deadline_ms = uv_now(call->dispatcher->loop) + call->timeout_ms;
    return true;
}

static bool dispatch_check_bucket_name(struct call *call)
{
    if ((call->method->flags & METHOD_NAMES_BUCKET) == 0 || call->argument_count == 0)
        return true;
    return argument_name(call, 0, "a bucket's name", call->dispatcher->ops->check_bucket_name, &call->bucket);
}

bool call_needs_nats(struct call *call)
{
    struct dispatcher *dispatcher = call->dispatcher;
    struct error error;

    if (dispatcher->ops->is_available(dispatcher->context, &error))
        return true;
    call_fail(call, &error);
    return false;
}

/* --- A message ------------------------------------------------------------------------------------- */

const char *dispatcher_last_method(const struct dispatcher *dispatcher)
{
    return dispatcher->last_method != NULL ? dispatcher->last_method->name : "none";
}

static const struct method *dispatch_find_method(const struct dispatcher *dispatcher, const char *name, size_t length)
{
    for (size_t row = 0; row < METHOD_COUNT; row++) {
        const struct method *method = &dispatcher->ops->methods[row];
        if (strlen(method->name) == length && memcmp(method->name, name, length) == 0)
            return method;
    }
    return NULL;
}

static void dispatch_call(struct call *call, const struct rpc_message *message)
{
    struct dispatcher *dispatcher = call->dispatcher;
    size_t length = message->method_length;

    call->method = dispatch_find_method(dispatcher, message->method, length);
    if (call->method == NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "unknown method \"%.*s\"",
                       (int)(length < QUOTED_BYTES ? length : QUOTED_BYTES), message->method);
        return;
    }
    dispatcher->last_method = call->method;
    session_count_call(call->session);
    call->metrics = &dispatcher->metrics->methods[call->method - dispatcher->ops->methods];
    call->metrics->calls++;
    if (!dispatch_check_limits(call) || !dispatch_divide_parameters(call, &message->params.via.array) ||
        !dispatch_check_options(call) || !dispatch_check_bucket_name(call) || !dispatch_check_access(call))
        return;
    if ((call->method->flags & METHOD_NEEDS_NATS) != 0 && !call_needs_nats(call))
        return;
    call_debug(call, "begins");
    if (dispatch_must_find_written_bucket(call))
        dispatcher->ops->find_written_bucket(call, dispatch_on_written_bucket);
    else
        call->method->handle(call);
}

static void dispatch_refuse_message(struct session *session, const struct rpc_message *message, const char *reason)
{
    struct error error;

    error_set(&error, ERROR_INVALID_ARGUMENT, "%s", reason);
    outbox_refuse(session, message->has_msgid ? &message->msgid : NULL, &error);
}

/* There is no memory for the message. Without its msgid the client would wait for an answer that never comes. */
static void dispatch_refuse_for_memory(struct session *session, const uint8_t *bytes, size_t size)
{
    struct error error;
    uint32_t msgid;
    bool has_msgid = rpc_peek_msgid(bytes, size, &msgid);

    error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    if (has_msgid) {
        outbox_refuse(session, &msgid, &error);
        return;
    }
    outbox_refuse_last(session, &error);
    session_finish(session);
}

/* One look at the clock serves all messages that arrived together. */
static void dispatch_on_messages(void *arg)
{
    struct dispatcher *dispatcher = arg;

    dispatcher->arrived_ns = uv_hrtime();
}

static void dispatch_on_message(void *arg, struct session *session, const uint8_t *bytes, size_t size,
                                uint64_t elements)
{
    struct rpc_message message = {0};
    struct call *call = call_new(arg, session, CALL_OVERHEAD_BYTES);

    if (call == NULL) {
        dispatch_refuse_for_memory(session, bytes, size);
        return;
    }
    /* The call's arguments point into it. */
    const char *kept = call_keep_message(call, bytes, size);
    if (kept == NULL) {
        dispatch_refuse_for_memory(session, bytes, size);
        call_drop(call);
        return;
    }
    const char *wrong = rpc_decode(kept, size, &call->arena.zone, &message);
    /* Decoded values take more than their bytes: a 0 is one byte, and 24 in memory. */
    arena_charge(&call->arena, (size_t)elements * sizeof(msgpack_object));
    if (wrong == NULL && message.type == RPC_RESPONSE)
        wrong = "the message is a response, but the daemon sends no requests";
    if (wrong != NULL) {
        dispatch_refuse_message(session, &message, wrong);
        call_drop(call);
        return;
    }
    call->msgid = message.msgid;
    call->is_notification = message.type == RPC_NOTIFICATION;
    dispatch_call(call, &message);
}

static void dispatch_on_close(void *arg, struct session *session)
{
    (void)arg;
    free(session->context);
    session->context = NULL;
}

const struct session_ops dispatcher_session_ops = {dispatch_on_messages, dispatch_on_message, dispatch_on_close};

/* --- Life ------------------------------------------------------------------------------------------ */

int dispatcher_init(struct dispatcher *dispatcher, const struct dispatcher_ops *ops, void *context, uv_loop_t *loop,
                    const struct conf *conf, struct metrics *metrics, struct usage *usage, char error[CONF_ERROR_BYTES])
{
    memset(dispatcher, 0, sizeof(*dispatcher));
    dispatcher->ops = ops;
    dispatcher->context = context;
    dispatcher->loop = loop;
    dispatcher->conf = conf;
    dispatcher->metrics = metrics;
    dispatcher->usage = usage;
    msgpack_sbuffer_init(&dispatcher->discarded);
    return access_set_rules(&dispatcher->access, conf, error);
}

void dispatcher_reload(struct dispatcher *dispatcher, struct access *fresh)
{
    access_replace(&dispatcher->access, fresh);
}

void dispatcher_free(struct dispatcher *dispatcher)
{
    call_pool_free(&dispatcher->pool);
    access_free(&dispatcher->access);
    msgpack_sbuffer_destroy(&dispatcher->discarded);
}
