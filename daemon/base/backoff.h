/*
 * backoff: how long to wait before trying again.
 *
 * Exponential with full jitter: a random time between nothing and a bound that
 * doubles with each try. Full jitter spreads the tries of many clients that failed
 * at the same moment best (Brooker, "Exponential Backoff And Jitter", 2015).
 */
#ifndef DAEMON_BACKOFF_H
#define DAEMON_BACKOFF_H

#include <stdint.h>

/*
 * The wait in ms before try number attempt + 1, attempt counting from 1: between 0
 * and min_ms doubled attempt - 1 times, but never over max_ms.
 */
uint64_t backoff_ms(unsigned attempt, uint64_t min_ms, uint64_t max_ms);

/* The upper bound that backoff_ms draws below. */
uint64_t backoff_bound_ms(unsigned attempt, uint64_t min_ms, uint64_t max_ms);

#endif
