/*
 * timers: many deadlines, cheap to set and to stop.
 *
 * Used for calls, requests and sessions, whose deadlines are nearly always stopped before they come. A hashed timing
 * wheel (Varghese and Lauck, 1987) under one libuv timer, which wakes the loop for the next deadline. Starting and
 * stopping are a few stores. Deadlines are rounded up to TIMERS_TICK_MS. Those of one tick share a wake-up.
 */
#ifndef DAEMON_TIMERS_H
#define DAEMON_TIMERS_H

#include "daemon/base/jobs.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define TIMERS_TICK_MS 8u
#define TIMERS_SLOTS   256u

/* One deadline. The owner embeds it, zeroed; it must be stopped before its memory goes. */
struct timer {
    struct timer *next;
    struct timer **previous_link; /* what points to this timer; NULL when it is not set */
    uint64_t expires_ms;          /* loop time, uv_now() */
    void (*expired)(struct timer *timer);
};

struct timers {
    uv_timer_t tick;
    struct jobs *jobs;
    struct job expiring; /* when many deadlines come together */
    struct timer *due;   /* that have come and are not called yet */
    uint64_t wake_ms;    /* loop time at which the tick expires next */
    uint64_t done_tick;  /* every timer up to this tick has been looked at */
    unsigned count;
    struct timer *slots[TIMERS_SLOTS];
    uint64_t earliest_ms[TIMERS_SLOTS]; /* no timer of the slot expires earlier; may be too early after a stop */
};

void timers_init(struct timers *timers, uv_loop_t *loop, struct jobs *jobs);

/* Close the libuv handle: timers that are still set never expire. Free the memory after the loop has run once more. */
void timers_close(struct timers *timers);

/*
 * Set the timer to call expired once, at expires_ms or up to TIMERS_TICK_MS later, never from within this function. A
 * timer that is set is moved. If more deadlines come together than fit into a slice, the others follow in later turns.
 */
void timer_start(struct timers *timers, struct timer *timer, uint64_t expires_ms, void (*expired)(struct timer *timer));

/* Call expired of every timer that is set, when the daemon ends. Timers that are set meanwhile may be included. */
void timers_expire_all(struct timers *timers);

/* Stop the timer. Does nothing when the timer is not set. */
void timer_stop(struct timers *timers, struct timer *timer);

static inline bool timer_is_set(const struct timer *timer)
{
    return timer->previous_link != NULL;
}

#endif
