/*
 * turn: the processor time that a turn of the daemon's loop may take on this machine.
 *
 * On a virtual machine without the processor's page tables, the first use of a page costs 10 to 20 us instead of 0.2 to
 * 0.7, and a turn that copies a message of a megabyte is as much slower. So the limit has two parts: the time for
 * what the turn computes, and the time that page faults take, which is measured here.
 */
#ifndef SUPPORT_TURN_H
#define SUPPORT_TURN_H

#include "tests/support/text.h"

/* The time for what a turn computes, in ms: a sanitized daemon is some five times slower. */
#ifdef __SANITIZE_ADDRESS__
#define TURN_MS 100
#else
#define TURN_MS 20
#endif

/* Return a section "log" that sets log.slow_turn to compute_ms and the time of page faults. */
const char *turn_log_section(unsigned compute_ms);

#endif
