#include "daemon/transport/garbage.h"

#include <stdlib.h>
#include <string.h>

/* A buffer of this size is worth a job. */
#define LARGE_BYTES (1024u * 1024u)

/* Lies at the beginning of a buffer that waits. */
struct garbage_buffer {
    struct garbage_buffer *next;
};

static bool garbage_run(struct job *job)
{
    struct garbage *garbage = (struct garbage *)((char *)job - offsetof(struct garbage, freeing));

    while (garbage->first != NULL) {
        struct garbage_buffer *buffer = garbage->first;
        garbage->first = buffer->next;
        free(buffer);
        if (jobs_slice_is_over(garbage->jobs))
            return garbage->first != NULL;
    }
    return false;
}

void garbage_init(struct garbage *garbage, struct jobs *jobs)
{
    memset(garbage, 0, sizeof(*garbage));
    garbage->jobs = jobs;
}

void garbage_free(struct garbage *garbage, void *bytes, size_t capacity)
{
    if (capacity < LARGE_BYTES) {
        free(bytes);
        return;
    }
    struct garbage_buffer *buffer = bytes;
    buffer->next = garbage->first;
    garbage->first = buffer;
    jobs_add_shared(garbage->jobs, &garbage->freeing, garbage_run);
}

void garbage_end(struct garbage *garbage)
{
    while (garbage_run(&garbage->freeing))
        ;
    jobs_remove(garbage->jobs, &garbage->freeing);
}
