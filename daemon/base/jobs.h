/*
 * jobs: work that is cut into slices, so that no turn of the loop is long.
 *
 * Used for all work that a client can make large: the requests of a session, requests that waited for the connection to
 * NATS, deadlines that come together, watches that a change is delivered to. A turn begins with the first event after
 * the loop slept. Its events may use JOBS_TURN_NS, and each of them JOBS_SLICE_NS; what is not finished then becomes a
 * job. At the end of a turn jobs run in the order in which they were added, a slice each, and one that has more to do
 * goes to the end of the queue. So each job gets a share of the loop's time, however long the others are. While a job
 * waits, the loop does not sleep.
 */
#ifndef DAEMON_JOBS_H
#define DAEMON_JOBS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define JOBS_TURN_NS  4000000u
#define JOBS_SLICE_NS 1000000u

/* The owner embeds it, zeroed, and removes it before its memory goes. */
struct job {
    struct job *next;
    struct job **previous_link; /* what points to this job; NULL when it is not queued */
    /* Work until jobs_slice_is_over. Return whether there is more to do. May remove or free its own job. */
    bool (*run)(struct job *job);
};

struct jobs {
    struct job *first;
    struct job **end;       /* of the queue */
    uint64_t turn_began_ns; /* 0: between turns */
    uint64_t slice_ends_ns;
    uint64_t longest_turn_ns;
};

void jobs_init(struct jobs *jobs);

/* An event has come: begin its slice. Return false if the turn has no time left: work that can wait should wait. */
bool jobs_begin_slice(struct jobs *jobs);

/* Return whether the present work should stop. Cheap enough to be asked after each call or message. */
static inline bool jobs_slice_is_over(const struct jobs *jobs)
{
    return uv_hrtime() >= jobs->slice_ends_ns;
}

/* Return whether the turn takes twice JOBS_TURN_NS: then even work that makes room for others must wait. */
static inline bool jobs_turn_is_long(const struct jobs *jobs)
{
    return jobs->turn_began_ns != 0 && uv_hrtime() >= jobs->turn_began_ns + 2u * JOBS_TURN_NS;
}

/* Queue a job. Does nothing when it is queued already. */
void jobs_add(struct jobs *jobs, struct job *job, bool (*run)(struct job *job));

/* Does nothing when the job is not queued. */
void jobs_remove(struct jobs *jobs, struct job *job);

static inline bool jobs_is_queued(const struct job *job)
{
    return job->previous_link != NULL;
}

/* At the end of a turn: run jobs for the rest of its time, at least one slice. */
void jobs_run(struct jobs *jobs);

/* After everything else of a turn. Return its duration in ns, 0 if nothing happened in it. */
uint64_t jobs_end_turn(struct jobs *jobs);

static inline bool jobs_are_waiting(const struct jobs *jobs)
{
    return jobs->first != NULL;
}

#endif
