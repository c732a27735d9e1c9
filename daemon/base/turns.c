#include "daemon/base/turns.h"

#include <stddef.h>

static bool turns_run_giving(struct job *job)
{
    struct turns *turns = (struct turns *)((char *)job - offsetof(struct turns, giving));
    struct fair_queue_entry *first;

    while (turns->taken < turns->max && (first = fair_queue_first(&turns->waiting)) != NULL) {
        struct turn *turn = (struct turn *)((char *)first - offsetof(struct turn, waiting));
        fair_queue_remove(first);
        turn->is_taken = true;
        turns->taken++;
        turn->begin(turn);
    }
    return false;
}

void turns_wait(struct turns *turns, struct turn *turn, uint64_t identity, void (*begin)(struct turn *turn))
{
    turn->begin = begin;
    fair_queue_append(&turns->waiting, &turn->waiting, identity);
    jobs_add(turns->jobs, &turns->giving, turns_run_giving);
}

void turns_leave(struct turns *turns, struct turn *turn)
{
    fair_queue_remove(&turn->waiting);
    turns->taken -= turn->is_taken;
    turn->is_taken = false;
    jobs_add(turns->jobs, &turns->giving, turns_run_giving); /* not from within the end of the work */
}

void turns_end(struct turns *turns)
{
    jobs_remove(turns->jobs, &turns->giving);
}
