/*
 * lease_end: ends leases: deletes the keys that name a lease, and then the lease's own key.
 *
 * Used by lease, for leases that are lost or no longer used, for those of other daemons that are dead, and for older
 * ones of the daemon's last run.
 */
#ifndef DAEMON_STORE_LEASE_END_H
#define DAEMON_STORE_LEASE_END_H

#include "daemon/store/lease/lease.h"

/* Begin to end the lease: no new key gets it. */
void lease_end_begin(struct lease *lease);

/* Notify the sessions that they have lost the lease's keys, and why, a slice at a time. The keys are then deleted. */
void lease_end_notify(struct lease *lease, const struct error *why);

/* Do the periodic work of a lease that ends. The call may free it. */
void lease_end_tick(struct lease *lease);

#endif
