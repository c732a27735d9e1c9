#include "daemon/handlers/waiting_get.h"

#include "daemon/handlers/watch.h"
#include "daemon/handlers/watched_bucket.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/options.h"
#include "daemon/store/follow/watch.h"
#include "daemon/transport/session.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* The last part of the timeout is left for reading the present entry: a half, up to this time. */
#define READING_MS_MAX 1000u

struct waiting_get {
    struct waiting_get *next, *previous; /* in the list of the service */
    struct service *service;
    struct session *session;
    struct call *call; /* NULL: it is answered, and the watch is about to be stopped */
    struct watched_bucket *watched;
    struct arena_task task;
    struct watch watch;
    struct timer timer;
    struct job stopping;
    uint64_t above;
    bool was_there; /* a value was delivered that the caller knows: its revision is not above */
    void (*give_up)(struct call *call);
    const char *filter; /* the key, after the struct */
};

/* --- The end --------------------------------------------------------------------------------------- */

static bool waiting_get_run_stopping(struct job *job)
{
    struct waiting_get *waiting = (struct waiting_get *)((char *)job - offsetof(struct waiting_get, stopping));

    watch_stop(&waiting->watch);
    free(waiting);
    return false;
}

/* Leave the call. The session is still there. */
static struct call *waiting_get_leave_call(struct waiting_get *waiting)
{
    struct call *call = waiting->call;

    waiting->call = NULL;
    usage_subtract(call->dispatcher->usage, call->user, USAGE_FILTERS, 1);
    watched_bucket_release(waiting->service, call->user, waiting->watched);
    timer_stop(waiting->service->store->timers, &waiting->timer);
    arena_end_task(&waiting->task);
    DL_DELETE2(waiting->service->waiting_gets, waiting, previous, next);
    call->started_ns = uv_hrtime();
    return call;
}

/* The same, and stop the watch later: it cannot end within its own function. */
static struct call *waiting_get_end(struct waiting_get *waiting)
{
    jobs_add_shared(waiting->service->store->jobs, &waiting->stopping, waiting_get_run_stopping);
    return waiting_get_leave_call(waiting);
}

static void waiting_get_cancel(struct arena_task *task)
{
    waiting_get_end(ARENA_TASK_OWNER(task, struct waiting_get, task));
}

/* The rules may have changed since the call began. Return whether the call was answered because of that. */
static bool waiting_get_refuse(struct call *call)
{
    if (dispatcher_session_access(call->dispatcher, call->session, call->bucket) >= CONF_ACCESS_READ)
        return false;
    call_fail_with(call, ERROR_PERMISSION_DENIED,
                   "the access rules have changed and no longer allow to read this bucket");
    return true;
}

static void on_waiting_get_timer(struct timer *timer)
{
    struct waiting_get *waiting = (struct waiting_get *)((char *)timer - offsetof(struct waiting_get, timer));
    void (*give_up)(struct call * call) = waiting->give_up;
    struct call *call = waiting_get_end(waiting);

    if (!waiting_get_refuse(call))
        give_up(call);
}

static bool waiting_get_run_dropping(struct job *job)
{
    struct service *service = (struct service *)((char *)job - offsetof(struct service, dropping));

    while (service->waiting_gets != NULL) {
        call_drop(service->waiting_gets->call);
        if (jobs_slice_is_over(service->store->jobs))
            return true;
    }
    return false;
}

void waiting_get_drop_all(struct service *service)
{
    jobs_add_shared(service->store->jobs, &service->dropping, waiting_get_run_dropping);
}

/* --- What the watch delivers ----------------------------------------------------------------------- */

/* Answer the call with the bytes of a packed entry. */
static void waiting_get_answer(struct waiting_get *waiting, const char *packed, size_t size)
{
    struct call *call = waiting_get_end(waiting);

    if (waiting_get_refuse(call))
        return;
    call_begin_result(call);
    msgpack_sbuffer_write(call->out, packed, size);
    call_end_result(call);
}

/*
 * Return whether a delivered entry is what the call waits for: a later revision, or the end of the value without a
 * marker, which is delivered with a revision that the daemon has looked up to. A marker from the feed that is not later
 * is one of before the caller's revision: the feed is behind.
 */
static bool waiting_get_is_change(struct waiting_get *waiting, uint64_t revision, bool is_put, bool is_unrecorded)
{
    bool has_vanished = waiting->was_there && !is_put && is_unrecorded;

    waiting->was_there |= is_put && revision <= waiting->above;
    return revision > waiting->above || has_vanished;
}

static void waiting_get_on_started(void *arg)
{
    (void)arg;
}

static bool waiting_get_on_entry(void *arg, const struct kv_entry *entry, uint64_t serial, bool must_fit,
                                 bool is_unrecorded)
{
    struct waiting_get *waiting = arg;

    (void)must_fit;
    bool is_put = entry->operation == KV_PUT;
    if (waiting->call != NULL && waiting_get_is_change(waiting, entry->revision, is_put, is_unrecorded)) {
        const msgpack_sbuffer *packed = watches_pack_entry(waiting->service, entry, serial, WATCH_WHOLE);
        waiting_get_answer(waiting, packed->data, packed->size);
    }
    return true;
}

static void waiting_get_on_pack(void *arg, const struct kv_entry *entry, uint64_t serial,
                                struct watch_packed packed[WATCH_FORMS])
{
    struct waiting_get *waiting = arg;

    watches_pack_forms(waiting->service, entry, serial, packed);
}

/* The same for a packed one. */
static bool waiting_get_is_packed_change(struct waiting_get *waiting, const struct watch_packed *packed,
                                         bool is_unrecorded)
{
    msgpack_unpacked unpacked;
    bool is_change = false;

    msgpack_unpacked_init(&unpacked);
    if (msgpack_unpack_next(&unpacked, packed->bytes, packed->size, NULL) == MSGPACK_UNPACK_SUCCESS) {
        const msgpack_object *revision = option_find_member(&unpacked.data.via.map, "revision");
        const msgpack_object *operation = option_find_member(&unpacked.data.via.map, "operation");
        bool is_put =
            operation != NULL && operation->via.str.size == 3 && memcmp(operation->via.str.ptr, "put", 3) == 0;
        is_change = revision != NULL && waiting_get_is_change(waiting, revision->via.u64, is_put, is_unrecorded);
    }
    msgpack_unpacked_destroy(&unpacked); /* out of memory: a later entry, or the timeout, ends the wait */
    return is_change;
}

static void waiting_get_on_packed(void *arg, const struct watch_packed packed[WATCH_FORMS], bool is_unrecorded)
{
    struct waiting_get *waiting = arg;
    const struct watch_packed *whole = &packed[WATCH_WHOLE];

    if (waiting->call != NULL && waiting_get_is_packed_change(waiting, whole, is_unrecorded))
        waiting_get_answer(waiting, whole->bytes, whole->size);
}

static bool waiting_get_has_room(void *arg)
{
    (void)arg;
    return true; /* only one entry is packed, as the answer of a call */
}

static void waiting_get_await_room(void *arg)
{
    (void)arg;
}

static void waiting_get_on_ready(void *arg, const uint64_t *revision)
{
    (void)arg;
    (void)revision;
}

static void waiting_get_on_ended(void *arg, const struct error *error)
{
    struct waiting_get *waiting = arg;
    struct call *call = waiting->call != NULL ? waiting_get_leave_call(waiting) : NULL;
    void (*give_up)(struct call * call) = waiting->give_up;
    struct error copy = *error;

    jobs_remove(waiting->service->store->jobs, &waiting->stopping);
    free(waiting);
    copy.has_revision = false;
    if (call == NULL)
        return;
    /* A key has vanished, maybe this one: the present entry says it. */
    if (copy.code != ERROR_REVISION_GONE)
        call_fail(call, &copy);
    else if (!waiting_get_refuse(call))
        give_up(call);
}

static const struct watch_ops waiting_get_ops = {waiting_get_on_started, waiting_get_on_entry, waiting_get_on_pack,
                                                 waiting_get_on_packed,  waiting_get_has_room, waiting_get_await_room,
                                                 waiting_get_on_ready,   waiting_get_on_ended};

/* --- The beginning --------------------------------------------------------------------------------- */

/* False: the call is answered. */
static bool waiting_get_check_limits(struct call *call)
{
    unsigned limit = call->dispatcher->conf->watches.max_per_session;
    struct error error;

    if (session_count(call->session, SESSION_WATCH) + session_count(call->session, SESSION_WAITING) >= limit) {
        call_fail_with(call, ERROR_RESOURCE_EXHAUSTED,
                       "this session has %u watches and calls that wait, which is the limit (watches.max_per_session)",
                       limit);
        return false;
    }
    if (usage_check(call->dispatcher->usage, call->user, USAGE_FILTERS, 1, &error))
        return true;
    call_fail(call, &error);
    return false;
}

void waiting_get_start(struct call *call, const char *key, uint64_t above, void (*give_up)(struct call *call))
{
    struct service *service = call_service(call);
    uint64_t now_ms = uv_now(service->store->loop);
    uint64_t left_ms = call->deadline_ms > now_ms ? call->deadline_ms - now_ms : 0;
    struct error error;

    if (call->session == NULL || !waiting_get_check_limits(call))
        return;
    struct watched_bucket *watched = watched_bucket_hold(service, call->user, call->bucket, &error);
    if (watched == NULL) {
        call_fail(call, &error);
        return;
    }
    size_t key_bytes = strlen(key) + 1;
    struct waiting_get *waiting = calloc(1, sizeof(*waiting) + key_bytes);
    if (waiting == NULL) {
        watched_bucket_release(service, call->user, watched);
        call_fail_out_of_memory(call);
        return;
    }
    waiting->service = service;
    waiting->session = call->session;
    waiting->call = call;
    waiting->watched = watched;
    waiting->above = above;
    waiting->give_up = give_up;
    waiting->filter = memcpy(waiting + 1, key, key_bytes);
    waiting->watch.filters = &waiting->filter;
    waiting->watch.filter_count = 1;
    waiting->watch.from = WATCH_LAST;
    waiting->watch.owner = call->arena.owner;
    waiting->watch.ops = &waiting_get_ops;
    waiting->watch.arg = waiting;
    usage_add(call->dispatcher->usage, call->user, USAGE_FILTERS, 1);
    call_begin_waiting(call);
    arena_charge(&call->arena, sizeof(*waiting) + key_bytes);
    arena_begin_reading_task(&call->arena, &waiting->task, waiting_get_cancel);
    DL_APPEND2(service->waiting_gets, waiting, previous, next);
    uint64_t reading_ms = left_ms / 2 < READING_MS_MAX ? left_ms / 2 : READING_MS_MAX;
    timer_start(service->store->timers, &waiting->timer, call->deadline_ms - reading_ms, on_waiting_get_timer);
    watch_start(service->store, &waiting->watch, call->bucket, call->deadline_ms);
}
