/*
 * lease_scan: reads the last messages of a bucket's keys, once.
 *
 * Used by lease_end and lease, to find the keys that name a lease that is dead, or one of the daemon's last run; and by
 * lease_bucket, to find the leases of other daemons. At most a few scans read at a time.
 */
#ifndef DAEMON_STORE_LEASE_SCAN_H
#define DAEMON_STORE_LEASE_SCAN_H

#include "daemon/nats/consumer.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/lease/lease_bucket.h"

/* The owner embeds it, zeroed. */
struct lease_scan {
    struct lease_bucket *in;
    const char *filter; /* of keys */
    bool with_values;
    /* An entry was read. An entry may come twice. */
    void (*found)(void *arg, const struct kv_entry *entry);
    /* Everything was read, or *error says why not. Called once. */
    void (*done)(void *arg, const struct error *error);
    void *arg;

    /* private */
    bool is_running;
    struct bucket_wait wait;
    struct bucket *bucket; /* NULL: it is not open yet */
    struct consumer_reading reading;
    char *subject;
};

/* Start a scan, whose first members are set. done is not called from within. */
void lease_scan_start(struct lease_scan *scan);

/* Stop a scan, whose done is not called. Does nothing if it is not running. */
void lease_scan_stop(struct lease_scan *scan);

#endif
