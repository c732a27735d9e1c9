/*
 * run: one simulated run: its world, which its seed chooses, and its judgement.
 */
#ifndef SIM_RUN_H
#define SIM_RUN_H

#include <stdbool.h>
#include <stdint.h>

/* What runs had, in sum. */
struct run_counts {
    uint64_t seeds, calls, unknown, locks, events;
    uint64_t simulated_ns;
};

/* Run a seed, and add to counts. Ends the process if a judge finds a fault. Return the hash of the trace. */
uint64_t run_seed(uint64_t seed, bool is_printed, struct run_counts *counts);

#endif
