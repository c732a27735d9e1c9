/* The functions of kvstore_lock.h. */
#include "client/lib/blocking.h"
#include "client/lib/clock.h"
#include "client/lib/error.h"
#include "client/lib/lock.h"
#include "client/lib/loop.h"

uint64_t kvs_lock_token(const struct kvs_lock *lock)
{
    return lock->token;
}

const struct kvs_error *kvs_lock_error(const struct kvs_lock *lock)
{
    return &lock->error;
}

/* --- Acquiring ------------------------------------------------------------------------------------- */

/* Send the first request of a new lock. NULL if that is refused: the lock is freed, the reason is in kvs->error. */
static struct kvs_lock *lock_begin(struct kvs_lock *lock)
{
    if (lock_send_acquire(lock) != KVS_OK) {
        lock_free(lock);
        return NULL;
    }
    lock->state = LOCK_ACQUIRING;
    lock_link(lock);
    return lock;
}

enum kvs_code kvs_async_lock_acquire(struct kvs *kvs, const char *bucket, const char *name,
                                     const struct kvs_lock_options *options, kvs_lock_fn *on_change, void *context,
                                     struct kvs_lock **lock)
{
    if (lock != NULL)
        *lock = NULL;
    if (on_change == NULL)
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT,
                                "on_change is NULL: a lock needs a callback for its loss");
    struct kvs_lock *made = lock_make(kvs, bucket, name, options);
    if (made == NULL)
        return kvs->error.code;
    made->on_change = on_change;
    made->context = context;
    made = lock_begin(made);
    if (made == NULL)
        return kvs->error.code;
    if (lock != NULL)
        *lock = made;
    return KVS_OK;
}

/* Return a moment of clock_boot_ms as one of clock_now_ms. */
static int64_t lock_moment(int64_t boot_ms)
{
    return boot_ms == INT64_MAX ? INT64_MAX : clock_now_ms() + boot_ms - clock_boot_ms();
}

enum kvs_code kvs_lock_acquire(struct kvs *kvs, const char *bucket, const char *name,
                               const struct kvs_lock_options *options, struct kvs_lock **lock)
{
    enum kvs_code code = blocking_check(kvs);

    *lock = NULL;
    if (code != KVS_OK)
        return code;
    struct kvs_lock *made = lock_make(kvs, bucket, name, options);
    if (made == NULL)
        return kvs->error.code;
    code = blocking_connect(kvs, lock_moment(made->gives_up_ms));
    if (code != KVS_OK) {
        lock_free(made);
        return code;
    }
    made = lock_begin(made);
    if (made == NULL)
        return kvs->error.code;
    made->is_awaited = true;
    loop_turn(kvs);
    while (made->standing == LOCK_ASKED_FOR)
        loop_wait_and_turn(kvs, INT64_MAX);
    made->is_awaited = false;
    if (made->standing == LOCK_STANDS) {
        *lock = made;
        return KVS_OK;
    }

    struct kvs_error error = made->error;
    lock_give_up(made); /* an answer that comes late releases it */
    lock_free_gone(kvs);
    kvs->error = error;
    return error.code;
}

/* --- Checking -------------------------------------------------------------------------------------- */

static bool lock_needs_check(const struct kvs_lock *lock)
{
    bool is_due = lock->checks > 0 || clock_boot_ms() >= lock->due_ms;

    return lock->standing == LOCK_STANDS && is_due && lock_left_ms(lock) <= lock->longest_ms / 2;
}

double kvs_lock_valid_for(struct kvs_lock *lock)
{
    struct kvs *kvs = lock->kvs;

    /* A lock.lost may have arrived, and a turn sends the check that is due. */
    if (!kvs->in_callback && lock->on_change == NULL) {
        int64_t until_ms = clock_now_ms() + lock_left_ms(lock) / 2;
        loop_turn(kvs);
        while (lock_needs_check(lock) && clock_now_ms() < until_ms)
            loop_wait_and_turn(kvs, until_ms);
    }
    if (lock->standing == LOCK_STANDS && lock_left_ms(lock) == 0)
        lock_expire(kvs);
    return (double)lock_left_ms(lock) / 1000;
}

enum kvs_code kvs_async_lock_check(struct kvs_lock *lock, kvs_lock_done_fn *done, void *context)
{
    if (lock->standing == LOCK_OVER) {
        lock->kvs->error = lock->error;
        return lock->error.code;
    }
    if (lock->state != LOCK_HELD)
        return client_error_set(&lock->kvs->error, KVS_UNAVAILABLE, "%s",
                                lock->standing == LOCK_STANDS ? "the lock is being acquired again after a reconnect"
                                                              : "the lock was not acquired yet");
    return lock_send_check(lock, done, context);
}

struct lock_waiter {
    bool is_sent, is_finished;
    enum kvs_code code;
};

static void lock_waiter_done(struct kvs *kvs, const struct kvs_error *error, void *context)
{
    struct lock_waiter *waiter = context;

    if (error != NULL)
        kvs->error = *error;
    waiter->code = error != NULL ? error->code : KVS_OK;
    waiter->is_finished = true;
}

enum kvs_code kvs_lock_check(struct kvs_lock *lock)
{
    struct kvs *kvs = lock->kvs;
    struct lock_waiter waiter = {.is_sent = false};
    int64_t until_ms = clock_now_ms() + call_wait_ms(lock->options.timeout_s);
    enum kvs_code code = blocking_check(kvs);

    if (code != KVS_OK)
        return code;
    loop_turn(kvs);
    /* A check that was sent must end: the waiter is on the stack. */
    while (lock->standing != LOCK_OVER && (clock_now_ms() < until_ms || (waiter.is_sent && !waiter.is_finished))) {
        if (!waiter.is_sent && lock->state == LOCK_HELD) {
            waiter = (struct lock_waiter){.is_sent = lock_send_check(lock, lock_waiter_done, &waiter) == KVS_OK};
            if (!waiter.is_sent)
                return kvs->error.code;
            loop_turn(kvs);
        } else {
            loop_wait_and_turn(kvs, waiter.is_sent ? INT64_MAX : until_ms);
        }
        if (waiter.is_finished && waiter.code == KVS_OK)
            return KVS_OK;
        if (waiter.is_finished && lock->standing == LOCK_STANDS && lock->state == LOCK_HELD)
            return waiter.code;
        if (waiter.is_finished)
            waiter.is_sent = waiter.is_finished = false; /* the connection was lost; the lock may be kept */
    }
    while (waiter.is_sent && !waiter.is_finished)
        loop_wait_and_turn(kvs, INT64_MAX);
    if (lock->standing == LOCK_OVER) {
        kvs->error = lock->error;
        return lock->error.code;
    }
    return client_error_set(&kvs->error, KVS_DEADLINE_EXCEEDED, "the daemon did not answer in time: is it running?");
}

/* --- Releasing ------------------------------------------------------------------------------------- */

void kvs_async_lock_release(struct kvs_lock *lock, kvs_lock_done_fn *done, void *context)
{
    struct kvs *kvs = lock->kvs;

    lock->released = done;
    lock->released_context = context;
    lock_give_up(lock);
    if (lock->state == LOCK_GONE)
        lock_announce_ends(kvs);
    if (!kvs->in_callback)
        lock_free_gone(kvs);
}

enum kvs_code kvs_lock_release(struct kvs_lock *lock)
{
    if (lock == NULL)
        return KVS_OK;
    struct kvs *kvs = lock->kvs;
    if (lock->on_change != NULL) {
        kvs_async_lock_release(lock, NULL, NULL);
        return KVS_OK;
    }
    enum kvs_code code = blocking_check(kvs);
    if (code != KVS_OK)
        return code;

    bool was_held = lock->standing == LOCK_STANDS && lock_left_ms(lock) > 0;
    if (!was_held)
        lock_expire(kvs);
    int64_t until_ms = clock_now_ms() + call_wait_ms(lock->options.timeout_s);
    lock->is_awaited = true;
    lock_give_up(lock);
    loop_turn(kvs);
    while (was_held && lock->state != LOCK_GONE && clock_now_ms() < until_ms)
        loop_wait_and_turn(kvs, until_ms);
    struct kvs_error error = lock->error;
    if (error.code == KVS_OK && lock->state != LOCK_GONE)
        client_error_set(&error, KVS_DEADLINE_EXCEEDED, "the daemon did not answer in time: is it running?");
    lock->is_awaited = false;
    lock_free_gone(kvs);
    if (error.code != KVS_OK)
        kvs->error = error;
    return error.code;
}
