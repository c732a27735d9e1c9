/*
 * lease_settings: looks whether a bucket may have locks and ephemeral keys.
 *
 * Used by lease. The values of a bucket with a ttl expire, and with them the keys of locks, which nobody would notice.
 * This daemon knows what it has changed. Another one may give the bucket a ttl, too; so a lease asks for the bucket's
 * settings after each renewal.
 */
#ifndef DAEMON_STORE_LEASE_SETTINGS_H
#define DAEMON_STORE_LEASE_SETTINGS_H

#include "daemon/store/lease/lease.h"

/* Return false if the bucket's values expire: *error says so. */
bool lease_settings_check(const struct bucket *bucket, struct error *error);

/* Ask for the settings of a bucket that others may change. If it has a ttl now, the lease is in doubt. */
void lease_settings_look(struct lease *lease);

#endif
