/*
 * copy_wait: waits a moment until a bucket's local copy has the markers that a compaction may remove.
 *
 * Used by compact. The feed could not deliver a marker to the copy after its removal.
 */
#ifndef DAEMON_STORE_COMPACT_COPY_WAIT_H
#define DAEMON_STORE_COMPACT_COPY_WAIT_H

#include "daemon/store/bucket/bucket.h"
#include "daemon/store/follow/local_copy.h"

/* The owner embeds it, zeroed. */
struct compact_copy_wait {
    /* Set by the owner; borrowed. */
    struct store *store;
    const struct bucket *bucket;
    uint64_t deadline_ms;
    /* The local copy has all messages up to last, which is at most the sequence that was asked for. Called once. */
    void (*done)(void *arg, uint64_t last);
    void *arg;

    /* private */
    uint64_t last;
    struct local_copy_wait wait;
};

/* Wait for the messages up to last. done may be called from within, as it is if there is no copy to wait for. */
void compact_copy_wait_start(struct compact_copy_wait *wait, uint64_t last);

/* done is not called. Does nothing if it was. */
void compact_copy_wait_cancel(struct compact_copy_wait *wait);

#endif
