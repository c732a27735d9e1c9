/*
 * attack_runs: what some attacks do, apart from their table in attack.c.
 */
#ifndef SUPPORT_ATTACK_RUNS_H
#define SUPPORT_ATTACK_RUNS_H

#include "tests/support/attack.h"

void attack_run_entries(struct attack *attack);
void attack_run_deletions(struct attack *attack);

#endif
