/*
 * later: what a server does by itself after some seconds: messages expire, and ids are forgotten.
 *
 * It has streams of its own. Nothing is asked of them between the begin and the end, as the two servers' times differ.
 */
#ifndef SIM_LATER_H
#define SIM_LATER_H

#include "tests/sim/differential/requests.h"

/* Write what expires. */
void later_begin(request_fn *ask);

/* Return for how long at least the simulated server must go on until the end. */
uint64_t later_wait_ns(void);

/* Wait until everything has expired in the real server, too, and look at what is there. */
void later_end(request_fn *ask, request_fn *await);

#endif
