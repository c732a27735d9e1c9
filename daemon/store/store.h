/*
 * store: state that all modules of store share.
 *
 * Made by main; its parts are bucket (handles), read, write, admin, and what follows buckets: feed, replica, watch,
 * near. The store knows buckets, keys and revisions; it has never heard of a session.
 */
#ifndef DAEMON_STORE_STORE_H
#define DAEMON_STORE_STORE_H

#include "conf/conf.h"
#include "daemon/base/arena.h"
#include "daemon/base/jobs.h"
#include "daemon/base/metrics.h"
#include "daemon/base/timers.h"
#include "daemon/nats/connection.h"
#include "daemon/nats/jetstream.h"
#include "daemon/nats/request.h"
#include "daemon/store/follow/cache.h"
#include "daemon/store/room.h"
#include "daemon/store/write/bulk_writes.h"

#include <stdint.h>
#include <uv.h>

struct bucket_entry;

struct store {
    uv_loop_t *loop;
    const struct conf *conf;
    struct jobs *jobs;
    struct timers *timers;
    struct connection *connection;
    struct requests requests;
    struct jetstream jetstream;
    struct bucket_entry *buckets;        /* by name: uthash */
    struct feed *feeds;                  /* by their streams: uthash */
    struct local_copy *local_copies;     /* of followed buckets, by name: uthash */
    struct local_copy *found_local_copy; /* the last one that was looked for */
    struct local_copy *next_ticking;     /* at which the present tick of all replicas goes on; NULL: it is over */
    struct timer tick_timer;
    struct job ticking;
    struct local_copy_change *changes; /* of buckets, that leave no messages: uthash */
    unsigned uncounted_changes;        /* for which there was no memory */
    struct removed_bucket *removed;    /* by this daemon, of late: uthash */
    uint64_t full_until_ms;            /* loop time; until then no bucket gives up its place for another one */
    struct watch *ready_watches;       /* that have more to be told, and room for it */
    struct job telling;                /* tells ready_watches */
    struct cache_budget cache_budget;
    struct job collecting; /* the memory of caches that were cleared */
    struct job freeing_names;
    struct listed_names *listed_names; /* of listings that are over */
    uint64_t entry_serial;             /* numbers what watches are told */
    struct arena list_arena;           /* of the listing for cache.buckets */
    struct timer list_timer;
    bool is_listing;
    char name[72];                       /* that NATS knows this daemon by: nats.name, or its default */
    uint64_t writes;                     /* numbers the ids of writes */
    struct request_limit readings;       /* of histories and keys, each of which has a consumer */
    struct request_limit creations;      /* of consumers for watches and copies, which may then read for long */
    struct request_limit look_ups;       /* of buckets */
    struct request_limit administration; /* what admin asks */
    struct request_limit purges;         /* of delete markers */
    struct bulk_writes bulk_writes;
    struct compact *compactions; /* a list: in the order in which they were asked for */
    unsigned compactions_under_way;
    struct job starting_compactions;            /* of those that wait */
    struct compact_schedule *compact_schedules; /* of buckets with a marker_ttl, by name: uthash */
    bool is_ending;
    /*
     * Calls that may remove messages and leave no trace, of any bucket: purges and new settings. The beginning and the
     * end of each counts. Of the last whose end is not known it is told on which connection it may still come.
     */
    uint64_t removals;
    uint64_t removal_in_doubt;
    struct room room;                  /* of the embedded server */
    struct group_commit *dirty_groups; /* have something to send at the turn's end */
    struct job group_commit_flushing;
    struct group_commit *gathering_groups; /* wait a moment for more writes */
    uv_timer_t gather_timer;
    struct {
        uint64_t batches; /* group commits */
        uint64_t grouped; /* writes in them */
        struct metrics_histogram sizes;
        uint64_t failed; /* batches whose writes were sent again one by one */
    } group_commit_stats;
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

/* 0, or -1 when memory ran out. All pointers are borrowed. */
int store_init(struct store *store, uv_loop_t *loop, struct jobs *jobs, struct timers *timers, const struct conf *conf);

/* Stops the link; stopped is called from the loop, then store_free. */
void store_stop(struct store *store, void (*stopped)(void *arg), void *arg);
void store_free(struct store *store);

/* The configuration was read again. */
void store_reload(struct store *store);

/* At the end of each turn of the loop: sends what was gathered in it. */
void store_flush(struct store *store);

/*
 * Whether it makes sense to begin a call that needs NATS. False, with an error
 * of unavailable, when NATS could not be reached at the start and when the link has been away for
 * longer than nats.outage_wait; shortly after a loss, and while the first attempt is under way, a call may wait.
 */
bool store_is_available(const struct store *store, struct error *error);

/*
 * Milliseconds since the machine's start. Unlike the loop's time they go on while it is suspended: for what must not
 * count as young when it wakes up.
 */
uint64_t store_boot_ms(void);

/* Microseconds since the epoch, as the times of messages are. */
int64_t store_now_us(void);

/* A new id for a write or a batch, unique among all daemons: the Nats-Msg-Id that it is sent with. */
#define STORE_ID_BYTES 48
void store_make_write_id(struct store *store, char id[STORE_ID_BYTES]);

#endif
