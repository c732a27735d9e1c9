/*
 * garbage: large buffers that wait to be freed.
 *
 * Used by the sessions' inboxes and outboxes. The kernel needs more than a millisecond to take back a buffer of 16 MB,
 * and many sessions may end in one turn. So large buffers are freed by a job, and small ones at once.
 */
#ifndef DAEMON_TRANSPORT_GARBAGE_H
#define DAEMON_TRANSPORT_GARBAGE_H

#include "daemon/base/jobs.h"

#include <stddef.h>

struct garbage_buffer;

struct garbage {
    struct jobs *jobs;
    struct garbage_buffer *first;
    struct job freeing;
};

/* jobs is borrowed. */
void garbage_init(struct garbage *garbage, struct jobs *jobs);

/* Free a buffer of capacity bytes from malloc, now or later. */
void garbage_free(struct garbage *garbage, void *bytes, size_t capacity);

/* Free all waiting buffers at once. */
void garbage_end(struct garbage *garbage);

#endif
