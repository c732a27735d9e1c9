/*
 * changes: changes of a bucket of which its stream has no messages: purges, new settings, its deletion.
 *
 * Used by the rooms that make such changes in this daemon, and by local_copy. While a change is in progress, nothing of
 * the bucket is answered from memory; after it, the local copy is reconciled.
 */
#ifndef DAEMON_STORE_CHANGES_H
#define DAEMON_STORE_CHANGES_H

#include "daemon/store/follow/local_copy.h"

/* A change is about to begin. Each begin needs one end. Without memory, no bucket is answered from memory until then.
 */
void local_copy_begin_change(struct store *store, const char *bucket);

/* A change is over. is_known: false if the server may still make it, on the present connection. */
void local_copy_end_change(struct store *store, const char *bucket, bool is_known);

/* Return whether a change of the bucket is in progress, or may be. */
bool local_copy_is_changing(const struct local_copy *copy);

/* End the bucket's unanswered changes if the server has closed their connection. */
void local_copy_end_doubtful_change(struct local_copy *copy);

/* The same of all buckets. */
void local_copy_end_doubtful_changes(struct store *store);

/* Free what is left of unanswered changes, when the daemon ends. */
void local_copy_free_changes(struct store *store);

#endif
