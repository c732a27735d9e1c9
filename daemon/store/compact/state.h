/*
 * compact_state: what the room compact keeps for the whole daemon.
 *
 * Used by the files of the room only.
 */
#ifndef DAEMON_STORE_COMPACT_STATE_H
#define DAEMON_STORE_COMPACT_STATE_H

#include "daemon/base/turns.h"
#include "daemon/nats/request.h"
#include "daemon/store/context.h"
#include "daemon/store/observe.h"

struct compact_state {
    struct observer observer;
    struct request_limit purges; /* of delete markers */
    struct compact *compactions; /* a list: in progress or waiting */
    struct turns turns;
    struct compact_schedule *schedules; /* of buckets with a marker_ttl, by name: uthash */
    struct compact_opened *opened;      /* buckets with a marker_ttl that were used since the start: uthash */
    struct compact_progress *progress;  /* of buckets, by name: uthash */
    bool is_ending;
};

#endif
