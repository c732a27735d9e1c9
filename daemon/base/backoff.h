/*
 * backoff: how long to wait before trying again.
 *
 * Used by requests and by reconnects. Exponential with full jitter: a random time between 0 and a bound that doubles
 * with each attempt. If many clients fail at the same moment, full jitter spreads their attempts best (Brooker,
 * "Exponential Backoff And Jitter", 2015).
 */
#ifndef DAEMON_BACKOFF_H
#define DAEMON_BACKOFF_H

#include <stdint.h>

/*
 * Return the ms to wait after this attempt, which counts from 1: between 0 and min_ms * 2^(attempt - 1), and at most
 * max_ms.
 */
uint64_t backoff_ms(unsigned attempt, uint64_t min_ms, uint64_t max_ms);

/* Return the upper bound of backoff_ms. */
uint64_t backoff_bound_ms(unsigned attempt, uint64_t min_ms, uint64_t max_ms);

#endif
