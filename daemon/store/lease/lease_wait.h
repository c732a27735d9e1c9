/*
 * lease_wait: those who wait until a lease is open.
 *
 * Used by lease. They get the lease, or an error, a slice of the loop at a time: while NATS was away, thousands may
 * have waited.
 */
#ifndef DAEMON_STORE_LEASE_WAIT_H
#define DAEMON_STORE_LEASE_WAIT_H

#include "daemon/store/lease/lease.h"

/* Wait until the lease is open, or until the deadline (loop time). ready and arg are set. */
void lease_add_wait(struct lease *lease, struct lease_wait *wait, uint64_t deadline_ms);

/* Let those who wait for one lease wait for the other, for which nobody waits. */
void lease_move_waits(struct lease *from, struct lease *to);

/* Give the lease to those who wait for it, or an error, which is copied. The lease may be freed after that. */
void lease_answer_waits(struct lease *lease, const struct error *error);

#endif
