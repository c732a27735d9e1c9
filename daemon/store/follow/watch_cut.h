/*
 * watch_cut: finds a revision at which the entries that a watch has delivered are exactly what the bucket held.
 *
 * Used by watch, for watches with the option snapshot. The first entries of a watch are read over some time. If a key
 * is overwritten meanwhile, only the later value is delivered. So at first the entries are not those of one point in
 * time. They are those of a revision R under two conditions. Everything up to R was delivered, except skipped messages;
 * and each skipped message was replaced by one up to R. A message is skipped only after the stream has stored the one
 * that replaces it. So:
 *
 *     1. Ask the leader for the stream's last sequence, L, after the watch has become live.
 *     2. Wait until the feed has reached L, without skipping a message since the question.
 *     3. R is the feed's position then, unless it is within an atomic batch.
 *
 * If the feed has skipped a message, begin again. The question takes a fraction of a millisecond. So only a bucket that
 * is overwritten all the time, faster than the feed delivers, delays the snapshot.
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

/* The watch is live: find a revision, then call ready of the watch. */
void watch_cut_start(struct watch *watch);

/* The feed has moved on, or the watch has caught up with it: look whether the watch is ready. */
void watch_cut_look(struct watch *watch);

/* Stop. Does nothing if it is over. */
void watch_cut_stop(struct watch *watch);

#endif
