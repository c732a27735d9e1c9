/*
 * chance: random numbers.
 *
 * Every room that is simulated gets its random numbers here, so that a simulation can repeat them.
 */
#ifndef DAEMON_CHANCE_H
#define DAEMON_CHANCE_H

#include <stdint.h>

/*
 * Return a random number, without blocking. Others cannot guess it, unless the kernel's pool is not ready yet, early at
 * boot: then it is made of the clock and the pid. Not for passwords.
 */
uint64_t chance_number(void);

#endif
