/*
 * doors: the simulated sides of clock, chance and log.
 *
 * Each host has clocks of its own: only the time since the world began is the same on all.
 */
#ifndef SIM_DOORS_H
#define SIM_DOORS_H

#include <stdint.h>

/* From now on, code of a host runs whose clocks differ from the server's by this. */
void doors_set_clocks(int64_t boot_ms, int64_t epoch_ns);

#endif
