/*
 * attack_runs: what some attacks do, apart from their list in attack.c.
 */
#ifndef SUPPORT_ATTACK_RUNS_H
#define SUPPORT_ATTACK_RUNS_H

#include "tests/support/attack.h"

/* attack_buckets.c */
void attack_run_entries(struct attack *attack);
void attack_run_deletions(struct attack *attack);
void attack_run_long_metadata(struct attack *attack);

/* attack_locks.c */
void attack_run_lock_churn(struct attack *attack);
void attack_run_lock_waiters(struct attack *attack);
void attack_run_leaving_waiters(struct attack *attack);

/* attack_connections.c */
void attack_run_connections(struct attack *attack);
void attack_run_wrong_logins(struct attack *attack);
void attack_run_half_open(struct attack *attack);
const char *attack_why_no_half_open(void);

#endif
