/*
 * clock: a clock for deadlines, and pauses that grow between attempts.
 *
 * Used by every module that waits. The clock is monotonic: setting the system's time does not move it.
 */
#ifndef CLIENT_CLOCK_H
#define CLIENT_CLOCK_H

#include <stdint.h>

/* Return the present moment in milliseconds. */
int64_t clock_now_ms(void);

/* The same of a clock that also counts the time while the machine is suspended: CLOCK_BOOTTIME. For locks. */
int64_t clock_boot_ms(void);

/* The clock of clock_now_ms, CLOCK_MONOTONIC, in microseconds. */
uint64_t clock_now_us(void);

/* Return the moment after the given number of seconds. INT64_MAX (never) if it is negative or too large. */
int64_t clock_moment_after(double seconds);

/* Return a pseudo-random number from 0 to bound - 1, good enough to spread attempts in time. *state must not be 0. */
uint32_t clock_random_below(uint32_t *state, uint32_t bound);

/*
 * Return the next pause of a growing series: *pause_ms, the last bound, doubles from 50 ms to 2 s; 0 begins the series.
 * Half of the pause is random, so that many clients of a restarted daemon do not return in the same millisecond.
 */
uint32_t clock_grow_pause(uint32_t *state, unsigned *pause_ms);

#endif
