/*
 * steps: a loop over the items of a call, such as its keys, in slices of turns.
 *
 * Used by the handlers of calls that name many keys: a message may have 16,384 of them, with 15 MB. The loop begins at
 * once, with a slice of its own. It sends nothing to NATS. Unless the call has another task, it can be cancelled, and
 * is dropped if its session ends.
 */
#ifndef DAEMON_HANDLERS_STEPS_H
#define DAEMON_HANDLERS_STEPS_H

#include "daemon/base/jobs.h"
#include "daemon/rpc/call.h"

#include <stdbool.h>
#include <stddef.h>

struct steps {
    /* Set by the caller, who embeds it in memory of the call's arena, zeroed. */
    struct call *call;
    size_t count;
    /* Do a part of the loop. False: the call is answered. */
    bool (*step)(struct steps *steps, size_t index);
    void (*done)(struct steps *steps);

    /* private */
    size_t next;
    bool reads_call; /* see steps_read */
    bool holds_session;
    struct job job;
    struct arena_task task;
};

/* Make the steps, then call done. Either may have happened on return, and the call may be gone. */
void steps_start(struct steps *steps);

/* The same for steps that read the arguments of the call. Later calls of its session start after them. */
void steps_read(struct steps *steps);

#endif
