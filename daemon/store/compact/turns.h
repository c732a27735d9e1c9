/*
 * turns: decides which compactions run. Few run at a time, and users take turns.
 *
 * Used by compact. Without turns by user, one that opens many sessions would keep the others waiting, and the daemon's
 * own compactions too.
 */
#ifndef DAEMON_STORE_COMPACT_TURNS_H
#define DAEMON_STORE_COMPACT_TURNS_H

#include "daemon/base/fair_queue.h"
#include "daemon/base/jobs.h"

/* The owner embeds it, zeroed. Its turn has come if it is taken. */
struct compact_turn {
    struct fair_queue_entry waiting;
    bool is_taken;
    void (*begin)(struct compact_turn *turn);
};

/* The owner embeds it, zeroed but for jobs and max. */
struct compact_turns {
    struct jobs *jobs;
    unsigned max; /* turns that are taken at a time */
    unsigned taken;
    struct fair_queue waiting;
    struct job giving;
};

/*
 * Wait for a turn. begin is called once, from the loop. user: an identity, of which each takes turns with the others; 0
 * is one of them.
 */
void compact_turns_wait(struct compact_turns *turns, struct compact_turn *turn, uint64_t user,
                        void (*begin)(struct compact_turn *turn));

/* Give the turn back, or stop waiting for it. */
void compact_turns_leave(struct compact_turns *turns, struct compact_turn *turn);

/* Begin no more: nothing may wait. */
void compact_turns_end(struct compact_turns *turns);

#endif
