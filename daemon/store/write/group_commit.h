/*
 * group: group commit. Writes that wait at the same time leave as one atomic batch.
 *
 * Used by write, one group per bucket. If each ack takes an fsync, one for all makes the difference; otherwise the
 * fixed cost of a batch would only slow things down. The rule of buckets.group_commit: auto, in embedded mode with
 * sync_interval: always: 16 or more waiting writes leave as one batch, one batch at a time per bucket, and fewer go
 * singly. Writes of one key keep their order.
 */
#ifndef DAEMON_STORE_GROUP_H
#define DAEMON_STORE_GROUP_H

#include "daemon/store/bucket/bucket.h"
#include "daemon/store/write/write.h"

/* A group for the writes of one bucket; NULL when memory ran out. Handles of the same bucket share it. */
struct group *group_new(struct store *store);
struct group *group_retain(struct group *group);
void group_release(struct group *group);

/*
 * The limits of the bucket's single writes and atomic batches in flight. Limits are per bucket: a bucket without a
 * leader must not use up those of other buckets.
 */
struct request_limit *group_writes_limit(struct group *group);
struct request_limit *group_batches_limit(struct group *group);

/* Sends the write, now or in company soon: write_send_alone or write_finish is called. */
void group_submit(struct write *write);

/* A write that was sent alone is over. */
void group_write_ended(struct write *write);

/* A write that was submitted is cancelled: nobody is called back. */
void group_cancel(struct write *write);

/* Of the store: before the first group and after the last write. */
void group_init_all(struct store *store);
void group_close_all(struct store *store);

/* At the end of each turn: sends what was gathered. */
void group_flush_all(struct store *store);

#endif
