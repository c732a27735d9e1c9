#include "daemon/store/follow/local_copy_wait.h"

#include "daemon/store/follow/local_copy.h"

#include <utlist.h>

/* A copy that is read with values of this size or less is loaded about as quickly as its keys alone are read. */
#define SMALL_VALUE_BYTES 1024u

/* Waits for one copy; further reads ask NATS. The list is searched from its end. */
#define WAITS_MAX 4096u

/* A read of several keys waits for a load if it reads at least MANY_KEYS, and one key in LARGE_PART of the bucket. */
#define MANY_KEYS  64u
#define LARGE_PART 4u

bool local_copy_has_reached(const struct local_copy *copy, uint64_t revision, enum local_copy_event event)
{
    uint64_t batch_from = copy->feed.position.batch.from;

    if (feed_position(&copy->feed) < revision)
        return false;
    return batch_from == 0 || (event == LOCAL_COPY_HAS_REVISION && batch_from > revision);
}

bool local_copy_may_wait(const struct local_copy *copy)
{
    return feed_is_live(&copy->feed) && copy->waits.count < WAITS_MAX;
}

bool local_copy_load_is_worth_waiting(const struct local_copy *copy, size_t keys)
{
    const struct feed_info *info = &copy->feed.info;
    bool is_begun = copy->state == LOCAL_COPY_OPENING || copy->feed.phase != FEED_STOPPED;
    bool is_loading = contents_have_values(&copy->contents) && copy->contents.state != CONTENTS_COMPLETE;

    bool is_cheap = keys == SIZE_MAX ? info->bytes <= info->subjects * SMALL_VALUE_BYTES
                                     : keys >= MANY_KEYS && keys >= info->subjects / LARGE_PART;

    return is_loading && is_begun && copy->waits.count < WAITS_MAX && is_cheap;
}

static void local_copy_wait_remove(struct local_copy_wait *wait)
{
    DL_DELETE2(wait->copy->waits.first, wait, previous, next);
    wait->copy->waits.count--;
    wait->copy = NULL;
    timer_stop(wait->store->timers, &wait->timer);
}

void local_copy_wait_cancel(struct local_copy_wait *wait)
{
    if (wait->copy != NULL)
        local_copy_wait_remove(wait);
    else if (wait->store != NULL)
        timer_stop(wait->store->timers, &wait->timer);
}

static void on_wait_timeout(struct timer *timer)
{
    struct local_copy_wait *wait = (struct local_copy_wait *)((char *)timer - offsetof(struct local_copy_wait, timer));

    if (wait->copy != NULL) {
        reconcile_request_check(&wait->copy->reconcile); /* the message may be gone */
        local_copy_wait_remove(wait);
    }
    wait->ready(wait->arg, false);
}

/* Most new waits have the highest revision. */
static void local_copy_wait_insert(struct local_copy_waits *waits, struct local_copy_wait *wait)
{
    struct local_copy_wait *before = waits->first != NULL ? waits->first->previous : NULL;

    while (before != NULL && before->revision > wait->revision)
        before = before == waits->first ? NULL : before->previous;
    if (before == NULL)
        DL_PREPEND2(waits->first, wait, previous, next);
    else
        DL_APPEND_ELEM2(waits->first, before, wait, previous, next);
    waits->count++;
}

void local_copy_wait_start(struct local_copy *copy, struct local_copy_wait *wait, enum local_copy_event event,
                           uint64_t revision, uint64_t until_ms)
{
    wait->store = copy->store;
    wait->copy = copy;
    wait->event = event;
    wait->revision = revision;
    local_copy_wait_insert(&copy->waits, wait);
    timer_start(copy->store->timers, &wait->timer, until_ms, on_wait_timeout);
}

static bool local_copy_wait_is_over(const struct local_copy *copy, const struct local_copy_wait *wait)
{
    if (wait->event == LOCAL_COPY_IS_LOADED)
        return copy->contents.state == CONTENTS_COMPLETE;
    if (wait->is_of_all && copy->min_revisions.skipped_count > 0)
        return false;
    return local_copy_has_reached(copy, wait->revision, wait->event);
}

/* Return the first wait whose event has come; NULL: there is none. */
static struct local_copy_wait *local_copy_find_woken(const struct local_copy *copy)
{
    struct local_copy_wait *wait = copy->waits.first;

    while (wait != NULL && wait->revision <= feed_position(&copy->feed)) {
        if (local_copy_wait_is_over(copy, wait))
            return wait;
        wait = wait->next;
    }
    return NULL;
}

static bool run_waking(struct job *job)
{
    struct local_copy *copy = (struct local_copy *)((char *)job - offsetof(struct local_copy, waits.waking));
    struct jobs *jobs = copy->store->jobs;
    struct local_copy_wait *wait;

    while ((wait = local_copy_find_woken(copy)) != NULL) {
        local_copy_wait_remove(wait);
        wait->ready(wait->arg, true);
        if (jobs_slice_is_over(jobs))
            return local_copy_find_woken(copy) != NULL;
    }
    return false;
}

void local_copy_wake_waits(struct local_copy *copy)
{
    struct local_copy_waits *waits = &copy->waits;

    if (waits->first != NULL && waits->first->revision <= feed_position(&copy->feed))
        jobs_add_shared(copy->store->jobs, &waits->waking, run_waking);
}

static void local_copy_wait_fail(struct local_copy_wait *wait)
{
    struct store *store = wait->copy->store;

    local_copy_wait_remove(wait);
    timer_start(store->timers, &wait->timer, uv_now(store->loop), on_wait_timeout);
}

void local_copy_fail_vain_waits(struct local_copy *copy)
{
    struct local_copy_wait *wait, *next;

    DL_FOREACH_SAFE2(copy->waits.first, wait, next, next)
    {
        if (wait->event == LOCAL_COPY_IS_LOADED && !local_copy_load_is_worth_waiting(copy, wait->keys))
            local_copy_wait_fail(wait);
    }
}

void local_copy_fail_waits(struct local_copy *copy)
{
    jobs_remove(copy->store->jobs, &copy->waits.waking);
    while (copy->waits.first != NULL)
        local_copy_wait_fail(copy->waits.first);
}
