/*
 * local_copy_wait: calls that wait until a local copy has a revision, or has been loaded.
 *
 * Used by cached_read and compact.
 */
#ifndef DAEMON_STORE_LOCAL_COPY_WAIT_H
#define DAEMON_STORE_LOCAL_COPY_WAIT_H

#include "daemon/base/jobs.h"
#include "daemon/base/timers.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct local_copy;
struct store;

/* What to wait for. */
enum local_copy_event {
    LOCAL_COPY_HAS_REVISION,       /* the feed has delivered the revision, and all of its batch */
    LOCAL_COPY_IS_BETWEEN_BATCHES, /* the same, and it is in the middle of no batch */
    LOCAL_COPY_IS_LOADED
};

/* One wait. The owner embeds it, zeroed. */
struct local_copy_wait {
    /* Set by the owner. Called once, from the loop. has_come: the event has come; otherwise it took too long. */
    void (*ready)(void *arg, bool has_come);
    void *arg;
    size_t keys;    /* for LOCAL_COPY_IS_LOADED: the keys that are to be read, SIZE_MAX: all */
    bool is_of_all; /* for the others: wait for what the feed has skipped, too */

    /* private */
    struct local_copy_wait *next, *previous;
    struct store *store;
    struct local_copy *copy; /* NULL: it does not wait, or only for its timer */
    enum local_copy_event event;
    uint64_t revision;
    struct timer timer;
};

/* The waits for one copy; part of struct local_copy. */
struct local_copy_waits {
    struct local_copy_wait *first; /* in the order of their revisions */
    unsigned count;
    struct job waking;
};

/* Return whether the feed has delivered this revision. event: not LOCAL_COPY_IS_LOADED. */
bool local_copy_has_reached(const struct local_copy *copy, uint64_t revision, enum local_copy_event event);

/* Return whether one more call may wait, and there is a feed to wait for. */
bool local_copy_may_wait(const struct local_copy *copy);

/*
 * Return whether the copy is being loaded, and reading this number of keys from NATS would not be much quicker.
 * SIZE_MAX is a listing of all keys: it needs no values, so it waits only if these are small.
 */
bool local_copy_load_is_worth_waiting(const struct local_copy *copy, size_t keys);

/* Wait for an event until until_ms (loop time). revision: 0 for LOCAL_COPY_IS_LOADED. */
void local_copy_wait_start(struct local_copy *copy, struct local_copy_wait *wait, enum local_copy_event event,
                           uint64_t revision, uint64_t until_ms);

/* Stop waiting; ready is not called. Does nothing if it does not wait. */
void local_copy_wait_cancel(struct local_copy_wait *wait);

/* The copy has changed: waits whose event has come end at the end of the turn. */
void local_copy_wake_waits(struct local_copy *copy);

/* The size of the bucket is now known. Fail the waits for a load that is not worth waiting for, from the loop. */
void local_copy_fail_vain_waits(struct local_copy *copy);

/* The copy ends: all waits fail, from the loop. */
void local_copy_fail_waits(struct local_copy *copy);

#endif
