/*
 * lease_end: ends leases: their keys are deleted, and then they.
 *
 * Used by lease, for leases that are lost or no longer used, for those of other daemons that are dead, and for older
 * ones of the daemon's last run.
 */
#ifndef DAEMON_STORE_LEASE_END_H
#define DAEMON_STORE_LEASE_END_H

#include "daemon/store/lease/lease.h"

/* Let the lease end: no new key gets it. */
void lease_end_begin(struct lease *lease);

/* Notify the sessions of all that the lease has, a slice at a time, why they have lost it. The keys are deleted. */
void lease_end_notify(struct lease *lease, const struct error *why);

/* Do the periodic work of a lease that ends. It may be gone afterwards. */
void lease_end_tick(struct lease *lease);

#endif
