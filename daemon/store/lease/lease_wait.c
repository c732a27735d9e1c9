#include "daemon/store/lease/lease_wait.h"

#include <stddef.h>
#include <utlist.h>

/* Return the lease that it was to get, which the caller releases; NULL: none. */
static struct lease *lease_remove_wait(struct lease_wait *wait)
{
    struct lease_bucket *in = wait->in;

    timer_stop(in->store->timers, &wait->timer);
    wait->in = NULL;
    if (!wait->is_answered) {
        DL_DELETE2(wait->lease->waits, wait, previous, next);
        return NULL;
    }
    DL_DELETE2(in->answered, wait, previous, next);
    return wait->lease;
}

void lease_cancel_wait(struct lease_wait *wait)
{
    struct lease *lease = wait->in != NULL ? lease_remove_wait(wait) : NULL;

    if (lease != NULL)
        lease_release(lease);
}

static void on_lease_wait_over(struct timer *timer)
{
    struct lease_wait *wait = (struct lease_wait *)((char *)timer - offsetof(struct lease_wait, timer));
    struct error error;

    error_set(&error, ERROR_DEADLINE_EXCEEDED, "timed out while the daemon's lease in the bucket was being written");
    lease_cancel_wait(wait);
    wait->ready(wait->arg, NULL, &error);
}

/* Thousands can have waited, while NATS was away. */
static bool lease_run_answering(struct job *job)
{
    struct lease_bucket *in = (struct lease_bucket *)((char *)job - offsetof(struct lease_bucket, answering));

    while (in->answered != NULL) {
        struct lease_wait *wait = in->answered;
        struct lease *lease = lease_remove_wait(wait);
        struct error error = in->open_error; /* a callback may open another lease, which fails otherwise */
        bool is_alive = lease != NULL && lease->state == LEASE_ALIVE;
        if (lease != NULL && !is_alive)
            error_set(&error, ERROR_UNAVAILABLE, "the lease of this daemon was lost; try again");
        wait->ready(wait->arg, is_alive ? lease : NULL, is_alive ? NULL : &error);
        if (lease != NULL)
            lease_release(lease);
        if (in->answered != NULL && jobs_slice_is_over(in->store->jobs))
            return true;
    }
    return false;
}

void lease_answer_waits(struct lease *lease, const struct error *error)
{
    struct lease_bucket *in = lease->in;
    struct lease_wait *wait;

    if (error != NULL)
        in->open_error = *error;
    DL_FOREACH2(lease->waits, wait, next)
    {
        wait->is_answered = true;
        wait->lease = error == NULL ? lease : NULL;
        if (error == NULL)
            lease_retain(lease);
    }
    DL_CONCAT2(in->answered, lease->waits, previous, next);
    lease->waits = NULL;
    if (lease_run_answering(&in->answering))
        jobs_add_shared(in->store->jobs, &in->answering, lease_run_answering);
}

void lease_add_wait(struct lease *lease, struct lease_wait *wait, uint64_t deadline_ms)
{
    wait->in = lease->in;
    wait->lease = lease;
    wait->is_answered = false;
    DL_APPEND2(lease->waits, wait, previous, next);
    timer_start(lease->in->store->timers, &wait->timer, deadline_ms, on_lease_wait_over);
}

void lease_move_waits(struct lease *from, struct lease *to)
{
    struct lease_wait *wait;

    to->waits = from->waits;
    from->waits = NULL;
    DL_FOREACH2(to->waits, wait, next)
    {
        wait->lease = to;
    }
}
