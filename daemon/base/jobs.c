#include "daemon/base/jobs.h"

#include <string.h>

void jobs_init(struct jobs *jobs)
{
    memset(jobs, 0, sizeof(*jobs));
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

static void jobs_add_to(struct jobs *jobs, struct job *job, bool (*run)(struct job *job), enum job_line line)
{
    job->run = run;
    if (jobs_is_queued(job))
        return;
    job->line = line;
    jobs->queued[line]++;
    if (job == jobs->running)
        fair_queue_append_again(&jobs->lines[line], &job->turn, job->owner);
    else
        fair_queue_append(&jobs->lines[line], &job->turn, job->owner);
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
    jobs->queued[job->line]--;
    fair_queue_remove(&job->turn);
}

/* --- Sessions -------------------------------------------------------------------------------------- */

void jobs_admit_session(struct job *job, uint64_t owner)
{
    job->owner = owner;
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

/* Run one slice of the job whose turn it is. Return false if the turn had no time left. */
static bool jobs_run_first(struct jobs *jobs, enum job_line line)
{
    struct fair_queue_entry *first = fair_queue_first(&jobs->lines[line]);
    struct job *job = (struct job *)((char *)first - offsetof(struct job, turn));

    jobs_remove(jobs, job);
    bool has_time = jobs_begin_slice(jobs);
    jobs->running = job;
    if (job->run(job))
        jobs_add_to(jobs, job, job->run, line);
    jobs->running = NULL;
    return has_time;
}

/*
 * Run the jobs of a line while the turn has time, at least for a slice. A job that always has more to do must not keep
 * the loop from its events: so there are not more slices than jobs.
 */
static void jobs_run_line(struct jobs *jobs, enum job_line line)
{
    uint64_t slice_ends_ns = 0;
    bool has_time = true;

    for (size_t left = jobs->queued[line]; left > 0 && jobs->queued[line] > 0; left--) {
        if (!has_time && uv_hrtime() >= slice_ends_ns)
            return;
        has_time = jobs_run_first(jobs, line);
        if (slice_ends_ns == 0)
            slice_ends_ns = jobs->slice_ends_ns;
    }
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
