#include "daemon/store/lease/lock.h"
#include "daemon/handlers/kv_arguments.h"
#include "daemon/handlers/methods.h"
#include "daemon/handlers/session_holding.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/options.h"
#include "daemon/rpc/pack.h"
#include "daemon/store/journal.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A longer wait is as good as one without an end: 30 years. */
#define WAIT_MAX_S 1e9

/* --- lock.acquire ---------------------------------------------------------------------------------- */

struct lock_call {
    struct call *call;
    struct session_holding_place place;
    struct lock_wait wait;
};

/* Pack the token, and for how long the daemon vouches for the lock. */
static void lock_answer_holding(struct call *call, const struct holding *holding)
{
    msgpack_packer *packer = call_begin_result(call);

    msgpack_pack_map(packer, 2);
    pack_named_unsigned(packer, "token", holding->revision);
    pack_str(packer, "valid_for");
    msgpack_pack_double(packer, (double)lease_valid_for_ms(holding->lease) / 1000.0);
    call_end_result(call);
}

static bool lock_is_wanted(void *arg)
{
    struct call *call = ((const struct lock_call *)arg)->call;

    return call_is_wanted(call) && session_holding_is_allowed(call);
}

static void lock_fail_held_already(struct call *call, const struct holding *holding, const char *name)
{
    struct error error;

    error_set(&error, ERROR_CONFLICT, "this session holds the lock already, with the token %" PRIu64,
              holding->revision);
    error.has_revision = true;
    error.revision = holding->revision;
    error.key = name;
    call_fail(call, &error);
}

/*
 * During the wait another call of the session may have got the lock for the same owner, and the access rules may have
 * changed. Return whether the call was answered.
 */
static bool lock_refuse(struct call *call, const struct lock_wait *wait, struct holding *holding)
{
    if (call->session == NULL)
        return false;
    if (session_holding_find(call, wait->name) == holding) {
        lock_fail_held_already(call, holding, wait->name);
        return true;
    }
    if (session_holding_is_allowed(call))
        return false;
    if (holding->lost == NULL)
        holding_end(holding);
    call_fail_with(call, ERROR_PERMISSION_DENIED, SESSION_HOLDING_DENIED);
    return true;
}

static void lock_answer_acquired(void *arg, struct holding *holding, const struct error *error)
{
    struct lock_call *lock = arg;
    struct call *call = lock->call;

    if (lock->wait.has_listened) /* the time of others is not in the latencies, and such a call is not slow */
        call->started_ns = uv_hrtime();
    if (error != NULL && !session_holding_is_allowed(call))
        call_fail_with(call, ERROR_PERMISSION_DENIED, SESSION_HOLDING_DENIED); /* without the holder's value */
    else if (error != NULL)
        call_fail(call, error);
    else if (!lock_refuse(call, &lock->wait, holding) && session_holding_give(call, &lock->place, holding)) {
        holding->session = call->arena.owner;
        lock_answer_holding(call, holding);
    }
}

/* Describe the holder if it has not said anything of itself: its host, process and program. */
static bool lock_set_standard_value(struct call *call, struct lock_wait *wait)
{
    char host[65] = "", *value = arena_alloc(&call->arena, 256);

    if (value == NULL) {
        call_fail_out_of_memory(call);
        return false;
    }
    gethostname(host, sizeof(host) - 1);
    for (char *c = host; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c) && strchr("-_.", *c) == NULL)
            *c = '?';
    }
    char program[PROCESS_NAME_BYTES];
    snprintf(program, sizeof(program), "%s", call->session->program);
    for (char *c = program; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\')
            *c = '?';
    }
    int length = snprintf(value, 256, "{\"host\":\"%s\",\"pid\":%d,\"program\":\"%s\"}", host, (int)call->pid, program);
    wait->value = value;
    wait->value_bytes = (size_t)length;
    return true;
}

static bool lock_read_value(struct call *call, struct lock_wait *wait)
{
    const msgpack_object *option = option_find(call, "value");

    if (option == NULL)
        return lock_set_standard_value(call, wait);
    const char *wrong = kv_argument_bytes(call, option, &wait->value, &wait->value_bytes);
    if (wrong != NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "value: %s", wrong);
        return false;
    }
    if (wait->value == NULL || wait->value_bytes > LOCK_VALUE_MAX) {
        call_fail_with(call, ERROR_TOO_LARGE, "the value of a lock has up to %u bytes; this one has %zu",
                       LOCK_VALUE_MAX, wait->value_bytes);
        return false;
    }
    return true;
}

static const char *lock_check_owner(const char *owner, size_t length)
{
    if (length < JOURNAL_ID_MIN || length > JOURNAL_ID_MAX)
        return "it has 8 to 36 characters";
    for (size_t i = 0; i < length; i++) {
        if (!isalnum((unsigned char)owner[i]) && strchr("-_", owner[i]) == NULL)
            return "it consists of letters, digits, - and _";
    }
    return NULL;
}

/* The owner is that of a user: others cannot take the lock back. */
static bool lock_read_owner(struct call *call, struct lock_wait *wait)
{
    const char *owner;

    if (!option_string(call, "owner", JOURNAL_ID_MAX, &owner))
        return false;
    if (owner == NULL)
        return true;
    const char *wrong = lock_check_owner(owner, strlen(owner));
    if (wrong != NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "owner \"%.40s\": %s", owner, wrong);
        return false;
    }
    char *text = arena_alloc(&call->arena, LEASE_OWNER_BYTES);
    if (text == NULL) {
        call_fail_out_of_memory(call);
        return false;
    }
    snprintf(text, LEASE_OWNER_BYTES, "%u/%s", (unsigned)call->user->uid, owner);
    wait->owner = text;
    return true;
}

static bool lock_read_wait(struct call *call, struct lock_wait *wait)
{
    double wait_s;

    if (!option_number(call, "wait", 0, &wait_s))
        return false;
    if (!(wait_s >= 0 && wait_s <= WAIT_MAX_S)) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "wait must be seconds, from 0 to %.0f, not %.3g", WAIT_MAX_S,
                       wait_s);
        return false;
    }
    /* Since the call's arrival: with access rules, its bucket was looked up meanwhile. */
    wait->until_ms = call->deadline_ms - call->timeout_ms + (uint64_t)ceil(wait_s * 1000);
    return true;
}

void handle_lock_acquire(struct call *call)
{
    if (call->is_notification) {
        call_drop(call); /* the client would not learn the token */
        return;
    }
    struct lock_call *lock = arena_zalloc(&call->arena, sizeof(*lock));
    if (lock == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    struct lock_wait *wait = &lock->wait;
    if (!kv_argument_key(call, 1, &wait->name) || !lock_read_wait(call, wait) || !lock_read_value(call, wait) ||
        !lock_read_owner(call, wait))
        return;
    const struct holding *held = session_holding_find(call, wait->name);
    if (held != NULL) {
        lock_fail_held_already(call, held, wait->name);
        return;
    }
    if (!session_holding_take_place(call, &lock->place))
        return;
    lock->call = call;
    wait->bucket_name = call->bucket;
    wait->deadline_ms = call->deadline_ms;
    wait->attempt_ms = call->timeout_ms;
    wait->is_wanted = lock_is_wanted;
    wait->done = lock_answer_acquired;
    wait->arg = lock;
    if (wait->until_ms > uv_now(call->dispatcher->loop)) /* others count for the session's backpressure */
        call_begin_waiting(call);
    lock_acquire(call_store(call), &call->arena, wait);
}

/* --- lock.check and lock.release ------------------------------------------------------------------- */

/* Return the holding that the arguments name. NULL: the call is answered. */
static struct holding *lock_find_held(struct call *call)
{
    const char *name;
    uint64_t token;

    if (!kv_argument_key(call, 1, &name) || !argument_revision(call, 2, &token))
        return NULL;
    struct holding *holding = call->session != NULL ? session_holding_find(call, name) : NULL;
    if (holding != NULL && holding->revision == token)
        return holding;
    struct error error;
    error_set(&error, ERROR_NOT_HELD, "this session does not hold the lock with the token %" PRIu64, token);
    error.key = name;
    call_fail(call, &error);
    return NULL;
}

void handle_lock_check(struct call *call)
{
    const struct holding *holding = lock_find_held(call);

    if (holding != NULL)
        lock_answer_holding(call, holding);
}

struct lock_release_call {
    struct call *call;
    struct arena_task task;
    struct timer timer;
    struct holding_release release;
};

static void lock_answer_released(void *arg)
{
    struct lock_release_call *lock = arg;
    struct call *call = lock->call;

    arena_end_task(&lock->task);
    timer_stop(call_store(call)->timers, &lock->timer);
    msgpack_pack_nil(call_begin_result(call));
    call_end_result(call);
}

/* The deletion goes on without the call. */
static void lock_cancel_release(struct arena_task *task)
{
    struct lock_release_call *lock = ARENA_TASK_OWNER(task, struct lock_release_call, task);

    holding_cancel_release(&lock->release);
    timer_stop(call_store(lock->call)->timers, &lock->timer);
}

static void on_lock_release_timeout(struct timer *timer)
{
    struct lock_release_call *lock =
        (struct lock_release_call *)((char *)timer - offsetof(struct lock_release_call, timer));
    struct error error;

    error_set(&error, ERROR_DEADLINE_EXCEEDED,
              "timed out: this session no longer holds the lock, but its key is not deleted yet; the daemon goes on "
              "trying");
    error.outcome = ERROR_OUTCOME_UNKNOWN;
    call_fail(lock->call, &error);
}

void handle_lock_release(struct call *call)
{
    struct holding *holding = lock_find_held(call);

    if (holding == NULL)
        return;
    struct lock_release_call *lock = arena_zalloc(&call->arena, sizeof(*lock));
    if (lock == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    lock->call = call;
    arena_begin_task(&call->arena, &lock->task, lock_cancel_release);
    timer_start(call_store(call)->timers, &lock->timer, call->deadline_ms, on_lock_release_timeout);
    session_holding_remove(holding);
    holding_release(holding, &lock->release, lock_answer_released, lock);
}
