#include "daemon/handlers/steps.h"

#include "daemon/handlers/service.h"

/* Later calls of the session wait, or no longer do for this one. */
static void steps_hold_session(struct steps *steps, bool holds)
{
    struct session *session = steps->call->session;

    if (session == NULL || steps->holds_session == holds)
        return;
    steps->holds_session = holds;
    if (holds)
        session->reading_calls++;
    else
        session->reading_calls--;
    session_mark_dirty(session);
}

/* Return whether there is more to do. */
static bool steps_make(struct steps *steps, uint64_t end_ns)
{
    while (steps->next < steps->count) {
        if (!steps->step(steps, steps->next++))
            return false;
        if (uv_hrtime() >= end_ns)
            return true;
    }
    arena_end_task(&steps->task);
    steps_hold_session(steps, false);
    steps->done(steps);
    return false;
}

static bool steps_run(struct job *job)
{
    struct steps *steps = (struct steps *)((char *)job - offsetof(struct steps, job));

    return steps_make(steps, call_store(steps->call)->jobs->slice_ends_ns);
}

static void steps_cancel(struct arena_task *task)
{
    struct steps *steps = ARENA_TASK_OWNER(task, struct steps, task);

    jobs_remove(call_store(steps->call)->jobs, &steps->job);
    steps_hold_session(steps, false);
}

void steps_start(struct steps *steps)
{
    struct jobs *jobs = call_store(steps->call)->jobs;

    steps->job.owner = steps->call->arena.owner;
    arena_begin_reading_task(&steps->call->arena, &steps->task, steps_cancel);
    if (steps_make(steps, uv_hrtime() + JOBS_SLICE_NS)) {
        steps_hold_session(steps, steps->reads_call);
        jobs_add(jobs, &steps->job, steps_run);
    }
}

void steps_read(struct steps *steps)
{
    steps->reads_call = true;
    steps_start(steps);
}
