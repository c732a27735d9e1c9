/*
 * pace: how long a server takes for a write while it has more to do, learned from its acks.
 *
 * Used by group. Acks may come in bursts (a server that syncs tells of many at once), so the pace is taken over a
 * stretch of them: until no write is in flight, or for PACE_STRETCH_MS. Of the last stretches the quickest counts:
 * what makes a server slow for a moment (a new file, a collection of garbage, another program that has the processor)
 * says nothing of what an ack costs it, and no server is ever quicker than its disk.
 */
#ifndef DAEMON_STORE_PACE_H
#define DAEMON_STORE_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define PACE_STRETCH_MS 20u
/* Fewer acks tell only that a server is no slower: their time is mostly that of the way there and back. */
#define PACE_ACKS_MIN 4u

/* The quickest of the last QUICKEST_OF times. All zeros to begin with. */
#define QUICKEST_OF 8u

struct quickest {
    double us; /* 0: none was noted yet */
    double last_us[QUICKEST_OF];
    unsigned count;
};

void quickest_note(struct quickest *quickest, double us);

/* All zeros to begin with. */
struct pace {
    struct quickest write; /* of each stretch, the time for a write */
    /* The stretch under way. */
    uint64_t begun_ns;
    unsigned acks;
    bool is_continued; /* it began when another ended, and not with a first write */
};

/* The first write goes out to a server that has nothing to do. */
void pace_begin(struct pace *pace, uint64_t now_ns);

/* A write is answered. */
void pace_ack(struct pace *pace);

/* When all answers that came together are noted. is_drained: none is awaited. True when a stretch was measured. */
bool pace_settle(struct pace *pace, bool is_drained, uint64_t now_ns);

#endif
