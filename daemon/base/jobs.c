#include "daemon/base/jobs.h"

#include <string.h>

void jobs_init(struct jobs *jobs)
{
    memset(jobs, 0, sizeof(*jobs));
    jobs->end = &jobs->first;
}

bool jobs_begin_slice(struct jobs *jobs)
{
    uint64_t now_ns = uv_hrtime();

    if (jobs->turn_began_ns == 0)
        jobs->turn_began_ns = now_ns;
    jobs->slice_ends_ns = now_ns + JOBS_SLICE_NS;
    return now_ns < jobs->turn_began_ns + JOBS_TURN_NS;
}

static void append(struct jobs *jobs, struct job *job)
{
    job->next = NULL;
    job->previous_link = jobs->end;
    *jobs->end = job;
    jobs->end = &job->next;
}

void jobs_add(struct jobs *jobs, struct job *job, bool (*run)(struct job *job))
{
    job->run = run;
    if (!jobs_is_queued(job))
        append(jobs, job);
}

void jobs_remove(struct jobs *jobs, struct job *job)
{
    if (!jobs_is_queued(job))
        return;
    *job->previous_link = job->next;
    if (job->next != NULL)
        job->next->previous_link = job->previous_link;
    else
        jobs->end = job->previous_link;
    job->previous_link = NULL;
}

void jobs_run(struct jobs *jobs)
{
    struct job sentinel = {0};
    bool has_time;

    /* Run each queued job at most once. Jobs that are added meanwhile stand behind the sentinel, for the next turn. */
    if (jobs->first == NULL)
        return;
    append(jobs, &sentinel);
    do {
        struct job *job = jobs->first;
        jobs_remove(jobs, job);
        if (job == &sentinel)
            return;
        has_time = jobs_begin_slice(jobs);
        if (job->run(job))
            jobs_add(jobs, job, job->run);
    } while (has_time);
    jobs_remove(jobs, &sentinel);
}

uint64_t jobs_end_turn(struct jobs *jobs)
{
    uint64_t took_ns = jobs->turn_began_ns != 0 ? uv_hrtime() - jobs->turn_began_ns : 0;

    jobs->turn_began_ns = 0;
    if (took_ns > jobs->longest_turn_ns)
        jobs->longest_turn_ns = took_ns;
    return took_ns;
}
