/*
 * local_copy_info: the followed buckets, for daemon.dump.
 */
#ifndef DAEMON_STORE_LOCAL_COPY_INFO_H
#define DAEMON_STORE_LOCAL_COPY_INFO_H

#include "daemon/store/context.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct local_copy_info {
    const char *bucket;
    const char *feed;  /* the phase of its feed, such as "live" */
    const char *error; /* why the bucket is not followed; NULL: nothing is known */
    uint64_t position; /* the last revision that the feed has brought */
    unsigned resyncs;  /* times that the feed was recreated */
    unsigned watches;
    unsigned waits;     /* calls that wait for the feed */
    size_t keys;        /* in memory */
    size_t bytes;       /* of memory */
    bool answers_reads; /* every key is there */
};

/* Call visit for each followed bucket. */
void local_copy_each(const struct store *store, void (*visit)(void *arg, const struct local_copy_info *info),
                     void *arg);

#endif
