/*
 * increment: adds to a number that a key has as its value.
 *
 * Used by the handler. A value is a decimal integer of 64 bits as text. All increments of one key that wait at the same
 * time are combined: they become one conditional write, whose revision and outcome they share. Each gets the value that
 * it would have got alone, after the increments before it. If somebody else has written to the key, the value is read
 * again, and all are tried again.
 *
 * Users and sessions take turns. Increments with different TTLs are not combined. Overflow, the initial value and the
 * deadline concern one increment only. One that gives up before the write was sent is taken out of it; after that, it
 * counts.
 */
#ifndef DAEMON_STORE_INCREMENT_H
#define DAEMON_STORE_INCREMENT_H

#include "daemon/base/fair_queue.h"
#include "daemon/store/write/modify.h"

struct increment;

/* The new value and its revision, or an error. */
typedef void increment_done_fn(void *arg, int64_t value, uint64_t revision, const struct error *error);

/* Where the increment is. */
enum increment_place {
    INCREMENT_OUTSIDE, /* it has not begun, or has ended */
    INCREMENT_WAITING, /* for the next write of its key */
    INCREMENT_LEFT,    /* not chosen for the next write; it waits again in a moment */
    INCREMENT_WRITTEN, /* its key's write is in progress */
    INCREMENT_REFUSED, /* it is about to end with an error */
    INCREMENT_CHECKED, /* it is about to ask again whether an earlier call's copy is stored */
    INCREMENT_PLACES
};

/* The owner embeds it, zeroed but for what it sets, in the arena's memory. */
struct increment {
    /* Set by the caller: bucket_name, key, deadline_ms and journal. The digest is added here. */
    struct modify modify;
    int64_t delta;
    int64_t initial; /* what an absent key counts as */
    int64_t ttl_s;   /* of the new value; 0: what is left of the present one's */
    bool keep_ttl;   /* with ttl_s: only if the key is absent or has no TTL */
    increment_done_fn *done;
    void *arg;

    /* private */
    enum increment_place place;
    struct fair_queue_entry turn;      /* while INCREMENT_WAITING */
    struct increment *next, *previous; /* of those in the same place, otherwise */
    struct counter *counter;
    uint64_t number;    /* counts the increments of the counter */
    struct timer timer; /* of the deadline */
    int64_t value;      /* after it, while INCREMENT_WRITTEN */
};

void increment_start(struct store *store, struct arena *arena, struct increment *increment);

#endif
