#include "daemon/base/jobs.h"

#include <string.h>

void jobs_init(struct jobs *jobs)
{
    memset(jobs, 0, sizeof(*jobs));
    for (enum job_line line = 0; line < JOB_LINES; line++)
        jobs->lines[line].end = &jobs->lines[line].first;
}

bool jobs_begin_slice(struct jobs *jobs)
{
    uint64_t now_ns = uv_hrtime();

    if (jobs->turn_began_ns == 0)
        jobs->turn_began_ns = now_ns;
    jobs->slice_ends_ns = now_ns + JOBS_SLICE_NS;
    return now_ns < jobs->turn_began_ns + JOBS_TURN_NS;
}

/* --- Queues ---------------------------------------------------------------------------------------- */

static void jobs_append(struct jobs *jobs, struct job *job, enum job_line line)
{
    struct job_queue *queue = &jobs->lines[line];

    job->line = line;
    job->next = NULL;
    job->previous_link = queue->end;
    *queue->end = job;
    queue->end = &job->next;
}

static void jobs_add_to(struct jobs *jobs, struct job *job, bool (*run)(struct job *job), enum job_line line)
{
    job->run = run;
    if (!jobs_is_queued(job))
        jobs_append(jobs, job, line);
}

void jobs_add(struct jobs *jobs, struct job *job, bool (*run)(struct job *job))
{
    jobs_add_to(jobs, job, run, JOB_ORDINARY);
}

void jobs_add_shared(struct jobs *jobs, struct job *job, bool (*run)(struct job *job))
{
    jobs_add_to(jobs, job, run, JOB_SHARED);
}

void jobs_remove(struct jobs *jobs, struct job *job)
{
    if (!jobs_is_queued(job))
        return;
    *job->previous_link = job->next;
    if (job->next != NULL)
        job->next->previous_link = job->previous_link;
    else
        jobs->lines[job->line].end = job->previous_link;
    job->previous_link = NULL;
}

/* --- Sessions -------------------------------------------------------------------------------------- */

void jobs_admit_session(struct job *job)
{
    job->paid_ns = uv_hrtime() + (uint64_t)JOBS_SLICE_NS * JOBS_LIGHT_PART;
}

void jobs_charge(const struct jobs *jobs, struct job *job)
{
    uint64_t now_ns = uv_hrtime(), took_ns = now_ns - (jobs->slice_ends_ns - JOBS_SLICE_NS);

    if (job->paid_ns < now_ns)
        job->paid_ns = now_ns;
    job->paid_ns += took_ns * JOBS_LIGHT_PART;
}

void jobs_add_session(struct jobs *jobs, struct job *job, bool (*run)(struct job *job))
{
    bool is_light = job->paid_ns < uv_hrtime() + (uint64_t)JOBS_SLICE_NS * JOBS_LIGHT_PART;

    jobs_add_to(jobs, job, run, is_light ? JOB_LIGHT : JOB_ORDINARY);
}

/* --- The end of a turn ----------------------------------------------------------------------------- */

/*
 * Run the jobs of a line while the turn has time, at least for a slice, each at most once. Jobs that are added
 * meanwhile stand behind the sentinel, for the next turn.
 */
static void jobs_run_line(struct jobs *jobs, enum job_line line)
{
    struct job_queue *queue = &jobs->lines[line];
    struct job sentinel = {0};
    uint64_t slice_ends_ns = 0;
    bool has_time;

    if (queue->first == NULL)
        return;
    jobs_append(jobs, &sentinel, line);
    do {
        struct job *job = queue->first;
        jobs_remove(jobs, job);
        if (job == &sentinel)
            return;
        has_time = jobs_begin_slice(jobs);
        if (slice_ends_ns == 0)
            slice_ends_ns = jobs->slice_ends_ns;
        if (job->run(job))
            jobs_add_to(jobs, job, job->run, line);
    } while (has_time || uv_hrtime() < slice_ends_ns);
    jobs_remove(jobs, &sentinel);
}

void jobs_run(struct jobs *jobs)
{
    for (enum job_line line = 0; line < JOB_LINES; line++)
        jobs_run_line(jobs, line);
}

uint64_t jobs_end_turn(struct jobs *jobs)
{
    uint64_t took_ns = jobs->turn_began_ns != 0 ? uv_hrtime() - jobs->turn_began_ns : 0;

    jobs->turn_began_ns = 0;
    if (took_ns > jobs->longest_turn_ns)
        jobs->longest_turn_ns = took_ns;
    return took_ns;
}
