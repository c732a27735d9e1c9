/*
 * lock_command: runs a command while a lock is held.
 *
 * Used by lock. The command is a process group of its own, with the terminal if kvctl has it. It gets the signals that
 * kvctl gets. If the lock is lost, or the daemon no longer says in time that it is held, the group is ended: SIGTERM,
 * then SIGKILL before the time is over for which the daemon has vouched. The command dies with kvctl.
 */
#ifndef KVCTL_LOCK_COMMAND_H
#define KVCTL_LOCK_COMMAND_H

#include "client/lib/kvstore_lock.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum lock_command_state {
    LOCK_COMMAND_WAITS, /* it was not started */
    LOCK_COMMAND_RUNS,
    LOCK_COMMAND_ENDING, /* it was sent SIGTERM, and is sent SIGKILL at kill_ms */
    LOCK_COMMAND_KILLED,
    LOCK_COMMAND_ENDED
};

struct lock_command {
    struct kvs *kvs;
    struct kvs_lock *lock; /* of kvs_async_lock_acquire */
    const char *bucket, *name;
    char **arguments; /* up to a NULL */

    bool was_ended; /* because of the lock */

    /* private */
    enum lock_command_state state;
    pid_t pid; /* and process group */
    int signals;
    int terminal;             /* -1: kvctl does not have it */
    double longest_valid_s;   /* for which the lock was vouched for */
    int64_t vouched_until_ms; /* clock_monotonic_ms */
    int64_t kill_ms;
    int status; /* of wait */
};

/*
 * Run it to its end. Return its exit status, or 128 and the number of the signal that ended it. -1 after a message if
 * it could not be started at all. LOCK_COMMAND_NOT_STARTED without one if the lock is lost already.
 */
#define LOCK_COMMAND_NOT_STARTED (-2)
int lock_command_run(struct lock_command *command);

#endif
