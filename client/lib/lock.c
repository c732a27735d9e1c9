#include "client/lib/lock.h"

#include "client/lib/call.h"
#include "client/lib/clock.h"
#include "client/lib/error.h"
#include "client/lib/options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Without any timeout, the daemon's default counts. */
#define DEFAULT_TIMEOUT_S 5.0

#define CHECK_PAUSE_MS 50 /* between two checks, however little time is left */

/* A longer time is as good as none. */
#define LONGEST_S 1e9

/* --- Memory ---------------------------------------------------------------------------------------- */

static int64_t lock_moment_after(int64_t moment_ms, double seconds)
{
    return seconds < 0 || seconds > LONGEST_S || moment_ms == INT64_MAX ? INT64_MAX
                                                                        : moment_ms + (int64_t)(seconds * 1000);
}

static const char *lock_check_options(const struct kvs *kvs, const struct kvs_lock_options *options)
{
    if (isnan(options->wait_s))
        return "wait_s must be a number of seconds";
    if (!(options->timeout_s >= 0) || !isfinite(options->timeout_s))
        return "timeout_s must be a number of seconds, or 0 for the default";
    if (options->value == NULL && options->value_size > 0)
        return "a value is NULL but its size is not 0";
    if (options->keep && !kvs->options.reconnect)
        return "a lock is kept only if the handle has the option reconnect";
    return NULL;
}

/* Make up an owner, or copy the program's, which the daemon checks. False with the reason in kvs->error. */
static bool lock_set_owner(struct kvs_lock *lock, const char *owner)
{
    uint64_t random[2];

    if (owner != NULL && strlen(owner) >= sizeof(lock->owner)) {
        client_error_set(&lock->kvs->error, KVS_INVALID_ARGUMENT, "an owner has 8 to 36 characters");
        return false;
    }
    if (owner != NULL) {
        strcpy(lock->owner, owner);
    } else if (lock->options.keep) {
        if (getrandom(random, sizeof(random), 0) != sizeof(random)) {
            client_error_set(&lock->kvs->error, KVS_IO, "getrandom has failed");
            return false;
        }
        snprintf(lock->owner, sizeof(lock->owner), "%016llx%016llx", (unsigned long long)random[0],
                 (unsigned long long)random[1]);
    }
    return true;
}

static char *lock_copy(char *to, const void *from, size_t size)
{
    if (size > 0)
        memcpy(to, from, size);
    return to + size;
}

struct kvs_lock *lock_make(struct kvs *kvs, const char *bucket, const char *name,
                           const struct kvs_lock_options *options)
{
    struct kvs_lock_options own;
    const char *wrong = options_copy(&own, sizeof(own), options);

    if (wrong == NULL)
        wrong = bucket == NULL || name == NULL ? "a lock needs the name of its bucket and its own"
                                               : lock_check_options(kvs, &own);
    if (wrong != NULL) {
        client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "%s", wrong);
        return NULL;
    }
    size_t bucket_size = strlen(bucket) + 1, name_size = strlen(name) + 1;
    struct kvs_lock *lock = calloc(1, sizeof(*lock) + bucket_size + name_size + own.value_size);
    if (lock == NULL) {
        client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory for a lock");
        return NULL;
    }
    char *place = (char *)(lock + 1);
    lock->bucket = place;
    place = lock_copy(place, bucket, bucket_size);
    lock->name = place;
    place = lock_copy(place, name, name_size);
    lock_copy(place, own.value, own.value_size);
    lock->kvs = kvs;
    lock->options = own;
    lock->options.value = own.value != NULL ? place : NULL;
    if (!(own.timeout_s > 0))
        lock->options.timeout_s = kvs->options.timeout_s;
    double timeout_s = lock->options.timeout_s > 0 ? lock->options.timeout_s : DEFAULT_TIMEOUT_S;
    lock->wait_ends_ms = lock_moment_after(clock_boot_ms(), own.wait_s);
    lock->gives_up_ms = lock_moment_after(lock->wait_ends_ms, timeout_s + CALL_GRACE_MS / 1000.0);
    if (!lock_set_owner(lock, own.owner)) {
        free(lock);
        return NULL;
    }
    lock->options.owner = NULL; /* the program's memory */
    return lock;
}

void lock_free(struct kvs_lock *lock)
{
    free(lock);
}

void lock_free_gone(struct kvs *kvs)
{
    if (kvs->locks_released == 0)
        return;
    for (struct kvs_lock **place = &kvs->locks; *place != NULL;) {
        struct kvs_lock *lock = *place;
        if (lock->is_released && lock->state == LOCK_GONE && lock->calls == 0 && !lock->is_awaited) {
            *place = lock->next;
            kvs->locks_released--;
            lock_free(lock);
        } else {
            place = &lock->next;
        }
    }
}

void lock_free_all(struct kvs *kvs)
{
    while (kvs->locks != NULL) {
        struct kvs_lock *lock = kvs->locks;
        kvs->locks = lock->next;
        lock_free(lock);
    }
}

/* --- What is due when ------------------------------------------------------------------------------ */

/* Return when the lock has something to send; INT64_MAX: nothing. */
static int64_t lock_due_ms(const struct kvs_lock *lock)
{
    int64_t half_ms = lock->valid_until_ms - lock->longest_ms / 2;

    switch (lock->state) {
    case LOCK_IDLE:
    case LOCK_UNWANTED:
        return lock->due_ms;
    case LOCK_HELD:
        if (lock->standing != LOCK_STANDS || lock->checks > 0)
            return INT64_MAX;
        return half_ms > lock->due_ms ? half_ms : lock->due_ms;
    default:
        return INT64_MAX;
    }
}

/* Return when the lock's time is over; INT64_MAX: never. */
static int64_t lock_ends_ms(const struct kvs_lock *lock)
{
    switch (lock->standing) {
    case LOCK_ASKED_FOR:
        return lock->gives_up_ms;
    case LOCK_STANDS:
        return lock->valid_until_ms;
    default:
        return lock->state == LOCK_IDLE ? lock->valid_until_ms : INT64_MAX;
    }
}

/* Something of the lock has changed. */
static void lock_note_times(struct kvs_lock *lock)
{
    struct kvs *kvs = lock->kvs;
    int64_t due_ms = lock_due_ms(lock), ends_ms = lock_ends_ms(lock);

    if (due_ms < kvs->lock_due_ms)
        kvs->lock_due_ms = due_ms;
    if (ends_ms < kvs->lock_ends_ms)
        kvs->lock_ends_ms = ends_ms;
}

static void lock_set_state(struct kvs_lock *lock, enum lock_state state, int64_t due_ms)
{
    lock->state = state;
    lock->due_ms = due_ms;
    lock_note_times(lock);
}

static void lock_retry_later(struct kvs_lock *lock, enum lock_state state)
{
    lock_set_state(lock, state,
                   clock_boot_ms() + clock_grow_pause(&lock->kvs->connection.random_state, &lock->pause_ms));
}

int64_t lock_left_ms(const struct kvs_lock *lock)
{
    int64_t left_ms = lock->standing == LOCK_STANDS ? lock->valid_until_ms - clock_boot_ms() : 0;

    return left_ms > 0 ? left_ms : 0;
}

void lock_link(struct kvs_lock *lock)
{
    lock->next = lock->kvs->locks;
    lock->kvs->locks = lock;
    lock_note_times(lock);
}

/* --- Calling the program back ---------------------------------------------------------------------- */

static void lock_call_back(struct kvs_lock *lock, const struct kvs_error *error)
{
    struct kvs *kvs = lock->kvs;
    bool before = kvs->in_callback; /* the answer to a call may be handled */

    kvs->in_callback = true;
    lock->on_change(kvs, lock, error, lock->context);
    kvs->in_callback = before;
}

/* Call the functions that do not know yet that the lock is over, or released. */
static void lock_announce_end(struct kvs_lock *lock)
{
    struct kvs *kvs = lock->kvs;
    kvs_lock_done_fn *released = lock->state == LOCK_GONE ? lock->released : NULL;

    if (lock->must_announce && !lock->is_released) {
        lock->must_announce = false;
        lock_call_back(lock, &lock->error);
    }
    if (released == NULL)
        return;
    bool before = kvs->in_callback;
    lock->released = NULL;
    kvs->in_callback = true;
    released(kvs, lock->error.code != KVS_OK ? &lock->error : NULL, lock->released_context);
    kvs->in_callback = before;
}

void lock_announce_ends(struct kvs *kvs)
{
    /* Callbacks may add locks, at the front. */
    for (struct kvs_lock *lock = kvs->locks; lock != NULL; lock = lock->next)
        lock_announce_end(lock);
}

/* The program no longer has the lock, for this reason. The caller announces it. */
static void lock_set_over(struct kvs_lock *lock, const struct kvs_error *reason)
{
    if (lock->standing == LOCK_OVER)
        return;
    lock->standing = LOCK_OVER;
    lock->error = *reason;
    lock->must_announce = lock->on_change != NULL;
}

static void lock_end(struct kvs_lock *lock, const struct kvs_error *reason)
{
    lock_set_over(lock, reason);
    lock_note_times(lock);
    lock_announce_end(lock);
}

/* This session does not hold the lock, and does not ask for it. */
static void lock_go(struct kvs_lock *lock, const struct kvs_error *reason)
{
    lock->state = LOCK_GONE;
    lock_end(lock, reason);
}

/* --- Releasing ------------------------------------------------------------------------------------- */

/* This session holds the lock, and the program does not want it. */
static void lock_release_now(struct kvs_lock *lock)
{
    if (lock_send_release(lock) == KVS_OK)
        lock_set_state(lock, LOCK_RELEASING, 0);
    else
        lock_retry_later(lock, LOCK_UNWANTED);
}

void lock_give_up(struct kvs_lock *lock)
{
    bool was_kept = lock->owner[0] != '\0' && lock->token > 0 && lock->standing == LOCK_STANDS;

    lock->is_released = true;
    lock->kvs->locks_released++;
    lock->standing = LOCK_OVER;
    if (lock->state == LOCK_HELD)
        lock_release_now(lock);
    else if (lock->state == LOCK_IDLE && !was_kept)
        lock->state = LOCK_GONE;
    lock_note_times(lock); /* what is kept is acquired again, to release it */
}

void lock_on_released(struct kvs_lock *lock, const struct kvs_error *error)
{
    bool is_kept = error != NULL && error->code == KVS_IO && lock->owner[0] != '\0' && lock->kvs->options.reconnect &&
                   clock_boot_ms() < lock->valid_until_ms;

    if (is_kept) {
        lock_set_state(lock, LOCK_IDLE, 0);
        return;
    }
    if (error != NULL && lock->error.code == KVS_OK)
        lock->error = *error;
    lock->state = LOCK_GONE;
    lock_announce_end(lock);
}

/* --- Acquiring ------------------------------------------------------------------------------------- */

static void lock_note_valid(struct kvs_lock *lock, int64_t sent_ms, double valid_for_s)
{
    int64_t until_ms = lock_moment_after(sent_ms, valid_for_s > 0 ? valid_for_s : 0);

    lock->pause_ms = 0;
    if (until_ms - sent_ms > lock->longest_ms)
        lock->longest_ms = until_ms - sent_ms;
    /* What the daemon has vouched for stays true. */
    if (until_ms > lock->valid_until_ms)
        lock->valid_until_ms = until_ms;
}

static void lock_set_held(struct kvs_lock *lock)
{
    bool is_new = lock->standing == LOCK_ASKED_FOR;
    int64_t pause_ms = lock_left_ms(lock) / 4; /* while the daemon cannot renew its lease, less is left at each check */

    lock->standing = LOCK_STANDS;
    lock->error.code = KVS_OK; /* of an attempt that failed */
    lock_set_state(lock, LOCK_HELD, clock_boot_ms() + (pause_ms > CHECK_PAUSE_MS ? pause_ms : CHECK_PAUSE_MS));
    if (is_new && lock->on_change != NULL)
        lock_call_back(lock, NULL);
}

void lock_on_held(struct kvs_lock *lock, uint64_t token, double valid_for_s)
{
    struct kvs_error error;

    if (lock->standing == LOCK_STANDS && token != lock->token) {
        client_error_set(&error, KVS_NOT_HELD, "the lock was lost while there was no connection to the daemon");
        lock_set_over(lock, &error);
    }
    lock->token = token;
    if (lock->standing == LOCK_OVER) {
        lock_release_now(lock);
        lock_announce_end(lock);
        return;
    }
    lock->longest_ms = 0; /* the next daemon may have a shorter lease */
    lock_note_valid(lock, lock->acquire_sent_ms, valid_for_s);
    bool is_late = lock->standing == LOCK_ASKED_FOR && clock_boot_ms() > lock->valid_until_ms - lock->longest_ms / 2;
    if (is_late && lock_send_check(lock, NULL, NULL) == KVS_OK)
        lock_set_state(lock, LOCK_CONFIRMING, 0);
    else
        lock_set_held(lock);
}

/* Return until when the lock may be acquired again after a failure that may heal. */
static int64_t lock_retry_ends_ms(const struct kvs_lock *lock)
{
    return lock->standing == LOCK_ASKED_FOR ? lock->gives_up_ms : lock->token > 0 ? lock->valid_until_ms : 0;
}

static bool lock_can_heal(const struct kvs_lock *lock, const struct kvs_error *error)
{
    bool is_away = error->code == KVS_IO || error->code == KVS_PROTOCOL || error->code == KVS_UNAVAILABLE ||
                   (error->code == KVS_RESOURCE_EXHAUSTED && lock->standing == LOCK_STANDS);

    return is_away && error->retryable && lock->kvs->options.reconnect;
}

/* Whether this session still holds the lock because of an earlier one that the program has given up. */
static bool lock_is_in_its_own_way(const struct kvs_lock *lock, const struct kvs_error *error)
{
    const struct kvs_lock *other = lock->kvs->locks;

    while (other != NULL && (other == lock || !other->is_released || other->state == LOCK_GONE ||
                             strcmp(other->bucket, lock->bucket) != 0 || strcmp(other->name, lock->name) != 0))
        other = other->next;
    return error->code == KVS_CONFLICT && other != NULL;
}

void lock_on_not_acquired(struct kvs_lock *lock, const struct kvs_error *error)
{
    bool may_retry = lock_can_heal(lock, error) || lock_is_in_its_own_way(lock, error);

    if (!may_retry || clock_boot_ms() >= lock_retry_ends_ms(lock)) {
        lock_go(lock, error);
        return;
    }
    if (lock->standing == LOCK_ASKED_FOR)
        lock->error = *error;
    lock_retry_later(lock, LOCK_IDLE);
}

/* --- Checking -------------------------------------------------------------------------------------- */

void lock_on_checked(struct kvs_lock *lock, int64_t sent_ms, double valid_for_s)
{
    if (lock->state != LOCK_HELD && lock->state != LOCK_CONFIRMING)
        return;
    lock_note_valid(lock, sent_ms, valid_for_s);
    if (lock->standing == LOCK_OVER)
        lock_release_now(lock);
    else
        lock_set_held(lock);
}

void lock_on_check_failed(struct kvs_lock *lock, const struct kvs_error *error)
{
    if (lock->state != LOCK_HELD && lock->state != LOCK_CONFIRMING)
        return;
    if (error->code == KVS_NOT_HELD) {
        lock_go(lock, error);
    } else if (lock->state == LOCK_CONFIRMING && lock_can_heal(lock, error)) {
        lock_on_not_acquired(lock, error);
    } else if (lock->state == LOCK_CONFIRMING && lock->standing == LOCK_OVER) {
        lock_release_now(lock);
    } else if (lock->state == LOCK_CONFIRMING) {
        lock_set_held(lock); /* for as long as it is vouched for */
    } else {
        lock_retry_later(lock, LOCK_HELD);
    }
}

/* --- Time ------------------------------------------------------------------------------------------ */

static void lock_act(struct kvs_lock *lock)
{
    switch (lock->state) {
    case LOCK_IDLE:
        if (lock_send_acquire(lock) == KVS_OK)
            lock_set_state(lock, LOCK_ACQUIRING, 0);
        else
            lock_on_not_acquired(lock, &lock->kvs->error);
        break;
    case LOCK_HELD:
        lock->due_ms = clock_boot_ms() + CHECK_PAUSE_MS;
        if (lock_send_check(lock, NULL, NULL) != KVS_OK)
            lock_retry_later(lock, LOCK_HELD);
        break;
    case LOCK_UNWANTED:
        lock_release_now(lock);
        break;
    default:
        break;
    }
}

void lock_run(struct kvs *kvs)
{
    int64_t now_ms = clock_boot_ms();

    if (now_ms >= kvs->lock_due_ms) {
        kvs->in_callback = true; /* a blocking call may be waiting: see call_scratch */
        kvs->lock_due_ms = INT64_MAX;
        for (struct kvs_lock *lock = kvs->locks; lock != NULL; lock = lock->next) {
            if (lock_due_ms(lock) <= now_ms)
                lock_act(lock);
            lock_note_times(lock);
        }
        kvs->in_callback = false;
    }
    lock_free_gone(kvs);
}

static void lock_run_out(struct kvs_lock *lock)
{
    struct kvs_error error;

    switch (lock->standing) {
    case LOCK_ASKED_FOR:
        error = lock->error;
        if (error.code == KVS_OK)
            client_error_set(&error, KVS_DEADLINE_EXCEEDED, "the daemon did not answer in time: is it running?");
        break;
    case LOCK_STANDS:
        client_error_set(&error, KVS_UNAVAILABLE, "the time is over for which the daemon has vouched for the lock");
        break;
    default:
        error = lock->error;
    }
    if (lock->state == LOCK_IDLE) {
        lock_go(lock, &error);
        return;
    }
    lock_end(lock, &error);
    if (lock->state == LOCK_HELD)
        lock_set_state(lock, LOCK_UNWANTED, 0);
}

void lock_expire(struct kvs *kvs)
{
    int64_t now_ms = clock_boot_ms();

    if (now_ms < kvs->lock_ends_ms)
        return;
    kvs->lock_ends_ms = INT64_MAX;
    for (struct kvs_lock *lock = kvs->locks; lock != NULL; lock = lock->next) {
        if (lock_ends_ms(lock) <= now_ms)
            lock_run_out(lock);
        lock_note_times(lock);
    }
}

bool lock_needs_connection(const struct kvs *kvs)
{
    return kvs->lock_due_ms < INT64_MAX && clock_boot_ms() >= kvs->lock_due_ms;
}

/* --- The end of the connection, and notifications -------------------------------------------------- */

static void lock_lose(struct kvs_lock *lock, const struct kvs_error *reason)
{
    bool can_heal = lock->kvs->options.reconnect && reason->retryable;
    bool is_kept =
        can_heal && lock->owner[0] != '\0' && lock->token > 0 && (lock->standing == LOCK_STANDS || lock->is_released);

    switch (lock->state) {
    case LOCK_HELD:
    case LOCK_UNWANTED:
        if (is_kept) {
            lock_set_state(lock, LOCK_IDLE, 0);
        } else {
            lock->state = LOCK_GONE;
            lock_set_over(lock, reason);
        }
        break;
    case LOCK_IDLE:
    case LOCK_CONFIRMING:
        if (!can_heal) {
            lock->state = LOCK_GONE;
            lock_set_over(lock, reason);
        }
        break;
    default:
        break; /* its call is in flight, and fails */
    }
}

void lock_lose_all(struct kvs *kvs, const struct kvs_error *reason)
{
    kvs->lock_due_ms = kvs->lock_ends_ms = INT64_MAX;
    for (struct kvs_lock *lock = kvs->locks; lock != NULL; lock = lock->next) {
        lock_lose(lock, reason);
        lock_note_times(lock);
    }
}

static bool lock_is_text(const struct kvs_value *value, const char *text)
{
    size_t size;
    const char *bytes = kvs_value_bytes(value, &size);

    return bytes != NULL && size == strlen(text) && memcmp(bytes, text, size) == 0;
}

static struct kvs_lock *lock_find(const struct kvs *kvs, const struct kvs_value *params)
{
    uint64_t token = kvs_value_unsigned(kvs_value_item(params, 2));

    for (struct kvs_lock *lock = kvs->locks; lock != NULL; lock = lock->next) {
        bool is_held = lock->state == LOCK_HELD || lock->state == LOCK_CONFIRMING || lock->state == LOCK_UNWANTED ||
                       lock->state == LOCK_RELEASING;
        if (is_held && lock->token == token && lock_is_text(kvs_value_item(params, 1), lock->name) &&
            lock_is_text(kvs_value_item(params, 0), lock->bucket))
            return lock;
    }
    return NULL;
}

bool lock_receive(struct kvs *kvs, const struct rpc_message *message, const char **wrong)
{
    static const char method[] = "lock.lost";
    const struct kvs_value *params = (const struct kvs_value *)&message->params;
    struct kvs_error error;

    if (message->method_length != strlen(method) || memcmp(message->method, method, strlen(method)) != 0)
        return false;
    struct kvs_lock *lock = lock_find(kvs, params);
    if (lock == NULL)
        return false; /* of a lock that the program has acquired with kvs_call */
    if (!kvs_value_error(kvs_value_item(params, 3), &error)) {
        *wrong = "ends a lock without a reason";
        return true;
    }
    kvs->in_callback = true;           /* a blocking call may be waiting: see call_begin */
    if (lock->state != LOCK_RELEASING) /* its answer is still to come */
        lock_go(lock, &error);
    kvs->in_callback = false;
    return true;
}
