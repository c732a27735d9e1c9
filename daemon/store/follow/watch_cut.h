/*
 * watch_cut: finds a revision at which what a watch was delivered is exactly what the bucket holds.
 *
 * Used by watch, for watches with the option snapshot. What a watch is delivered first was read over some time, and of
 * a key that was overwritten meanwhile only a later value came. So the entries amount to no point in time yet. They do
 * at a revision R if everything up to R was delivered, and if each message that was skipped has been replaced by one up
 * to R. A message is skipped because another one replaced it, which the stream had by then. So:
 *
 *     1. ask the leader for the stream's last sequence, L, after the watch has become live;
 *     2. wait until the feed has reached L, without skipping a message since the question;
 *     3. R is the feed's position then, unless it is within an atomic batch.
 *
 * If the feed has skipped a message, begin again. The question takes a fraction of a millisecond, so a bucket must be
 * overwritten faster than the feed delivers, all the time, to prevent that.
 */
#ifndef DAEMON_STORE_WATCH_CUT_H
#define DAEMON_STORE_WATCH_CUT_H

#include "daemon/base/timers.h"
#include "daemon/nats/jetstream.h"

struct watch;

enum watch_cut_phase {
    WATCH_CUT_OFF,
    WATCH_CUT_ASKING,   /* the leader, for its last sequence */
    WATCH_CUT_REACHING, /* the feed is on its way there */
    WATCH_CUT_PAUSING   /* before the next question */
};

/* Part of struct watch. */
struct watch_cut {
    enum watch_cut_phase phase;
    struct jetstream_call question;
    struct timer timer;
    unsigned pause_ms;
    uint64_t gaps;   /* of the feed, when the question was asked */
    uint64_t target; /* the leader's last sequence */
};

/* The watch is live: find a revision, then call its ready. */
void watch_cut_start(struct watch *watch);

/* The feed has moved on, or the watch has caught up with it: look whether the watch is ready. */
void watch_cut_look(struct watch *watch);

/* Stop. Does nothing if it is over. */
void watch_cut_stop(struct watch *watch);

#endif
