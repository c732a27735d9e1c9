/*
 * chaos: one fault after the other while calls go on, each as soon as the daemon has recovered from the last one.
 */
#ifndef FAULT_CHAOS_H
#define FAULT_CHAOS_H

#include "tests/fault/deployment.h"

#define CHAOS_KINDS 9u

/*
 * Cause each kind of fault so many times, or CHAOS_ROUNDS times as often (from the environment). After each fault wait
 * until calls succeed again: the callers add 1 to *progress with each success.
 */
void chaos_run(struct deployment *deployment, const char *bucket, const unsigned *progress, unsigned rounds);

#endif
