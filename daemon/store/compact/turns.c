#include "daemon/store/compact/turns.h"

#include <stddef.h>

static bool run_compact_turns(struct job *job)
{
    struct compact_turns *turns = (struct compact_turns *)((char *)job - offsetof(struct compact_turns, giving));
    struct fair_queue_entry *first;

    while (turns->taken < turns->max && (first = fair_queue_first(&turns->waiting)) != NULL) {
        struct compact_turn *turn = (struct compact_turn *)((char *)first - offsetof(struct compact_turn, waiting));
        fair_queue_remove(first);
        turn->is_taken = true;
        turns->taken++;
        turn->begin(turn);
    }
    return false;
}

void compact_turns_wait(struct compact_turns *turns, struct compact_turn *turn, uint64_t user,
                        void (*begin)(struct compact_turn *turn))
{
    turn->begin = begin;
    fair_queue_append(&turns->waiting, &turn->waiting, user);
    jobs_add(turns->jobs, &turns->giving, run_compact_turns);
}

void compact_turns_leave(struct compact_turns *turns, struct compact_turn *turn)
{
    fair_queue_remove(&turn->waiting);
    turns->taken -= turn->is_taken;
    turn->is_taken = false;
    jobs_add(turns->jobs, &turns->giving, run_compact_turns); /* not from within the end of a compaction */
}

void compact_turns_end(struct compact_turns *turns)
{
    jobs_remove(turns->jobs, &turns->giving);
}
