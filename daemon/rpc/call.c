#include "daemon/rpc/call.h"

#include "daemon/base/fair_queue.h"
#include "daemon/base/metrics.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/options.h"
#include "daemon/rpc/slow_log.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define ARENA_CHUNK_BYTES 4096u

/* About what an error takes. */
#define SMALL_ANSWER_BYTES 512u

/* Calls in the pool. With AddressSanitizer none, so that it sees each use of a call that has ended. */
#ifdef __SANITIZE_ADDRESS__
#define POOL_MAX 0u
#else
#define POOL_MAX 256u
#endif

static void call_abandon(struct session_resource *resource);

static const struct session_resource_ops call_resource_ops = {.on_close = call_abandon};

/* --- Life ------------------------------------------------------------------------------------------ */

/* A call's memory counts for its session, its user, and all. */
static void call_charge(void *arg, size_t bytes)
{
    struct call *call = arg;

    call->bytes += bytes;
    usage_add(call->dispatcher->usage, call->user, USAGE_CALL_BYTES, bytes);
    if (call->session != NULL && call->resource.kind == SESSION_PENDING)
        call->session->pending_bytes += bytes;
}

bool call_charge_memory(void *arg, size_t bytes)
{
    struct call *call = arg;
    struct error ignored;

    call_charge(call, bytes);
    return usage_check(call->dispatcher->usage, call->user, USAGE_CALL_BYTES, 0, &ignored);
}

static struct call *call_allocate(struct call_pool *pool)
{
    struct call *call = pool->spare;

    if (call != NULL) {
        struct arena arena = call->arena;
        pool->spare = call->next;
        pool->count--;
        memset(call, 0, sizeof(*call));
        call->arena = arena;
        return call;
    }
    call = calloc(1, sizeof(*call));
    if (call != NULL && !arena_init(&call->arena, ARENA_CHUNK_BYTES)) {
        free(call);
        return NULL;
    }
    return call;
}

struct call *call_new(struct dispatcher *dispatcher, struct session *session, size_t bytes)
{
    struct call *call = call_allocate(&dispatcher->pool);

    if (call == NULL)
        return NULL;
    call->id = ++dispatcher->call_ids;
    call->dispatcher = dispatcher;
    call->session = session;
    call->session_id = session->id;
    call->pid = session->pid;
    call->started_ns = dispatcher->arrived_ns;
    call->resource.ops = &call_resource_ops;
    call->resource.kind = SESSION_PENDING;
    call->arena.charge = call_charge;
    call->arena.charge_arg = call;
    call->arena.owner = fair_queue_identity(session->uid, session->id);
    call->arena.call_id = call->id;
    call->user = session->user;
    call->user->holders++;
    dispatcher->metrics->calls++;
    DL_APPEND2(dispatcher->calls, call, previous, next);
    usage_add(dispatcher->usage, call->user, USAGE_CALLS, 1);
    session_add_resource(session, &call->resource);
    call_charge(call, bytes);
    return call;
}

const char *call_keep_message(struct call *call, const uint8_t *message, size_t size)
{
    call->message = inbox_take_buffer(call->session, message, size, &call->message_capacity);
    if (call->message == NULL)
        return arena_strndup(&call->arena, (const char *)message, size);
    call->garbage = &call->session->list->garbage;
    arena_charge(&call->arena, call->message_capacity);
    return (const char *)message;
}

static void call_leave_session(struct call *call)
{
    if (call->resource.kind == SESSION_PENDING)
        call->session->pending_bytes -= call->bytes;
    session_remove_resource(call->session, &call->resource);
    call->session = NULL;
}

void call_begin_waiting(struct call *call)
{
    struct session *session = call->session;

    call_leave_session(call);
    usage_subtract(call->dispatcher->usage, call->user, USAGE_CALLS, 1);
    call->resource.kind = SESSION_WAITING;
    call->session = session;
    session_add_resource(session, &call->resource);
    session_mark_dirty(session); /* backpressure may have eased */
}

static void call_release(struct call *call)
{
    struct dispatcher *dispatcher = call->dispatcher;
    struct call_pool *pool = &dispatcher->pool;
    struct usage *usage = dispatcher->usage;

    arena_cancel_tasks(&call->arena);
    /* Calls whose session has ended count until they end: their memory is still in use. */
    dispatcher->metrics->calls--;
    DL_DELETE2(dispatcher->calls, call, previous, next);
    if (call->resource.kind != SESSION_WAITING)
        usage_subtract(usage, call->user, USAGE_CALLS, 1);
    usage_subtract(usage, call->user, USAGE_CALL_BYTES, call->bytes);
    if (call->session != NULL)
        call_leave_session(call);
    usage_release(usage, call->user);
    if (call->message != NULL)
        garbage_free(call->garbage, call->message, call->message_capacity);
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

static bool call_only_reads(const struct call *call)
{
    return call->method != NULL && (call->method->flags & METHOD_ONLY_READS) != 0;
}

bool call_is_wanted(void *arg)
{
    const struct call *call = arg;

    return call->session != NULL && !call->is_cancelled &&
           !(call->session->inbox.state == INBOX_AT_END && inbox_client_has_left(call->session));
}

void call_drop(struct call *call)
{
    call_debug(call, "dropped");
    if (call->resource.kind != SESSION_WAITING)
        slow_log_check(call, "its client has left");
    call_release(call);
}

/*
 * The call's session has ended. A read is dropped, and so is a write that has not left the daemon. Anything else goes
 * on without a session, since what was sent to NATS may happen, and its answer is discarded.
 */
static void call_abandon(struct session_resource *resource)
{
    struct call *call = call_of_resource(resource);

    if (call_only_reads(call) || arena_is_unsent(&call->arena)) {
        call_drop(call);
        return;
    }
    call_leave_session(call);
    call_debug(call, "its session has ended; the call continues");
}

/* --- The answer ------------------------------------------------------------------------------------ */

static void call_note_end(struct call *call, enum error_code code)
{
    struct metrics *metrics = call->dispatcher->metrics;

    slow_log_check(call, code == ERROR_NONE ? "it was answered" : error_code_name(code));
    if (code != ERROR_NONE)
        metrics->errors[code]++;
    if (call->metrics == NULL)
        return;
    call->metrics->ended[code]++;
    metrics_end_call(metrics, call->metrics, call->started_ns);
}

/* A handler that miscounts the members of a map breaks every client: the sanitized build checks it. */
static void assert_well_formed(const struct call *call, const msgpack_sbuffer *rest)
{
#ifdef __SANITIZE_ADDRESS__
    static const struct frame_limits any = {SIZE_MAX, UINT32_MAX, FRAME_DEPTH_MAX};
    size_t length = call->out->size - call->result_start;
    msgpack_sbuffer answer;
    struct frame frame;

    msgpack_sbuffer_init(&answer);
    msgpack_sbuffer_write(&answer, call->out->data + call->result_start, length);
    if (rest->size > 0)
        msgpack_sbuffer_write(&answer, rest->data, rest->size);
    frame_init(&frame, &any);
    assert(frame_scan(&frame, (const uint8_t *)answer.data, answer.size) == FRAME_COMPLETE &&
           frame.offset == answer.size);
    msgpack_sbuffer_destroy(&answer);
#else
    (void)call;
    (void)rest;
#endif
}

/* If nobody will read the result, it is packed into a scratch buffer and discarded. */
msgpack_packer *call_begin_result(struct call *call)
{
    bool is_wanted = call->session != NULL && !call->is_notification;

    call->out = is_wanted ? outbox_buffer(call->session) : &call->dispatcher->discarded;
    call->result_start = call->out->size;
    msgpack_packer_init(&call->packer, call->out, msgpack_sbuffer_write);
    rpc_pack_result(&call->packer, call->msgid);
    return &call->packer;
}

void call_cancel_result(struct call *call)
{
    call->out->size = call->result_start;
}

static void call_finish(struct call *call)
{
    call_debug(call, "answered after %" PRIu64 " us", (uv_hrtime() - call->started_ns) / 1000);
    call_note_end(call, ERROR_NONE);
    call_release(call);
}

/*
 * Return whether the client may be sent an answer of this size, after which unread bytes wait to be read. False: *error
 * says which limit is reached. A small answer is always sent: an error would take as much room, and the outcome of a
 * write would be lost.
 */
static bool call_may_answer(const struct call *call, size_t bytes, size_t unread, struct error *error)
{
    const struct conf *conf = call->dispatcher->conf;

    if (bytes <= SMALL_ANSWER_BYTES)
        return true;
    if (bytes > conf->limits.frame_bytes) {
        error_set(error, ERROR_TOO_LARGE, "the answer has %zu bytes, over the limit of %zu (limits.frame_bytes)", bytes,
                  conf->limits.frame_bytes);
        return false;
    }
    if (unread > conf->limits.out_buffer_bytes) {
        error_set(error, ERROR_RESOURCE_EXHAUSTED,
                  "the client has not read %zu bytes of answers, and another answer of %zu would exceed the limit of "
                  "%zu (limits.out_buffer_bytes); read faster, or ask for less at a time",
                  unread - bytes, bytes, conf->limits.out_buffer_bytes);
        return false;
    }
    return outbox_check_limits(call->session, bytes, unread, error);
}

void call_end_result(struct call *call)
{
    msgpack_sbuffer none;

    msgpack_sbuffer_init(&none);
    call_end_result_with(call, &none);
}

void call_end_result_with(struct call *call, msgpack_sbuffer *rest)
{
    size_t bytes = call->out->size - call->result_start + rest->size;
    struct error error;

    assert_well_formed(call, rest);
    if (call->out == &call->dispatcher->discarded) {
        msgpack_sbuffer_clear(call->out);
        call_finish(call);
        return;
    }
    if (!call_may_answer(call, bytes, outbox_unread_bytes(call->session) + rest->size, &error)) {
        call_cancel_result(call);
        if (!call_only_reads(call))
            error.outcome = ERROR_OUTCOME_UNKNOWN; /* the answer would have said what was done */
        call_fail(call, &error);
        return;
    }
    if (rest->size > 0)
        outbox_append(call->session, rest);
    outbox_commit(call->session);
    call_finish(call);
}

/* A repeated call that is refused before its handler could look for the earlier one may have been carried out by that.
 */
static void call_set_default_outcome(const struct call *call, struct error *error)
{
    const msgpack_object *option = call->method != NULL ? option_find(call, "first_sent") : NULL;
    uint64_t first_sent_us;

    if (option != NULL && argument_to_uint64(option, &first_sent_us) && first_sent_us > 0)
        error_set_default_outcome_of_repeated(error);
    else
        error_set_default_outcome(error);
}

void call_fail(struct call *call, const struct error *error)
{
    struct error complete = *error;

    if (complete.bucket == NULL)
        complete.bucket = call->bucket;
    /* If the method may change something, the error says whether it did. Its handler has set that, or nothing is done.
     */
    if (!call_only_reads(call))
        call_set_default_outcome(call, &complete);
    call->dispatcher->metrics->unknown_outcomes += complete.outcome == ERROR_OUTCOME_UNKNOWN;
    if (complete.code == ERROR_INTERNAL)
        log_limited(&call->dispatcher->internal_log, "internal errors", CONF_LOG_ERROR,
                    "call %" PRIu64 ": internal error in %s: %s", call->id, call_method_name(call), complete.message);
    call_debug(call, "failed after %" PRIu64 " us: %s: %s", (uv_hrtime() - call->started_ns) / 1000,
               error_code_name(complete.code), complete.message);
    if (call->session != NULL && !call->is_notification) {
        outbox_pack_error(call->session, &call->msgid, &complete);
    }
    call_note_end(call, complete.code);
    call_release(call);
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

void call_fail_out_of_memory(struct call *call)
{
    call_fail_with(call, ERROR_RESOURCE_EXHAUSTED, "out of memory");
}

/* A call that does nothing yet has no task: it is about to begin, or belongs to a watch that starts. */
bool call_cancel(struct call *call)
{
    call->is_cancelled = true;
    if (call->arena.tasks == NULL || !(call_only_reads(call) || arena_is_unsent(&call->arena)))
        return false;
    if (call->resource.kind == SESSION_WAITING) /* the time of others is not in the latencies */
        call->started_ns = uv_hrtime();
    call_fail_with(call, ERROR_DEADLINE_EXCEEDED, "the client has cancelled the call");
    return true;
}

/* --- What is said about a call --------------------------------------------------------------------- */

enum call_state call_state(const struct call *call)
{
    if (call->session == NULL)
        return CALL_ABANDONED;
    return call->arena.sent_count == 0 && arena_is_unsent(&call->arena) ? CALL_QUEUED : CALL_RUNNING;
}

const char *call_state_name(enum call_state state)
{
    switch (state) {
    case CALL_RUNNING:
        return "running";
    case CALL_QUEUED:
        return "queued";
    case CALL_ABANDONED:
        return "abandoned";
    }
    return "unknown";
}

const char *call_method_name(const struct call *call)
{
    return call->method != NULL ? call->method->name : "unknown";
}

void call_log_debug(const struct call *call, const char *format, ...)
{
    char text[ERROR_MESSAGE_BYTES + 64];
    bool has_bucket = call->bucket != NULL;
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_debug("call %" PRIu64 " of pid %d uid %u: %s%s%s: %s", call->id, (int)call->pid, (unsigned)call->user->uid,
              call_method_name(call), has_bucket ? " of bucket " : "", has_bucket ? call->bucket : "", text);
}
