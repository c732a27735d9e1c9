/*
 * machine: how quick this machine is, for limits of time that must hold on every one.
 *
 * On a virtual machine without the processor's page tables, the first use of a page costs 10 to 20 us instead of 0.2 to
 * 0.7, and system calls are several times slower. So what a turn of the daemon's loop may take has two parts: the time
 * for what it computes, and the time of its page faults, which is measured here.
 */
#ifndef SUPPORT_MACHINE_H
#define SUPPORT_MACHINE_H

#include "tests/support/text.h"

/* The time for what a turn computes, in ms: a sanitized daemon is some five times slower. */
#ifdef __SANITIZE_ADDRESS__
#define TURN_MS 100
#else
#define TURN_MS 20
#endif

/*
 * Return how many times slower than on a quick machine the kernel serves this one: from 1 to MACHINE_SLOWNESS_MAX. For
 * limits of wall-clock time that contain the work of the nats-server.
 */
double machine_slowness(void);
#define MACHINE_SLOWNESS_MAX 4.0

/* Return a section "log" that sets log.slow_turn to compute_ms and the time of page faults. */
const char *machine_log_section(unsigned compute_ms);

#endif
