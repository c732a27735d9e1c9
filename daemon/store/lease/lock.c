#include "daemon/store/lease/lock.h"

#include "daemon/base/backoff.h"
#include "daemon/store/lease/holding_line.h"
#include "daemon/store/lease/lease_file.h"
#include "daemon/store/lease/lock_holder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* The pause after an attempt that failed, with full jitter. */
#define PAUSE_MIN_MS 50u
#define PAUSE_MAX_MS 2000u

#define ATTEMPT_BYTES 4096u

struct lock {
    UT_hash_handle hh; /* by its name */
    struct lease_bucket *in;
    struct lock_wait *line;     /* the first came first */
    struct job trying;          /* the first may try now */
    uint64_t marker_revision;   /* of the marker that the last holder has left; 0: not known */
    uint64_t marker_doubts;     /* of the bucket, when it was delivered */
    bool has_changed;           /* its key was deleted since the first in line began to look at it */
    uint64_t searched_revision; /* of the holding whose owner is not in line; 0: nobody has looked */
    char name[];
};

/* The key of a lock that others hold is read this often, even if no change of it is delivered. */
#define POLL_MS 30000u

/* Attempts at once after the holder has left between a write and a read. */
#define TRIES_AT_ONCE 3u

static void lock_try(struct lock_wait *wait);
static bool run_trying(struct job *job);

/* --- The line -------------------------------------------------------------------------------------- */

static struct lock *lock_find(struct lease_bucket *in, const char *name)
{
    struct lock *lock = NULL;

    if (in->locks != NULL)
        HASH_FIND_STR(in->locks, name, lock);
    return lock;
}

static struct lock *lock_obtain(struct lease_bucket *in, const char *name)
{
    struct lock *lock = lock_find(in, name);
    size_t length = strlen(name);

    if (lock != NULL)
        return lock;
    lock = calloc(1, sizeof(*lock) + length + 1);
    if (lock == NULL)
        return NULL;
    lock->in = in;
    memcpy(lock->name, name, length + 1);
    HASH_ADD_KEYPTR(hh, in->locks, lock->name, length, lock);
    return lock;
}

/* The first in line tries in a job: a thousand waits may leave one after the other. */
static void lock_schedule(struct lock *lock)
{
    jobs_add_shared(lock->in->store->jobs, &lock->trying, run_trying);
}

static void lock_end_attempt(struct lock_wait *wait)
{
    if (wait->has_attempt)
        arena_destroy(&wait->attempt);
    wait->has_attempt = false;
}

/* The wait leaves the line; the next one tries. */
static void lock_leave_line(struct lock_wait *wait)
{
    struct lock *lock = wait->lock;
    bool was_first = lock->line == wait;

    timer_stop(wait->store->timers, &wait->timer);
    foreign_lease_cancel_wait(&wait->asking);
    lock_end_attempt(wait);
    wait->lock = NULL;
    DL_DELETE2(lock->line, wait, previous, next);
    wait->store->leases->counts.waiting--;
    lease_bucket_note_use(lock->in);
    if (lock->line == NULL) {
        jobs_remove(wait->store->jobs, &lock->trying);
        HASH_DEL(lock->in->locks, lock);
        free(lock);
    } else if (was_first) {
        lock_schedule(lock);
    }
}

static bool lock_is_of_session(const struct lock_wait *wait, const struct holding *holding)
{
    return holding->state == HOLDING_HELD && holding->session == wait->owner_of_call;
}

static void lock_finish(struct lock_wait *wait, struct holding *holding, const struct error *error)
{
    arena_end_task(&wait->task);
    if (holding != NULL && !lock_is_of_session(wait, holding))
        wait->store->leases->counts.acquired++;
    lock_leave_line(wait);
    wait->done(wait->arg, holding, error);
}

static void lock_fail(struct lock_wait *wait, enum error_code code, const char *sentence)
{
    error_set(&wait->error, code, "%s", sentence);
    wait->error.outcome = ERROR_OUTCOME_NONE;
    lock_finish(wait, NULL, &wait->error);
}

/* --- Waiting for the holder ------------------------------------------------------------------------ */

static void lock_fail_locked(struct lock_wait *wait)
{
    if (wait->is_prolonged) {
        lock_fail(wait, ERROR_UNAVAILABLE,
                  "the last holder has left, but the lock's key is not deleted yet; try again");
        return;
    }
    const struct lock_wait *first = wait->lock->line;
    const struct holding *holding = holding_find(wait->lock->in, wait->name);
    if (first->has_failed && first->dead_revision == 0 && holding == NULL) {
        wait->error = first->error; /* the key could not be read: whether a client holds the lock is not known */
        wait->error.key = wait->name;
    } else {
        bool is_known = first->step == LOCK_LISTENING && !wait->lock->has_changed;
        lock_holder_borrow(wait, is_known ? first : wait, holding);
        lock_holder_set_error(wait);
    }
    lock_finish(wait, NULL, &wait->error);
}

static void lock_ask(struct lock_wait *wait);

/* Return how old a look at the key may be. */
static uint64_t lock_poll_ms(const struct lock_wait *wait)
{
    return lease_bucket_is_followed(wait->lock->in) ? POLL_MS : wait->store->conf->locks.lease_ttl_ms / 3;
}

static void on_lock_timer(struct timer *timer)
{
    struct lock_wait *wait = (struct lock_wait *)((char *)timer - offsetof(struct lock_wait, timer));
    bool is_over = uv_now(wait->store->loop) >= wait->until_ms;

    if (wait->step == LOCK_IN_LINE && !is_over) {
        timer_start(wait->store->timers, &wait->timer, wait->until_ms, on_lock_timer);
    } else if (is_over) {
        lock_fail_locked(wait);
    } else if (wait->dead_revision > 0 && uv_now(wait->store->loop) - wait->looked_ms < lock_poll_ms(wait)) {
        lock_ask(wait);
    } else {
        wait->dead_revision = 0; /* nobody has said that its lease is dead */
        lock_try(wait);
    }
}

/* Wait until the key changes, but not longer than ms. */
static void lock_listen(struct lock_wait *wait, uint64_t ms)
{
    uint64_t now_ms = uv_now(wait->store->loop);
    uint64_t poll_ms = lock_poll_ms(wait);

    if (wait->store->leases->is_draining) {
        lock_fail(wait, ERROR_UNAVAILABLE, "the daemon shuts down; acquire the lock again");
        return;
    }
    if (now_ms >= wait->until_ms || !wait->is_wanted(wait->arg)) {
        lock_fail_locked(wait);
        return;
    }
    if (ms > poll_ms)
        ms = poll_ms;
    lock_end_attempt(wait); /* it may listen for years */
    wait->step = LOCK_LISTENING;
    wait->has_listened = true;
    if (wait->lock->has_changed)
        lock_schedule(wait->lock);
    timer_start(wait->store->timers, &wait->timer, now_ms + ms < wait->until_ms ? now_ms + ms : wait->until_ms,
                on_lock_timer);
}

/* An attempt has failed in another way. It is made again if there is time, and if that may help. */
static void lock_pause(struct lock_wait *wait, const struct error *error)
{
    uint64_t now_ms = uv_now(wait->store->loop);
    bool is_over = now_ms >= wait->until_ms || wait->store->leases->is_draining || !wait->is_wanted(wait->arg);

    wait->failures++;
    wait->has_failed = true;
    wait->error = *error;
    wait->error.bucket = NULL;
    wait->error.key = wait->name;
    wait->error.outcome = ERROR_OUTCOME_NONE; /* a key that is stored nevertheless is deleted */
    if (!error->retryable || is_over) {
        lock_finish(wait, NULL, &wait->error);
        return;
    }
    lock_listen(wait, backoff_ms(wait->failures, PAUSE_MIN_MS, PAUSE_MAX_MS) + 1);
}

/* --- Who holds it? --------------------------------------------------------------------------------- */

/* Another client has the lock: if lock_await_deletion has prolonged the wait, it ends when that was asked for. */
static void lock_end_prolongation(struct lock_wait *wait)
{
    if (wait->is_prolonged)
        wait->until_ms = wait->asked_until_ms;
    wait->is_prolonged = false;
}

static void on_lock_asked(void *arg, bool is_dead, uint64_t expires_in_ms, const struct error *error)
{
    struct lock_wait *wait = arg;

    if (error != NULL) {
        lock_pause(wait, error);
    } else if (is_dead) {
        lock_try(wait);
    } else {
        wait->failures = 0;
        lock_end_prolongation(wait);
        lock_listen(wait, expires_in_ms + 1);
    }
}

static void lock_ask(struct lock_wait *wait)
{
    wait->step = LOCK_ASKING;
    timer_start(wait->store->timers, &wait->timer,
                wait->until_ms > wait->deadline_ms ? wait->until_ms : wait->deadline_ms, on_lock_timer);
    wait->asking.answered = on_lock_asked;
    wait->asking.arg = wait;
    foreign_lease_ask(wait->lock->in, wait->lease, &wait->asking);
}

static void lock_read(struct lock_wait *wait);

/*
 * This daemon is releasing the lock, or finds out whether it is there. A wait of 0 waits for that too, for the time of
 * a call.
 */
static void lock_await_deletion(struct lock_wait *wait)
{
    if (!wait->is_prolonged) {
        wait->asked_until_ms = wait->until_ms;
        if (wait->until_ms < wait->deadline_ms)
            wait->until_ms = wait->deadline_ms;
    }
    wait->is_prolonged = true;
    lock_listen(wait, UINT64_MAX);
}

/* Return whether the holding belongs to the wait's owner. */
static bool lock_is_owners(const struct lock_wait *wait, const struct holding *holding)
{
    return holding_can_be_attached(holding) && wait->owner != NULL && holding->owner[0] != '\0' &&
           strcmp(holding->owner, wait->owner) == 0 && lease_valid_for_ms(holding->lease) > 0;
}

/* If the owner of a holding waits behind others for its own lock, let it try first. Return whether it does. */
static bool lock_prefer_owner(struct lock_wait *first, const struct holding *holding)
{
    struct lock *lock = first->lock;
    struct lock_wait *wait;
    bool can_have_owner = holding_can_be_attached(holding) && lease_valid_for_ms(holding->lease) > 0;

    if (holding->owner[0] == '\0' || !can_have_owner || holding->revision == lock->searched_revision)
        return false;
    DL_FOREACH2(lock->line, wait, next)
    {
        if (wait != first && wait->step == LOCK_IN_LINE && lock_is_owners(wait, holding)) {
            DL_DELETE2(lock->line, wait, previous, next);
            DL_PREPEND2(lock->line, wait, previous, next);
            lock_schedule(lock);
            return true;
        }
    }
    lock->searched_revision = holding->revision; /* an owner that comes later need not wait: see lock_acquire */
    return false;
}

/* Return whether a session of this daemon holds the lock, or held it a moment ago; the wait goes on, or is over. */
static bool lock_is_held_here(struct lock_wait *wait)
{
    struct holding *holding = holding_find(wait->lock->in, wait->name);

    if (holding == NULL)
        return false;
    wait->has_failed = false;
    if (lock_is_owners(wait, holding) || lock_is_of_session(wait, holding)) {
        lock_finish(wait, holding, NULL);
    } else if (lock_prefer_owner(wait, holding)) {
        lock_listen(wait, UINT64_MAX);
    } else if (holding->state == HOLDING_ENDING) {
        lock_await_deletion(wait);
    } else if (!lock_holder_know(wait, holding)) {
        lock_read(wait); /* for its value */
    } else {
        lock_end_prolongation(wait);
        lock_listen(wait, UINT64_MAX);
    }
    return true;
}

static bool lock_is_here_in_state(const struct lock_wait *wait, enum holding_state state)
{
    const struct holding *holding = holding_find(wait->lock->in, wait->name);

    return holding != NULL && holding->state == state;
}

/* The key names a lease of this daemon, which has no holding of it. */
static void lock_meet_own(struct lock_wait *wait, struct lease *lease, const struct kv_entry *entry)
{
    const char *owner = lease_text_owner_of(entry);
    struct lease_bucket *in = wait->lock->in;
    bool is_valid = lease_valid_for_ms(lease) > 0 &&
                    !lease_file_has_deletion(in->store, in->name, lease->id, wait->name, entry->revision);
    bool is_owners = is_valid && owner != NULL && wait->owner != NULL && strcmp(owner, wait->owner) == 0;
    is_owners = is_owners && !held_write_is_in_progress(wait->lock->in, wait->name);
    struct holding *holding = is_owners ? holding_add(lease, HOLDING_LOCK, wait->name, entry->revision, owner) : NULL;

    if (holding != NULL) {
        holding->doubts = wait->lock->has_changed ? UINT64_MAX : wait->doubts; /* what was read is as old */
        if (holding->doubts != wait->lock->in->doubts)
            holding_line_check(holding);
        lock_finish(wait, holding, NULL);
        return;
    }
    /* The last run has left it, and it was not found yet; or the write of a session that has left came late. */
    if (!held_write_meet(lease, wait->name))
        holding_add_found(lease, entry, is_valid && owner != NULL);
    if (!lock_is_held_here(wait))
        lock_await_deletion(wait);
}

static void on_lock_read(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct lock_wait *wait = arg;

    if (error != NULL) {
        lock_pause(wait, error);
        return;
    }
    wait->dead_revision = 0;
    if (entry == NULL && wait->failures < TRIES_AT_ONCE) {
        wait->failures++;
        lock_try(wait);
        return;
    }
    if (entry == NULL) {
        struct error busy;
        error_set(&busy, ERROR_UNAVAILABLE, "the lock changed hands at each attempt to acquire it; try again");
        lock_pause(wait, &busy);
        return;
    }
    wait->has_read = true;
    wait->has_failed = false;
    lock_holder_note(wait, entry->value, entry->value_bytes);
    const char *id = lease_text_lease_of(entry);
    wait->is_ordinary = id == NULL;
    if (id == NULL) {
        lock_end_prolongation(wait);
        lock_listen(wait, UINT64_MAX); /* an ordinary key: only a client can delete it */
        return;
    }
    struct lease *own = lease_find(wait->lock->in, id);
    if (own != NULL && !own->is_foreign && !own->is_given_up) {
        if (!lock_is_held_here(wait))
            lock_meet_own(wait, own, entry);
        return;
    }
    wait->dead_revision = entry->revision;
    snprintf(wait->lease, sizeof(wait->lease), "%s", id);
    lock_end_prolongation(wait);
    lock_ask(wait);
}

/* False: out of memory. */
static bool lock_begin_attempt(struct lock_wait *wait)
{
    if (wait->has_attempt)
        return true;
    wait->has_attempt = arena_init(&wait->attempt, ATTEMPT_BYTES);
    wait->attempt.owner = wait->owner_of_call;
    wait->attempt.call_id = wait->call_id;
    return wait->has_attempt;
}

static void lock_read(struct lock_wait *wait)
{
    struct get *get = lock_begin_attempt(wait) ? arena_zalloc(&wait->attempt, sizeof(*get)) : NULL;

    if (get == NULL) {
        lock_fail(wait, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    get->bucket_name = wait->bucket_name;
    get->key = wait->name;
    get->consistency = READ_LEADER;
    get->deadline_ms = wait->deadline_ms;
    get->done = on_lock_read;
    get->arg = wait;
    wait->step = LOCK_READING;
    wait->looked_ms = uv_now(wait->store->loop);
    wait->doubts = wait->lock->in->doubts;
    wait->lock->has_changed = false;
    get_start(wait->store, &wait->attempt, get);
}

/* --- Trying ---------------------------------------------------------------------------------------- */

static void on_lock_written(void *arg, struct holding *holding, const struct error *error)
{
    struct lock_wait *wait = arg;

    if (error == NULL) {
        holding_note_value(holding, wait->value, wait->value_bytes);
        lock_finish(wait, holding, NULL);
    } else if (error->code == ERROR_ALREADY_EXISTS || error->code == ERROR_CONFLICT) {
        lock_read(wait);
    } else if (error->outcome == ERROR_OUTCOME_NONE && lock_is_here_in_state(wait, HOLDING_ENDING)) {
        lock_await_deletion(wait); /* the lease was lost while the key was written */
    } else {
        lock_pause(wait, error);
    }
}

/* Each attempt has the time of the call, however long the wait is; but the last one ends that long after the wait. */
static void lock_set_deadline(struct lock_wait *wait)
{
    uint64_t deadline_ms = uv_now(wait->store->loop) + wait->attempt_ms;
    uint64_t last_ms = (wait->is_prolonged ? wait->asked_until_ms : wait->until_ms) + wait->attempt_ms;

    if (deadline_ms > last_ms)
        deadline_ms = last_ms;
    if (deadline_ms > wait->deadline_ms)
        wait->deadline_ms = deadline_ms;
}

/* The key is absent, its last message is the marker that was seen, or it is still what a dead lease has left. */
static void lock_set_condition(struct lock_wait *wait, struct operation *operation)
{
    operation->condition = OPERATION_IF_ABSENT;
    if (wait->doubts != wait->lock->in->doubts) /* of another bucket, it may be */
        wait->dead_revision = wait->marker_revision = 0;
    if (wait->dead_revision > 0) {
        operation->condition = OPERATION_IF_AT_REVISION;
        operation->revision = wait->dead_revision;
    } else if (wait->marker_revision > 0) {
        operation->condition = OPERATION_IF_LAST;
        operation->revision = wait->marker_revision;
    }
    wait->marker_revision = 0;
}

/* Make an attempt. The wait is the first in line. */
static void lock_try(struct lock_wait *wait)
{
    timer_stop(wait->store->timers, &wait->timer);
    lock_set_deadline(wait);
    if (!wait->is_wanted(wait->arg)) { /* and nobody may hold the lock */
        lock_fail(wait, ERROR_UNAVAILABLE, "the call no longer waits for the lock; acquire the lock again");
        return;
    }
    if (wait->store->leases->is_draining) {
        lock_fail(wait, ERROR_UNAVAILABLE, "the daemon shuts down; acquire the lock again");
        return;
    }
    if (!lock_is_here_in_state(wait, HOLDING_LOST) && lock_is_held_here(wait)) /* if lost, only the key can tell */
        return;
    struct held_write *held = lock_begin_attempt(wait) ? arena_zalloc(&wait->attempt, sizeof(*held)) : NULL;
    if (held == NULL) {
        lock_fail(wait, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    held->in = wait->lock->in;
    held->kind = HOLDING_LOCK;
    held->owner = wait->owner;
    held->operation.key = wait->name;
    held->operation.kind = KV_PUT;
    lock_set_condition(wait, &held->operation);
    held->operation.value = wait->value;
    held->operation.value_bytes = wait->value_bytes;
    held->deadline_ms = wait->deadline_ms;
    held->done = on_lock_written;
    held->arg = wait;
    wait->step = LOCK_WRITING;
    held_write_start(&wait->attempt, held);
}

static bool lock_may_try(const struct lock_wait *wait)
{
    return wait->step == LOCK_LISTENING || wait->step == LOCK_IN_LINE;
}

static bool run_trying(struct job *job)
{
    struct lock *lock = (struct lock *)((char *)job - offsetof(struct lock, trying));
    struct lock_wait *wait = lock->line;

    if (!lock_may_try(wait))
        return false;
    wait->dead_revision = 0;
    wait->marker_revision = lock->marker_revision;
    wait->doubts = lock->marker_doubts;
    lock->marker_revision = 0;
    lock->has_changed = false;
    lock_try(wait); /* the lock may be gone; if the wait has left the line, the next one is scheduled */
    return false;
}

void lock_wake(struct lease_bucket *in, const char *name, uint64_t marker_revision)
{
    struct lock *lock = lock_find(in, name);

    if (lock == NULL)
        return;
    if (marker_revision > lock->marker_revision || lock->marker_doubts != in->doubts)
        lock->marker_revision = marker_revision;
    lock->marker_doubts = in->doubts;
    lock->has_changed = true; /* a reading in progress may not know it */
    if (lock->line->step == LOCK_LISTENING)
        lock_schedule(lock);
}

void lock_try_all(struct lease_bucket *in)
{
    struct lock *lock, *next;

    HASH_ITER(hh, in->locks, lock, next)
    {
        lock_schedule(lock);
    }
}

/* --- Life ------------------------------------------------------------------------------------------ */

/* What an attempt has sent is a task of its arena, which says whether it can be cancelled. */
static bool lock_is_unsent(const struct arena_task *task)
{
    const struct lock_wait *wait = ARENA_TASK_OWNER(task, struct lock_wait, task);

    return !wait->has_attempt || wait->attempt.tasks == NULL || arena_is_unsent(&wait->attempt);
}

static void lock_cancel(struct arena_task *task)
{
    lock_leave_line(ARENA_TASK_OWNER(task, struct lock_wait, task));
}

void lock_acquire(struct store *store, struct arena *arena, struct lock_wait *wait)
{
    struct lease_bucket *in = lease_bucket_obtain(store, wait->bucket_name);

    wait->store = store;
    wait->arena = arena;
    wait->owner_of_call = arena->owner;
    wait->call_id = arena->call_id;
    wait->lock = in != NULL ? lock_obtain(in, wait->name) : NULL;
    if (wait->lock == NULL) {
        error_set(&wait->error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        wait->done(wait->arg, NULL, &wait->error);
        return;
    }
    arena_begin_task(arena, &wait->task, lock_cancel);
    wait->task.is_unsent = lock_is_unsent;
    const struct holding *holding = holding_find(in, wait->name);
    if (holding != NULL && lock_is_owners(wait, holding)) /* it need not wait for itself */
        DL_PREPEND2(wait->lock->line, wait, previous, next);
    else
        DL_APPEND2(wait->lock->line, wait, previous, next);
    if (wait->owner != NULL)
        wait->lock->searched_revision = 0; /* this owner may be the holder's again */
    store->leases->counts.waiting++;
    wait->step = LOCK_IN_LINE;
    if (wait->lock->line == wait)
        lock_try(wait);
    else if (uv_now(store->loop) >= wait->until_ms)
        lock_fail_locked(wait);
    else
        timer_start(store->timers, &wait->timer, wait->until_ms, on_lock_timer);
}
