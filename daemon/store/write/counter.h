/*
 * counter: a key that is incremented, and the increments that wait for it.
 *
 * Used by increment. A counter has at most one read or write in progress. Those that come meanwhile wait, and become
 * the next write. Its steps are taken in a job at the end of a turn, so that the increments of one turn are combined.
 */
#ifndef DAEMON_STORE_COUNTER_H
#define DAEMON_STORE_COUNTER_H

#include "daemon/store/write/increment.h"

struct counter;

/* Return the counter of a key, created if there is none; then its memory counts for the arena. NULL: out of memory. */
struct counter *counter_obtain(struct store *store, struct arena *arena, const char *bucket_name, const char *key);

/* Add an increment to those that wait. modify_finish is called in the end. */
void counter_join(struct counter *counter, struct increment *increment);

/*
 * Take an increment out before its end, unless it has left already. Return whether it may have been sent: then it
 * counts if the write is stored.
 */
bool counter_leave(struct increment *increment);

/* Return what counter_leave would. */
bool counter_may_have_sent(const struct increment *increment);

struct counter_stats {
    uint64_t increments; /* that were part of a write */
    uint64_t writes;     /* into which they were combined */
    uint64_t conflicts;  /* writes that were refused because somebody else has written to the key */
};

const struct counter_stats *counter_statistics(const struct store *store);

/* --- For the facade -------------------------------------------------------------------------------- */

/* Return 0, or -1 if memory ran out. */
int counter_init_all(struct store *store);

/* Take the next step of all counters that wait for the end of the turn, when the daemon ends. */
void counter_flush_all(struct store *store);

/* Free what is left, after the loop has ended and all increments have. */
void counter_free_all(struct store *store);

#endif
