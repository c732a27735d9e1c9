/*
 * group_commit: sends writes that wait at the same time as one atomic batch.
 *
 * Used by write; each bucket has one. If each ack takes an fsync, one fsync for many writes is much faster. Otherwise
 * the fixed cost of a batch would only slow the writes down. With buckets.group_commit: auto, in embedded mode with
 * sync_interval: always, 16 or more waiting writes are sent as one batch, and fewer are sent singly. A bucket has one
 * batch in flight. Users and sessions take turns: thousands of waiting writes of one do not delay the writes of others.
 * A session's writes of one key keep their order.
 */
#ifndef DAEMON_STORE_GROUP_COMMIT_H
#define DAEMON_STORE_GROUP_COMMIT_H

#include "daemon/base/metrics.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/write/write.h"

struct group_commit_stats {
    uint64_t batches; /* group commits */
    uint64_t grouped; /* writes in them */
    struct metrics_histogram sizes;
    uint64_t failed; /* batches whose writes were sent again one by one */
};

const struct group_commit_stats *group_commit_statistics(const struct store *store);

/* Return the group commit of one bucket; NULL if memory ran out. */
struct group_commit *group_commit_new(struct store *store);
struct group_commit *group_commit_retain(struct group_commit *group);
void group_commit_release(struct group_commit *group);

/*
 * Return the limits of the bucket's single writes and atomic batches in flight. A bucket has its own limits, so that
 * one without a leader does not use up those of others.
 */
struct request_limit *group_commit_writes_limit(struct group_commit *group);
struct request_limit *group_commit_batches_limit(struct group_commit *group);

/* Send the write, now or soon, singly or in a batch: write_send_singly or write_finish is called. */
void group_commit_submit(struct write *write);

/* A write that was sent singly has ended. */
void group_commit_write_ended(struct write *write);

/* Cancel a write that was submitted: nothing is called back. */
void group_commit_cancel(struct write *write);

/* For daemon.dump: the writes of one bucket. */
struct group_commit_info {
    const char *bucket;
    size_t waiting;  /* not sent yet */
    size_t single;   /* in flight, each sent alone */
    size_t in_batch; /* in flight, in one batch */
};

/* Call visit for each bucket that has writes. */
void group_commit_each(const struct store *store, void (*visit)(void *arg, const struct group_commit_info *info),
                       void *arg);

/* --- For the facade -------------------------------------------------------------------------------- */

/* Return 0, or -1 if memory ran out. */
int group_commit_init_all(struct store *store);

/* Close the timer, after the last write; the loop still runs. */
void group_commit_close_all(struct store *store);

/* Free what all groups share, after the loop has ended. */
void group_commit_free_all(struct store *store);

/* Send what was gathered, at the end of each turn. */
void group_commit_flush_all(struct store *store);

#endif
