#include "daemon/store/follow/walks.h"

#include "daemon/store/follow/state.h"

static bool run_walks(struct job *job)
{
    struct walks *walks = (struct walks *)((char *)job - offsetof(struct walks, job));
    struct fair_queue_entry *first;

    while ((first = fair_queue_first(&walks->waiting)) != NULL) {
        struct walk *walk = (struct walk *)((char *)first - offsetof(struct walk, turn));
        fair_queue_remove(first);
        walks->stepping = walk;
        walk->step(walk); /* the walk may be gone */
        walks->stepping = NULL;
        if (jobs_slice_is_over(walks->jobs))
            return fair_queue_first(&walks->waiting) != NULL;
    }
    return false;
}

void walks_add(struct store *store, struct walk *walk, uint64_t session, void (*step)(struct walk *walk))
{
    struct walks *walks = &store->follow->walks;

    if (fair_queue_has(&walk->turn))
        return;
    walk->step = step;
    if (walk == walks->stepping)
        fair_queue_append_again(&walks->waiting, &walk->turn, session);
    else
        fair_queue_append(&walks->waiting, &walk->turn, session);
    jobs_add(walks->jobs, &walks->job, run_walks);
}

void walks_remove(struct walk *walk)
{
    fair_queue_remove(&walk->turn);
}
