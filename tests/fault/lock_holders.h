/*
 * lock_holders: programs that hold locks at three daemons, started, killed and stopped by a test.
 *
 * See lock_holder. Their locks are lock.0 and lock.1 of the bucket.
 */
#ifndef FAULT_LOCK_HOLDERS_H
#define FAULT_LOCK_HOLDERS_H

#include "tests/fault/deployment.h"
#include "tests/fault/lock_holder.h"

#include <sys/types.h>

void lock_holders_begin(const struct deployment *deployments, const char *bucket);

/* Stop them, and check what they have noted. */
void lock_holders_end_and_check(void);

/* Kill the holders of a daemon, and start new ones. */
void lock_holders_kill(unsigned daemon);
void lock_holders_start(unsigned daemon);

/* Stop the holders of a daemon (SIGSTOP), and let them go on. */
void lock_holders_suspend(unsigned daemon);
void lock_holders_resume(unsigned daemon);

/* Return the process id of a holder, or 0 if it was killed or has not begun. */
pid_t lock_holders_pid(unsigned holder);

/* The daemon is about to be killed: its sessions end now. */
void lock_holders_note_kill(unsigned daemon);

/*
 * The number of holdings of a lock, or of all locks by clients of a daemon, that have begun so far. Both fail the test
 * if a holder has ended.
 */
unsigned lock_holders_count(unsigned lock);
unsigned lock_holders_count_by(unsigned daemon);

#endif
