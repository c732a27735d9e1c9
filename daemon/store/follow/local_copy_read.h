/*
 * local_copy_read: what a local copy answers.
 *
 * Used by cached_read, and by the rooms below through observe. An answer is as new as every write that this daemon has
 * acknowledged and every answer that it has given. In embedded mode it is also never part of a transaction.
 */
#ifndef DAEMON_STORE_LOCAL_COPY_READ_H
#define DAEMON_STORE_LOCAL_COPY_READ_H

#include "daemon/store/follow/local_copy.h"
#include "daemon/store/observe.h"

enum local_copy_answer {
    LOCAL_COPY_HAS,   /* the entry is in the view */
    LOCAL_COPY_LACKS, /* the key does not exist */
    LOCAL_COPY_WAITS, /* the feed has yet to deliver what the answer must include: see local_copy_wait */
    LOCAL_COPY_UNSURE /* ask NATS */
};

/* Read a key. LOCAL_COPY_WAITS: *revision is what to wait for. */
enum local_copy_answer local_copy_get(struct local_copy *copy, const char *key, size_t length, struct cache_view *view,
                                      uint64_t *revision);

/* Read a key after a wait: what was acknowledged since the wait began need not be included. */
enum local_copy_answer local_copy_get_now(struct local_copy *copy, const char *key, size_t length,
                                          struct cache_view *view, uint64_t *revision);

/*
 * Return whether a key has expired by the clock, by its own TTL or the bucket's present max_age. Then only the server
 * knows whether the key still exists.
 */
bool local_copy_has_expired(const struct local_copy *copy, const struct cache_key *key);

/* Return whether the copy has every key, as new as is promised. */
bool local_copy_can_answer(const struct local_copy *copy);

/* What a read of several keys waits for: whole batches if nobody else writes to the bucket. */
enum local_copy_event local_copy_event_for_all(const struct local_copy *copy);

/* --- What it observes: see observe ----------------------------------------------------------------- */

/* NATS has answered with the last entry of a key. If its value was evicted, it is kept again. */
void local_copy_note_read(struct store *store, const char *bucket, const struct kv_entry *entry);

/* A key was written, or answered, at a revision. */
void local_copy_note_revision(struct store *store, const char *bucket, const char *key, uint64_t revision,
                              bool is_write);

/* Return the revision of the key's entry in memory; 0: there is none. */
uint64_t local_copy_revision_of(struct store *store, const char *bucket, const char *key);

/* Give the key's value to found, if it is in memory and as new as a read would want it. */
bool local_copy_find_value(struct store *store, const char *bucket, const char *key, observe_found_fn *found,
                           void *arg);

/*
 * NATS has answered that the key is absent. When it was asked, the copy had the key at revision_before. is_certain: the
 * answer is not that of a follower that may be behind.
 */
void local_copy_note_absent(struct store *store, const char *bucket, const char *key, uint64_t revision_before,
                            bool is_certain);

#endif
