/*
 * watch_beginning: delivers what a bucket holds when a watch begins.
 *
 * Used by watch. If the bucket is in memory, the entries come from there, in the order of revisions. Otherwise they
 * come from readings of the stream: each continues after the last one, until one has reached the position of the copy's
 * feed. A watch with from_revision then checks that no delete marker was removed that it should have been delivered:
 * see compact.
 */
#ifndef DAEMON_STORE_WATCH_BEGINNING_H
#define DAEMON_STORE_WATCH_BEGINNING_H

#include "daemon/base/arena.h"
#include "daemon/base/timers.h"
#include "daemon/nats/consumer.h"
#include "daemon/store/follow/cache.h"
#include "daemon/store/read/get.h"

struct watch;

/* What a watch that begins is doing. */
enum watch_step {
    WATCH_WALKING,    /* over the cache */
    WATCH_FETCHING,   /* a value that was evicted */
    WATCH_READING,    /* the stream */
    WATCH_PAUSING,    /* before it reads on: a server that is behind may have answered */
    WATCH_CONFIRMING, /* that no delete marker was removed that it should have been delivered */
    WATCH_BEGUN
};

/* Part of struct watch. */
struct watch_beginning {
    enum watch_step step;
    struct timer timer;
    uint64_t begin_position; /* the feed's position at the beginning */

    struct cache_cursor cursor;
    struct get get;
    struct arena *arena; /* of get */

    struct consumer_reading reading;
    uint64_t reading_position; /* the feed's position when the reading began */
    const char **subjects;
    size_t subject_count;
    bool is_narrow;        /* subjects match exactly what the filters match */
    bool is_confirmed;     /* a second reading was made, where servers may be behind */
    bool may_miss_markers; /* delete markers may have been removed that it was not delivered */
};

/*
 * Deliver what the bucket holds, as the watch's options say. Then watch_note_begun is called, maybe from within. The
 * watch may also end from within.
 */
void watch_beginning_start(struct watch *watch);

/* There is room again: continue if it waited for that. */
void watch_beginning_continue(struct watch *watch);

/* Stop. Does nothing if it is over. */
void watch_beginning_stop(struct watch *watch);

/* Free what it has left. */
void watch_beginning_free(struct watch *watch);

/* Delete markers up to this revision are about to be removed. */
void watch_beginning_note_removal(struct watch *watch, uint64_t revision);

/* The cache is about to be cleared: soon read the rest from the stream. */
void watch_beginning_leave_cache(struct watch *watch);

#endif
