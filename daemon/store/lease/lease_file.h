/*
 * lease_file: the leases that this daemon has, in a file: see store_open_files.
 *
 * Used by lease and holding_line. A daemon that was killed finds there in which buckets its last run had leases, and
 * adopts them. The file has a line "bucket id" for each. A line "bucket id key revision" is a deletion that may be
 * in flight, of a lock with an owner. What a killed daemon has sent may reach the server much later: if the owner got
 * this lock again, at the same revision, it would be deleted then.
 *
 * The file is written by a worker thread, as a whole, and replaced. It may be lost with the machine: then the keys are
 * deleted when a daemon opens a lease in the bucket, and what was in flight is lost, too.
 */
#ifndef DAEMON_STORE_LEASE_FILE_H
#define DAEMON_STORE_LEASE_FILE_H

#include "daemon/store/context.h"

/* Read the file, if there is one, and keep its path. NULL: out of memory. path NULL: the leases are not kept. */
struct lease_file *lease_file_open(struct store *store, const char *path);

/* Call found for each lease that the file had when it was opened, once, the newest first. */
void lease_file_each(struct store *store, void (*found)(struct store *store, const char *bucket, const char *id));

/* Add a lease, and call noted from the loop, or from within, when the file has it or cannot have it. */
void lease_file_add(struct store *store, const char *bucket, const char *id, void (*noted)(void *arg), void *arg);

/* Remove it, if it is there, and the deletions of its keys. */
void lease_file_remove(struct store *store, const char *bucket, const char *id);

/*
 * Add a deletion, and call noted like lease_file_add. lease_file_end_deletion removes this one, and those of the last
 * run of the key, up to a revision that it has no more. In the file they stay until the next change.
 */
void lease_file_add_deletion(struct store *store, const char *bucket, const char *id, const char *key,
                             uint64_t revision, void (*noted)(void *arg), void *arg);
void lease_file_end_deletion(struct store *store, const char *bucket, const char *id, const char *key,
                             uint64_t revision, const void *arg);

/* Return whether a deletion of the key at this revision may be in flight. */
bool lease_file_has_deletion(const struct store *store, const char *bucket, const char *id, const char *key,
                             uint64_t revision);

/* noted is no longer called with this argument. */
void lease_file_cancel(struct store *store, const void *arg);

/* Free it. The worker thread must have ended. */
void lease_file_free(struct lease_file *file);

#endif
