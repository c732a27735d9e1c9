/*
 * chance: random numbers.
 *
 * Every room gets its random numbers here, so that a simulation can repeat them.
 */
#ifndef DAEMON_CHANCE_H
#define DAEMON_CHANCE_H

#include <stdint.h>

/*
 * Return a number that others cannot guess. Early at boot, before the kernel's pool is ready, it is made of the clock
 * and the pid instead, and never blocks.
 */
uint64_t chance_number(void);

#endif
