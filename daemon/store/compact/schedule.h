/*
 * schedule: starts the compactions of buckets that have a marker_ttl.
 *
 * Used by compact, as an observer. A daemon that deletes keys of such a bucket compacts it every marker_ttl, but at
 * least once per hour, until the last of these markers was old enough.
 *
 * Markers have no TTL of their own (Nats-TTL). If the server removed a marker by its TTL, the bucket would have
 * no record up to which revision deletions are missing. And if the server was killed then, the deleted value would
 * return: see compact and remains.
 */
#ifndef DAEMON_STORE_COMPACT_SCHEDULE_H
#define DAEMON_STORE_COMPACT_SCHEDULE_H

#include "daemon/store/bucket/bucket.h"
#include "daemon/store/context.h"

/*
 * Note that a bucket was looked up. Markers of keys that were deleted before the daemon's start have no schedule. So in
 * embedded mode the bucket's first use begins one, with two compactions: soon, and after a marker_ttl. Cheap.
 */
void compact_schedule_note_opened(struct store *store, const char *bucket, int64_t marker_ttl_s);

/* Note that a key of the bucket was deleted. marker_ttl_s: the bucket's; 0: it has none. Cheap. */
void compact_schedule_note_delete(struct store *store, const char *bucket, int64_t marker_ttl_s);

/* End the scheduled compactions, and begin no more: at the end of the daemon. */
void compact_schedule_end_all(struct store *store);

#endif
