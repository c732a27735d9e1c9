/*
 * lease_scan: reads a bucket for the keys that name a lease.
 *
 * Used by lease, for a lease that is dead, and for one of the daemon's last run: the daemon does not know their keys.
 * Only headers are read. Each key becomes a holding: it is deleted, or waits for its owner.
 */
#ifndef DAEMON_STORE_LEASE_SCAN_H
#define DAEMON_STORE_LEASE_SCAN_H

struct lease;

/* Start it. lease->scan says when it is over; after a failure it is wanted again. */
void lease_scan_start(struct lease *lease);

/* Does nothing if none is running. */
void lease_scan_stop(struct lease *lease);

#endif
