/*
 * removed: the buckets that this daemon deleted recently.
 *
 * Used by admin. If a bucket is recreated just after it was deleted, nats-server may give it messages of the deleted
 * one.
 */
#ifndef DAEMON_STORE_REMOVED_H
#define DAEMON_STORE_REMOVED_H

#include <stdbool.h>
#include <stdint.h>

struct removed_bucket;

/* Remember that a bucket was deleted, at a time of the loop. Without memory for that, it is not remembered. */
void removed_note(struct removed_bucket **all, const char *bucket, uint64_t now_ms);

/* Return whether the bucket was deleted within the last minute. */
bool removed_is_recent(const struct removed_bucket *all, const char *bucket, uint64_t now_ms);

void removed_forget_all(struct removed_bucket **all);

#endif
