/*
 * lock_holders: clients of three daemons that acquire locks, hold them, write with their tokens and leave.
 *
 * Each is a thread. They note everything for lock_check.
 */
#ifndef FAULT_LOCK_HOLDERS_H
#define FAULT_LOCK_HOLDERS_H

#include "tests/fault/deployment.h"
#include "tests/support/lock_check.h"

#define LOCK_HOLDERS_DAEMONS 3u
#define LOCK_HOLDERS_LOCKS   2u

/* Their locks are lock.0 and lock.1 of the bucket. */
void lock_holders_begin(struct deployment *deployments, const char *bucket);

/* Stop them, and check what they have noted. */
void lock_holders_end_and_check(void);

/* The daemon is about to be killed: its sessions end now. */
void lock_holders_note_kill(unsigned daemon);

/* The number of holdings of a lock, or of all locks by clients of a daemon, that have begun so far. */
unsigned lock_holders_count(unsigned lock);
unsigned lock_holders_count_by(unsigned daemon);

#endif
