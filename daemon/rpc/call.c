#include "daemon/rpc/call.h"

#include "daemon/base/log.h"
#include "daemon/base/metrics.h"
#include "daemon/rpc/dispatch.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_CHUNK_BYTES 4096u

/* Spare calls that are kept. With AddressSanitizer none is, so that it sees who uses a call that is over. */
#ifdef __SANITIZE_ADDRESS__
#define POOL_MAX 0u
#else
#define POOL_MAX 256u
#endif

/* Memory of a call counts for its session, its user, and all. */
static void charge_call(void *arg, size_t bytes)
{
    struct call *call = arg;

    call->bytes += bytes;
    usage_add(call->dispatcher->usage, call->user, USAGE_CALL_BYTES, bytes);
    if (call->session != NULL)
        call->session->call_bytes += bytes;
}

struct call *call_new(struct call_pool *pool, struct dispatcher *dispatcher, struct session *session, size_t bytes)
{
    struct call *call = pool->spare;

    if (call != NULL) {
        struct arena arena = call->arena;
        pool->spare = call->next;
        pool->count--;
        memset(call, 0, sizeof(*call));
        call->arena = arena;
    } else {
        call = calloc(1, sizeof(*call));
        if (call == NULL)
            return NULL;
        if (!arena_init(&call->arena, ARENA_CHUNK_BYTES)) {
            free(call);
            return NULL;
        }
    }
    call->dispatcher = dispatcher;
    call->session = session;
    call->arena.charge = charge_call;
    call->arena.charge_arg = call;
    call->arena.owner = session;
    call->user = session->user;
    call->user->holders++;
    dispatcher->metrics->calls++;
    usage_add(session_usage(session), call->user, USAGE_CALLS, 1);
    session_add_call(session, call);
    charge_call(call, bytes);
    return call;
}

static void release(struct call *call)
{
    struct call_pool *pool = &call->dispatcher->pool;

    arena_cancel_tasks(&call->arena);
    /* Calls whose session is gone count until they are over: their memory is still there. */
    struct usage *usage = call->dispatcher->usage;
    call->dispatcher->metrics->calls--;
    usage_subtract(usage, call->user, USAGE_CALLS, 1);
    usage_subtract(usage, call->user, USAGE_CALL_BYTES, call->bytes);
    if (call->session != NULL)
        session_remove_call(call->session, call, call->bytes);
    usage_release(usage, call->user);
    call->arena.charge = NULL;
    if (pool->count + 1 > POOL_MAX) {
        arena_destroy(&call->arena);
        free(call);
        return;
    }
    arena_clear(&call->arena);
    call->next = pool->spare;
    pool->spare = call;
    pool->count++;
}

void call_pool_free(struct call_pool *pool)
{
    while (pool->spare != NULL) {
        struct call *call = pool->spare;
        pool->spare = call->next;
        arena_destroy(&call->arena);
        free(call);
    }
    pool->count = 0;
}

static void note(struct call *call, enum error_code code)
{
    if (code != ERROR_NONE)
        call->dispatcher->metrics->errors[code]++;
    if (call->metrics == NULL)
        return;
    if (code != ERROR_NONE)
        call->metrics->errors++;
    metrics_end_call(call->dispatcher->metrics, call->metrics, call->started_ns);
}

/* A handler that counts a map's members wrongly would break every client: the sanitized build looks. */
#ifdef __SANITIZE_ADDRESS__
static void assert_well_formed(const char *bytes, size_t length)
{
    static const struct frame_limits any = {SIZE_MAX, UINT32_MAX, FRAME_DEPTH_MAX};
    struct frame frame;

    frame_init(&frame, &any);
    assert(frame_scan(&frame, (const uint8_t *)bytes, length) == FRAME_COMPLETE && frame.offset == length);
}
#else
static void assert_well_formed(const char *bytes, size_t length)
{
    (void)bytes;
    (void)length;
}
#endif

static bool only_reads(const struct call *call)
{
    return call->method != NULL && (call->method->flags & METHOD_ONLY_READS) != 0;
}

/* Who reads no answer gets none: the result is packed all the same, into a buffer of nobody's. */
msgpack_packer *call_begin_result(struct call *call)
{
    bool is_wanted = call->session != NULL && !call->is_notification;

    call->out = is_wanted ? session_out(call->session) : &call->dispatcher->discarded;
    call->result_start = call->out->size;
    msgpack_packer_init(&call->packer, call->out, msgpack_sbuffer_write);
    rpc_pack_result(&call->packer, call->msgid);
    return &call->packer;
}

void call_cancel_result(struct call *call)
{
    call->out->size = call->result_start;
}

void call_end_result(struct call *call)
{
    const struct conf *conf = call->dispatcher->conf;
    struct error full;
    size_t bytes = call->out->size - call->result_start;

    assert_well_formed(call->out->data + call->result_start, bytes);
    if (call->out == &call->dispatcher->discarded) {
        msgpack_sbuffer_clear(call->out);
        note(call, ERROR_NONE);
        release(call);
        return;
    }
    size_t unread = session_unread_bytes(call->session);
    if (bytes > conf->limits.frame_bytes) {
        call_cancel_result(call);
        call_fail_with(call, ERROR_TOO_LARGE, "the answer has %zu bytes, over the limit of %zu (limits.frame_bytes)",
                       bytes, conf->limits.frame_bytes);
        return;
    }
    if (unread > bytes && !session_may_answer(call->session, bytes, &full)) {
        call_cancel_result(call);
        call_fail(call, &full);
        return;
    }
    if (unread > bytes && unread > conf->limits.out_buffer_bytes) {
        call_cancel_result(call);
        call_fail_with(call, ERROR_RESOURCE_EXHAUSTED,
                       "%zu bytes of answers wait to be read, and there is no room for another of %zu "
                       "(limits.out_buffer_bytes); read faster or ask for less at a time",
                       unread - bytes, bytes);
        return;
    }
    session_answered(call->session);
    note(call, ERROR_NONE);
    release(call);
}

void call_fail(struct call *call, const struct error *error)
{
    struct error complete = *error;

    if (complete.bucket == NULL)
        complete.bucket = call->bucket;
    /* What may have been done is said by whoever did it. */
    if (!only_reads(call))
        error_set_default_outcome(&complete);
    if (complete.code == ERROR_INTERNAL)
        log_limited(&call->dispatcher->internal_log, "internal errors", CONF_LOG_ERROR, "internal error in %s: %s",
                    call->method != NULL ? call->method->name : "a call", complete.message);
    if (call->session != NULL && !call->is_notification) {
        session_pack_error(call->session, &call->msgid, &complete);
        session_answered(call->session);
    }
    note(call, complete.code);
    release(call);
}

void call_fail_with(struct call *call, enum error_code code, const char *format, ...)
{
    struct error error;
    char message[ERROR_MESSAGE_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    error_set(&error, code, "%s", message);
    call_fail(call, &error);
}

bool call_take_memory(void *arg, size_t bytes)
{
    struct call *call = arg;
    struct error ignored;

    charge_call(call, bytes);
    return usage_check(call->dispatcher->usage, call->user, USAGE_CALL_BYTES, 0, &ignored);
}

void call_drop(struct call *call)
{
    release(call);
}

void call_abandon(struct call *call)
{
    if (only_reads(call) || arena_is_unsent(&call->arena)) {
        call_drop(call);
        return;
    }
    session_remove_call(call->session, call, call->bytes);
    call->session = NULL;
}

void call_fail_out_of_memory(struct call *call)
{
    call_fail_with(call, ERROR_RESOURCE_EXHAUSTED, "out of memory");
}
