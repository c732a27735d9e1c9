/*
 * doors: the simulated sides of clock, chance and log.
 *
 * Each host has clocks of its own. They run a little faster or slower than the world's time. While the machine is
 * suspended, CLOCK_MONOTONIC stands still, and the others go on.
 */
#ifndef SIM_DOORS_H
#define SIM_DOORS_H

#include <stdint.h>

struct clocks {
    int64_t boot_ms, epoch_ns;   /* by which CLOCK_BOOTTIME and the date differ from the server's */
    int64_t rate_ppm;            /* by which they are faster, in millionths */
    uint64_t suspended_ns;       /* for how long the machine was suspended, or will have been */
    uint64_t suspended_until_ns; /* world time, as are the two above */
};

/* From now on, code of a host runs that has these clocks, borrowed. NULL: of none. */
void doors_set_clocks(const struct clocks *clocks);

/* CLOCK_MONOTONIC, in nanoseconds. */
uint64_t clocks_monotonic_ns(const struct clocks *clocks);

/* Return the world time at which CLOCK_MONOTONIC is monotonic_ns, if the machine is not suspended again before. */
uint64_t clocks_world_ns(const struct clocks *clocks, uint64_t monotonic_ns);

/* Return how long an interval of these clocks takes in the world. */
uint64_t clocks_world_interval_ns(const struct clocks *clocks, uint64_t ns);

/* CLOCK_MONOTONIC of the host whose code runs. */
uint64_t doors_monotonic_ns(void);

#endif
