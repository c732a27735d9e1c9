#include "daemon/base/timers.h"

#include <stddef.h>
#include <string.h>

/* A sleep is no longer than this, so that no sum overflows. */
#define FAR_MS 60000u

static void unlink_timer(struct timer *timer)
{
    *timer->previous_link = timer->next;
    if (timer->next != NULL)
        timer->next->previous_link = timer->previous_link;
    timer->previous_link = NULL;
}

static void timer_insert(struct timer **head, struct timer *timer)
{
    timer->next = *head;
    timer->previous_link = head;
    if (*head != NULL)
        (*head)->previous_link = &timer->next;
    *head = timer;
}

/* Move the timers of one slot that are due, and find the earliest deadline of the others. */
static void collect_due(struct timers *timers, unsigned slot, uint64_t now_ms)
{
    uint64_t earliest_ms = UINT64_MAX;

    if (timers->earliest_ms[slot] > now_ms)
        return;
    for (struct timer *timer = timers->slots[slot], *next; timer != NULL; timer = next) {
        next = timer->next;
        if (timer->expires_ms <= now_ms) {
            unlink_timer(timer);
            timer_insert(&timers->due, timer);
        } else if (timer->expires_ms < earliest_ms) {
            earliest_ms = timer->expires_ms;
        }
    }
    timers->earliest_ms[slot] = earliest_ms;
}

/* Call the next timer that is due. The callback may start and stop any timer. */
static void expire_next(struct timers *timers)
{
    struct timer *timer = timers->due;

    unlink_timer(timer);
    timers->count--;
    timer->expired(timer);
}

static bool run_expiring(struct job *job)
{
    struct timers *timers = (struct timers *)((char *)job - offsetof(struct timers, expiring));

    while (timers->due != NULL) {
        expire_next(timers);
        if (timers->due != NULL && jobs_slice_is_over(timers->jobs))
            return true;
    }
    return false;
}

static void timers_on_tick(uv_timer_t *handle);

/*
 * Wake at the end of a tick, so that deadlines of one tick share a wake-up. A wake-up that is set is never put off: a
 * deadline in the past, set again in each turn, would keep all others from expiring.
 */
static void wake_by(struct timers *timers, uint64_t at_ms)
{
    uint64_t now_ms = uv_now(timers->tick.loop), far_ms = now_ms + FAR_MS;
    uint64_t wake_ms = ((at_ms < far_ms ? at_ms : far_ms) + TIMERS_TICK_MS - 1) / TIMERS_TICK_MS * TIMERS_TICK_MS;

    if (wake_ms < now_ms + TIMERS_TICK_MS)
        wake_ms = now_ms + TIMERS_TICK_MS;
    if (uv_is_active((uv_handle_t *)&timers->tick) && timers->wake_ms <= wake_ms)
        return;
    timers->wake_ms = wake_ms;
    uv_timer_start(&timers->tick, timers_on_tick, wake_ms - now_ms, 0);
}

/*
 * The loop sleeps until the next deadline, however many there are. (A loop that wakes every tick also makes each of its
 * waits dearer: the kernel must set its clock for it. Measured: 10 % of a cached get.)
 */
static void set_next_wake(struct timers *timers)
{
    uint64_t next_ms = UINT64_MAX;

    if (timers->count == 0)
        return;
    for (unsigned slot = 0; slot < TIMERS_SLOTS; slot++) {
        if (timers->earliest_ms[slot] < next_ms)
            next_ms = timers->earliest_ms[slot];
    }
    wake_by(timers, next_ms);
}

static void timers_on_tick(uv_timer_t *handle)
{
    struct timers *timers = handle->data;
    uint64_t now_ms = uv_now(handle->loop);
    uint64_t tick = now_ms / TIMERS_TICK_MS;

    /* After a long turn of the loop, one round of the wheel looks at everything. */
    if (tick - timers->done_tick > TIMERS_SLOTS)
        timers->done_tick = tick - TIMERS_SLOTS;
    while (timers->done_tick < tick) {
        timers->done_tick++;
        collect_due(timers, (unsigned)(timers->done_tick % TIMERS_SLOTS), now_ms);
    }
    jobs_begin_slice(timers->jobs);
    if (timers->due != NULL && run_expiring(&timers->expiring))
        jobs_add_shared(timers->jobs, &timers->expiring, run_expiring);
    set_next_wake(timers);
}

void timers_init(struct timers *timers, uv_loop_t *loop, struct jobs *jobs)
{
    memset(timers, 0, sizeof(*timers));
    timers->jobs = jobs;
    for (unsigned slot = 0; slot < TIMERS_SLOTS; slot++)
        timers->earliest_ms[slot] = UINT64_MAX;
    uv_timer_init(loop, &timers->tick);
    timers->tick.data = timers;
}

void timers_close(struct timers *timers)
{
    jobs_remove(timers->jobs, &timers->expiring);
    uv_close((uv_handle_t *)&timers->tick, NULL);
}

void timer_start(struct timers *timers, struct timer *timer, uint64_t expires_ms, void (*expired)(struct timer *timer))
{
    uint64_t now_tick = uv_now(timers->tick.loop) / TIMERS_TICK_MS;

    if (timer->previous_link != NULL)
        timer_stop(timers, timer);
    if (!uv_is_active((uv_handle_t *)&timers->tick) && timers->count == 0)
        timers->done_tick = now_tick;
    wake_by(timers, expires_ms);

    /* The slot of the first tick at which the timer is due, and not one that the wheel has passed already. */
    uint64_t tick = (expires_ms + TIMERS_TICK_MS - 1) / TIMERS_TICK_MS;
    if (tick <= timers->done_tick)
        tick = timers->done_tick + 1;
    timer->expires_ms = expires_ms;
    timer->expired = expired;
    timer_insert(&timers->slots[tick % TIMERS_SLOTS], timer);
    if (expires_ms < timers->earliest_ms[tick % TIMERS_SLOTS])
        timers->earliest_ms[tick % TIMERS_SLOTS] = expires_ms;
    timers->count++;
}

void timers_expire_all(struct timers *timers)
{
    for (unsigned slot = 0; slot < TIMERS_SLOTS; slot++)
        collect_due(timers, slot, UINT64_MAX);
    while (timers->due != NULL)
        expire_next(timers);
}

void timer_stop(struct timers *timers, struct timer *timer)
{
    if (timer->previous_link == NULL)
        return;
    unlink_timer(timer);
    timers->count--;
}
