/*
 * compact_schedule: removes the old delete markers of buckets that have a marker_ttl.
 *
 * Used by write and txn. A daemon that deletes keys of such a bucket compacts it now and then, until the last of these
 * markers is old enough: every marker_ttl, but at least once an hour.
 *
 * The markers have no TTL of their own (Nats-TTL). One that the server removes tells nobody up to which revision
 * deletions are missing, and brings back what it hid if the server is killed: see compact and remains.
 */
#ifndef DAEMON_STORE_COMPACT_SCHEDULE_H
#define DAEMON_STORE_COMPACT_SCHEDULE_H

#include "daemon/store/bucket.h"
#include "daemon/store/store.h"

/* A key of the bucket was deleted. Cheap. */
void compact_schedule_note_delete(struct store *store, const struct bucket *bucket);

/* No compaction goes on, and none begins any more. */
void compact_schedule_end_all(struct store *store);

#endif
