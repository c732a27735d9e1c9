#include "daemon/handlers/steps.h"

#include "daemon/handlers/service.h"

static bool steps_run(struct job *job)
{
    struct steps *steps = (struct steps *)((char *)job - offsetof(struct steps, job));
    const struct jobs *jobs = call_store(steps->call)->jobs;

    while (steps->next < steps->count) {
        if (!steps->step(steps, steps->next++))
            return false;
        if (jobs_slice_is_over(jobs))
            return true;
    }
    arena_end_task(&steps->task);
    steps->done(steps);
    return false;
}

static void steps_cancel(struct arena_task *task)
{
    struct steps *steps = ARENA_TASK_OWNER(task, struct steps, task);

    jobs_remove(call_store(steps->call)->jobs, &steps->job);
}

void steps_start(struct steps *steps)
{
    struct jobs *jobs = call_store(steps->call)->jobs;

    arena_begin_reading_task(&steps->call->arena, &steps->task, steps_cancel);
    if (steps_run(&steps->job))
        jobs_add(jobs, &steps->job, steps_run);
}
