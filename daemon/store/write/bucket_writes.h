/*
 * bucket_writes: what the writes of one bucket share.
 *
 * Used by write, batch, group_commit and inquiry. It is the attachment of a bucket: there is one for each bucket that
 * was looked up, until nothing uses it.
 */
#ifndef DAEMON_STORE_BUCKET_WRITES_H
#define DAEMON_STORE_BUCKET_WRITES_H

#include "daemon/store/bucket/bucket.h"

struct bucket_writes {
    struct group_commit *group; /* commits several writes as one batch */
    struct ledger *ledger;      /* of the keys in doubt */
};

static inline struct group_commit *bucket_writes_group(const struct bucket *bucket)
{
    return ((const struct bucket_writes *)bucket_attachment(bucket))->group;
}

static inline struct ledger *bucket_writes_ledger(const struct bucket *bucket)
{
    return ((const struct bucket_writes *)bucket_attachment(bucket))->ledger;
}

/* Attach it to each bucket that is looked up from now on. */
void bucket_writes_init(struct store *store);

#endif
