/*
 * progress: how far compactions that were not finished have come.
 *
 * Used by compact. The next compaction of the bucket continues there. Otherwise one that has not enough time to read
 * the whole stream would read its beginning again and again. Kept in memory, for few buckets: nothing depends on it.
 */
#ifndef DAEMON_STORE_COMPACT_PROGRESS_H
#define DAEMON_STORE_COMPACT_PROGRESS_H

#include "daemon/store/context.h"

/* Return the sequence up to which the markers of this incarnation (see stream_info) are done; 0: begin with the first.
 */
uint64_t compact_progress_find(const struct store *store, const char *bucket, uint64_t incarnation);

/* Note that sequence; 0: the whole stream was read. */
void compact_progress_note(struct store *store, const char *bucket, uint64_t incarnation, uint64_t sequence);

void compact_progress_forget_all(struct store *store);

#endif
