/*
 * locker: a program on a simulated host that acquires locks, writes with their tokens, and leaves.
 *
 * It makes one call at a time. It notes for lock_check when it was sure to hold a lock. Some lockers have an owner's
 * name, and come back to their locks in a new session. Each session may have an ephemeral key.
 */
#ifndef SIM_LOCKER_H
#define SIM_LOCKER_H

#include "tests/sim/host.h"
#include "tests/sim/stream.h"

#include <stdbool.h>
#include <stdint.h>

#define LOCKERS_MAX 5u

struct lock_load {
    const char *bucket;
    unsigned locks; /* "lock.0", "lock.1", ... */
    uint64_t pause_ns;
    uint64_t most_hold_ns;
    unsigned stall_per_mille;  /* of pauses, in which the program reads nothing */
    unsigned leave_per_mille;  /* of holdings that end with the session */
    unsigned cancel_per_mille; /* of calls that acquire a lock */
    unsigned purge_per_mille;  /* of what a locker does: it purges the bucket */
    uint64_t lease_ttl_ns;
    bool is_quiet;         /* there are no faults */
    bool daemons_stay;     /* none is shut down or killed: no session is lost */
    struct server *server; /* if it was set back, what was promised before does not hold */
    /* Return for how long a daemon was stopped between these times: answers may be as late. */
    uint64_t (*stopped_ns)(uint64_t from_ns, uint64_t to_ns);
};

struct locker;

struct locker *locker_new(unsigned number, struct host *host, const struct lock_load *load);
void locker_forget_all(void);

/* Acquire locks until locker_finish. */
void locker_run(struct locker *locker);

/*
 * Leave the session, and acquire each lock once more in a new one, which stays. Its ephemeral key keeps the daemon busy
 * with leases, so that it cleans up after daemons that were killed.
 */
void locker_finish(struct locker *locker);
bool locker_is_finished(const struct locker *locker);
void locker_leave(struct locker *locker);

/* Return the subject of a lock or an ephemeral key whose session has ended, or NULL: none is left. */
const char *lockers_find_left(const struct stream *stream);

/* Return whether the ephemeral key of each session that has one is there. */
bool lockers_are_registered(const struct stream *stream);

/* Judge what all lockers have noted, and what they have written. NULL: there are no lockers. */
void lockers_judge(const struct stream *stream);

/* The number of times a lock was acquired in this world. */
uint64_t lockers_acquired(void);

#endif
