/*
 * follow_state: what the room follow keeps for the whole daemon.
 *
 * Used by the files of the room. The handlers read its numbers for the statistics.
 */
#ifndef DAEMON_STORE_FOLLOW_STATE_H
#define DAEMON_STORE_FOLLOW_STATE_H

#include "daemon/base/arena.h"
#include "daemon/base/jobs.h"
#include "daemon/base/timers.h"
#include "daemon/nats/request.h"
#include "daemon/store/context.h"
#include "daemon/store/follow/backlog.h"
#include "daemon/store/follow/cache.h"
#include "daemon/store/follow/walks.h"
#include "daemon/store/observe.h"

struct follow_state {
    struct store *store;
    struct observer observer;
    struct feed *feeds;                   /* by stream name: uthash */
    struct local_copy *local_copies;      /* by bucket name: uthash */
    struct local_copy *over_local_copies; /* whose buckets do not exist, and whose watches are being ended: a list */
    struct local_copy *found_local_copy;  /* the last one that local_copy_find returned */
    struct local_copy *next_ticking;      /* the next copy of the present tick; NULL: the tick is over */
    struct timer tick_timer;
    struct job ticking;
    struct local_copy_change *changes; /* by the buckets' names: uthash; see changes */
    unsigned uncounted_changes;        /* for which there was no memory */
    uint64_t full_until_ms;            /* loop time; until then no copy is replaced by that of another bucket */
    struct walks walks;
    struct watch *ready_watches; /* that have more to be delivered, and room for it */
    struct job delivering;       /* to ready_watches */
    struct cache_budget cache_budget;
    struct backlog_budget backlog_budget;
    struct job collecting;   /* the memory of caches that were cleared */
    uint64_t entry_serial;   /* of the last entry that was delivered to watches */
    struct arena list_arena; /* of the listing for cache.buckets */
    struct timer list_timer;
    bool is_listing;
    bool lists_again;               /* a bucket was created meanwhile */
    struct request_limit creations; /* of consumers for watches and copies, which may then read for long */
    struct {
        unsigned open;
        uint64_t total;
        uint64_t ended; /* by the daemon */
        uint64_t entries;
        uint64_t resyncs;
        uint64_t vanished;
    } watch_stats;
    struct {
        uint64_t hits, misses;
    } cache_stats;
};

#endif
