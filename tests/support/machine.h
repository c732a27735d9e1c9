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

#include <stdint.h>
#include <sys/types.h>

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

/* What a process has had of the processors: how long its main thread ran, and how long it waited for one to be free. */
struct machine_share {
    uint64_t ran_ns, waited_ns;
};
struct machine_share machine_share_of(pid_t pid);

/* Return how many times slower the process was since then, because others had the processors: 1 or more. */
double machine_contention(pid_t pid, const struct machine_share *since);

/* Return a section "log" that sets log.slow_turn to compute_ms and the time of page faults. */
const char *machine_log_section(unsigned compute_ms);

#endif
