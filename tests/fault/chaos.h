/*
 * chaos: one fault after the other while calls go on, as fast as the daemon gets over them.
 */
#ifndef FAULT_CHAOS_H
#define FAULT_CHAOS_H

#include "tests/fault/deployment.h"

#define CHAOS_KINDS 9u

/*
 * So many times, or CHAOS_ROUNDS of the environment times as often, each kind of fault: spoils something, and waits
 * until *progress, which the callers raise with each success, shows that all is well again.
 */
void chaos_run(struct deployment *deployment, const char *bucket, const unsigned *progress, unsigned rounds);

#endif
