/*
 * bulk_writes: which writes of bulk calls are under way.
 *
 * Used by bulk_write; a part of store. The bulk calls of a bucket have a window of writes at NATS, and all together
 * have one; in it the owners of the calls take turns. So a single write waits for one window of others' bulk work,
 * however much of it there is, and a bucket without a leader does not take the room of the others.
 */
#ifndef DAEMON_STORE_BULK_WRITES_H
#define DAEMON_STORE_BULK_WRITES_H

#include "daemon/base/table.h"

#include <stdbool.h>

struct bulk_write;

/* The calls of one session on one bucket that have more to begin. */
struct bulk_owner {
    struct bulk_owner *next, *previous;
    const void *identity;
    struct bulk_write *first; /* whose turn it is */
};

/* One bucket's; there while something of it is under way. */
struct bulk_window {
    UT_hash_handle hh; /* by bucket */
    struct bulk_window *next, *previous;
    struct bulk_owner *first; /* whose turn it is; NULL: all is begun */
    unsigned in_flight;
    char bucket[];
};

/* Zeroed: none. */
struct bulk_writes {
    struct bulk_window *by_bucket; /* uthash */
    struct bulk_window *first;     /* whose turn it is */
    unsigned in_flight;            /* of all windows */
    bool is_filling;
};

#endif
