/*
 * request_limit: bounds how many requests of a kind are at the server at a time.
 *
 * Used by request and by the store, for requests that take the server milliseconds: of a thousand at once most would be
 * sent again before they are answered, and the server would have ever more to do. A request takes places according to
 * its weight, and one may always go. The other requests wait, and users and sessions take turns: see fair_queue.
 */
#ifndef DAEMON_NATS_REQUEST_LIMIT_H
#define DAEMON_NATS_REQUEST_LIMIT_H

#include "daemon/base/fair_queue.h"

#include <stdbool.h>

/* Zeroed but for max and is_of_many_streams. */
struct request_limit {
    unsigned max;
    unsigned taken;
    /*
     * The requests are for different streams: one without an answer, or whose stream has no leader, gives up its place
     * until its next attempt.
     */
    bool is_of_many_streams;
    struct fair_queue waiting;
};

/* A request's share of a limit. Zeroed: none. */
struct request_place {
    struct request_limit *limit; /* NULL: none */
    unsigned weight;
};

/* Return whether a request of this weight may go now. */
static inline bool request_limit_fits(const struct request_limit *limit, unsigned weight)
{
    return limit->taken == 0 || limit->taken + weight <= limit->max;
}

static inline void request_place_acquire(struct request_place *place, struct request_limit *limit, unsigned weight)
{
    *place = (struct request_place){limit, weight};
    limit->taken += weight;
}

/* Return the limit in which there is room now; NULL: the place was none. */
static inline struct request_limit *request_place_release(struct request_place *place)
{
    struct request_limit *limit = place->limit;

    if (limit != NULL)
        limit->taken -= place->weight;
    place->limit = NULL;
    return limit;
}

#endif
