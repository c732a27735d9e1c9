/*
 * removed: the buckets that this daemon deletes, or deleted recently.
 *
 * Used by admin. If a bucket is recreated just after it was deleted, nats-server may give it messages of the deleted
 * one. If it is recreated during the deletion, the server may remove the files of the new one, and then stores nothing
 * in it until it is restarted (2.15: its workers carry out both requests at the same time).
 */
#ifndef DAEMON_STORE_REMOVED_H
#define DAEMON_STORE_REMOVED_H

#include <stdbool.h>
#include <stdint.h>

struct removed_bucket;

/* A deletion is sent, or has ended. */
void removed_begin(struct removed_bucket **all, const char *bucket);
void removed_end(struct removed_bucket **all, const char *bucket);

/* Return whether a deletion of the bucket is in progress. */
bool removed_is_in_progress(const struct removed_bucket *all, const char *bucket);

/* Remember that a bucket was deleted, at a time of the loop. Without memory for that, it is not remembered. */
void removed_note(struct removed_bucket **all, const char *bucket, uint64_t now_ms);

/* Return whether the bucket was deleted within the last minute. */
bool removed_is_recent(const struct removed_bucket *all, const char *bucket, uint64_t now_ms);

void removed_forget_all(struct removed_bucket **all);

#endif
