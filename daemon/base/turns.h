/*
 * turns: lets few work at a time. Users and sessions take turns, as in fair_queue.
 *
 * Used for work that takes much memory or time from its beginning to its end: compactions, and lists of buckets.
 */
#ifndef DAEMON_TURNS_H
#define DAEMON_TURNS_H

#include "daemon/base/fair_queue.h"
#include "daemon/base/jobs.h"

/* The owner of the memory embeds it, zeroed, and leaves before the memory goes. */
struct turn {
    struct fair_queue_entry waiting;
    bool is_taken; /* it has come, and was not given back */
    void (*begin)(struct turn *turn);
};

/* The owner embeds it, zeroed but for jobs and max. */
struct turns {
    struct jobs *jobs;
    unsigned max; /* turns that are taken at a time */
    unsigned taken;
    struct fair_queue waiting;
    struct job giving;
};

/* Wait for a turn. begin is called once, from the loop. identity: see fair_queue_append. */
void turns_wait(struct turns *turns, struct turn *turn, uint64_t identity, void (*begin)(struct turn *turn));

/* Give the turn back, or stop waiting for it. */
void turns_leave(struct turns *turns, struct turn *turn);

/* At the end, when nothing waits. */
void turns_end(struct turns *turns);

#endif
