/*
 * jobs: work that is cut into slices, so that no turn of the loop is long, and shared out, so that nobody waits long.
 *
 * Used for all work that a client can make large. Examples are the requests of a session, requests that waited for the
 * connection to NATS, deadlines that pass together, and the watches that receive a change. A turn begins with the first
 * event after the loop slept. Its events may use JOBS_TURN_NS, and each of them JOBS_SLICE_NS; what is not finished
 * then becomes a job. At the end of a turn jobs run, a slice each, in three lines, and each line gets at least a slice
 * of each turn. In a line users take turns, and then their sessions: see fair_queue. So a user with many sessions gets
 * no more slices than one with a single session. While a job waits, the loop does not sleep.
 */
#ifndef DAEMON_JOBS_H
#define DAEMON_JOBS_H

#include "daemon/base/fair_queue.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define JOBS_TURN_NS  2000000u
#define JOBS_SLICE_NS 500000u

/* A session stays light while it takes less than this part of the time, apart from one slice. */
#define JOBS_LIGHT_PART 20u

/* In the order in which they run in a turn. */
enum job_line {
    JOB_SHARED,   /* work for many sessions at once, such as the replies of NATS */
    JOB_LIGHT,    /* of sessions that take little of the daemon's time: their calls overtake those of the others */
    JOB_ORDINARY, /* of sessions that take much of it, and of single calls */
    JOB_LINES
};

/* The owner embeds it, zeroed, and removes it before its memory goes. */
struct job {
    struct fair_queue_entry turn;
    /* The session that it serves: see fair_queue_identity. 0: none alone, as with work on a bucket or for all calls. */
    uint64_t owner;
    /* Work until jobs_slice_is_over. Return whether there is more to do. May remove or free its own job. */
    bool (*run)(struct job *job);
    enum job_line line;
    uint64_t paid_ns; /* uv_hrtime from which on the time that it has taken is less than its part: see jobs_charge */
};

struct jobs {
    struct fair_queue lines[JOB_LINES];
    size_t queued[JOB_LINES];
    const struct job *running; /* its slice is not over; NULL: none. Only compared: it may have freed itself. */
    uint64_t turn_began_ns;    /* 0: between turns */
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

/* Queue a job of the ordinary line. These functions do nothing when the job is queued already. */
void jobs_add(struct jobs *jobs, struct job *job, bool (*run)(struct job *job));

void jobs_add_shared(struct jobs *jobs, struct job *job, bool (*run)(struct job *job));

/*
 * A session begins, and its job serves this owner. It starts in the ordinary line, as if it had taken a slice.
 * Otherwise a client that connects again and again would always be in the light line.
 */
void jobs_admit_session(struct job *job, uint64_t owner);

/* Queue a session's job, in the light or the ordinary line, by the time that jobs_charge has noted. */
void jobs_add_session(struct jobs *jobs, struct job *job, bool (*run)(struct job *job));

/* Note that the slice, up to now, was used by this job. It need not be queued. */
void jobs_charge(const struct jobs *jobs, struct job *job);

/* Does nothing when the job is not queued. */
void jobs_remove(struct jobs *jobs, struct job *job);

static inline bool jobs_is_queued(const struct job *job)
{
    return fair_queue_has(&job->turn);
}

/*
 * At the end of a turn: run jobs for the rest of its time, and each line for at least a slice. No line runs more slices
 * than jobs wait in it at first.
 */
void jobs_run(struct jobs *jobs);

/* After everything else of a turn. Return its duration in ns, 0 if nothing happened in it. */
uint64_t jobs_end_turn(struct jobs *jobs);

static inline bool jobs_are_waiting(const struct jobs *jobs)
{
    return jobs->queued[JOB_SHARED] + jobs->queued[JOB_LIGHT] + jobs->queued[JOB_ORDINARY] > 0;
}

#endif
