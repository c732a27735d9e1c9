#include "daemon/store/lease/holding_pass.h"

#include "daemon/store/lease/holding_line.h"

static void holding_pass_visit(struct holding *holding, unsigned kinds)
{
    const struct lease *lease = holding->lease;

    if (!holding_can_be_attached(holding))
        return;
    if (lease->is_losing)
        holding_lose(holding, &lease->lost);
    else if (((kinds & HOLDING_PASS_LOCKS) != 0 && holding->kind == HOLDING_LOCK) ||
             ((kinds & HOLDING_PASS_UNSEEN) != 0 && !holding->is_seen))
        holding_line_check(holding);
    else if ((kinds & HOLDING_PASS_OUTDATED) != 0 && holding->doubts != lease->in->doubts)
        holding_line_join(holding);
}

/* Return whether there is another pass to do. */
static bool holding_pass_begin_next(struct lease_bucket *in)
{
    in->pass_kinds = in->next_pass_kinds;
    in->next_pass_kinds = 0;
    in->next_passed = in->holdings;
    return in->pass_kinds != 0;
}

static bool run_passing(struct job *job)
{
    struct lease_bucket *in = (struct lease_bucket *)((char *)job - offsetof(struct lease_bucket, passing));
    bool has_more = true;

    while (has_more && !jobs_slice_is_over(in->store->jobs)) {
        struct holding *holding = in->next_passed;
        if (holding == NULL) {
            has_more = holding_pass_begin_next(in);
            continue;
        }
        in->next_passed = holding->hh.next;
        holding_pass_visit(holding, in->pass_kinds);
    }
    holding_line_run(in);
    return has_more;
}

void holding_pass_start(struct lease_bucket *in, enum holding_pass_kind kind)
{
    if (in->holdings == NULL)
        return;
    if (!holding_pass_is_running(in))
        in->next_passed = in->holdings;
    else
        in->next_pass_kinds |= kind;
    in->pass_kinds |= kind;
    jobs_add_shared(in->store->jobs, &in->passing, run_passing);
}
