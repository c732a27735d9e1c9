/*
 * raise_horizon: writes to a bucket up to which revision its delete markers may have been removed.
 *
 * Used by compact, before it removes the first of these markers: see horizon. The horizon is never lowered, also if
 * several hosts write it at once.
 */
#ifndef DAEMON_STORE_RAISE_HORIZON_H
#define DAEMON_STORE_RAISE_HORIZON_H

#include "daemon/base/arena.h"
#include "daemon/store/read/get.h"
#include "daemon/store/write/write.h"

/* The owner embeds it, zeroed. */
struct raise_horizon {
    /* Set by the owner; borrowed. */
    struct store *store;
    const char *bucket;
    uint64_t owner;      /* see request */
    uint64_t connection; /* number of the connection on which the markers were read */
    uint64_t deadline_ms;
    /* The bucket has this horizon or a higher one, or there was an error. Called once for each start. */
    void (*done)(void *arg, const struct error *error);
    void *arg;

    uint64_t horizon; /* result: of the bucket */

    /* private */
    uint64_t wanted;
    struct arena arena;
    bool has_arena;
    struct get get;
    struct write write;
};

/* Raise the horizon to a revision. Does nothing if it is as high already. done may be called from within. */
void raise_horizon_start(struct raise_horizon *raise, uint64_t revision);

/* Stop; done is not called. Does nothing if it is over. */
void raise_horizon_stop(struct raise_horizon *raise);

#endif
