/*
 * lock: waits until a lock is free, and acquires it.
 *
 * Used by the handlers. A lock is a key of a bucket that exists while somebody holds it. It is written on the condition
 * that it is absent, or that it is still at the revision that a dead lease has left. Those who wait in this daemon get
 * the lock in the order in which they came: only the first of them tries. It tries when it hears that the key was
 * deleted, when the holder's lease may have died, and every third of locks.lease_ttl.
 */
#ifndef DAEMON_STORE_LOCK_H
#define DAEMON_STORE_LOCK_H

#include "daemon/base/arena.h"
#include "daemon/store/lease/foreign_lease.h"
#include "daemon/store/lease/held_write.h"
#include "daemon/store/read/get.h"

#define LOCK_VALUE_MAX 1024u

enum lock_step {
    LOCK_IN_LINE,  /* others of this daemon came before */
    LOCK_WRITING,  /* the lock's key */
    LOCK_READING,  /* the lock's key: who holds it? */
    LOCK_ASKING,   /* whether the holder's lease is dead */
    LOCK_LISTENING /* somebody holds it */
};

struct lock_wait {
    /* Set by the caller; borrowed until done was called. */
    const char *bucket_name;
    const char *name;
    const char *value;
    size_t value_bytes;
    const char *owner;    /* as the header has it; NULL: none */
    uint64_t until_ms;    /* loop time until which it waits for the holder */
    uint64_t deadline_ms; /* loop time, of the first attempt */
    uint64_t attempt_ms;  /* the time of a later attempt */
    /* Return whether the lock is still wanted. The wait fails otherwise. */
    bool (*is_wanted)(void *arg);
    /*
     * Called with the holding, whose lost and arg holding_attach sets, or with an error. If another call of the session
     * has acquired the lock meanwhile, it is the holding of that call.
     */
    void (*done)(void *arg, struct holding *holding, const struct error *error);
    void *arg;

    /* private */
    struct store *store;
    struct arena *arena; /* of the call: what ten thousand that wait need not have, is not in here */
    struct arena_task task;
    struct arena attempt; /* of the write and the look of an attempt; cleared whenever the wait listens */
    bool has_attempt;     /* attempt is initialized */
    uint64_t owner_of_call;
    uint64_t call_id;
    bool has_listened;
    struct lock *lock;
    struct lock_wait *next, *previous; /* in line */
    enum lock_step step;
    char lease[LEASE_ID_BYTES]; /* of the holder, if it is another daemon's */
    uint64_t dead_revision;     /* of the key that names that lease; 0: the key must be absent */
    uint64_t marker_revision;   /* of the marker that the last holder has left; 0: not known */
    uint64_t doubts;            /* of the bucket, when these revisions were read */
    bool is_prolonged;          /* it waits longer than it was to, for a deletion */
    uint64_t asked_until_ms;    /* of a wait that is prolonged: until_ms before that */
    uint64_t looked_ms;         /* loop time of the last look at the key */
    unsigned failures;          /* attempts in a row that failed in another way */
    struct foreign_lease_wait asking;
    struct timer timer;
    char *holder; /* the value of the lock, when it was read; NULL: it was not. LOCK_VALUE_MAX bytes of the arena */
    size_t holder_bytes;
    bool has_holder;
    bool has_read;      /* the key: a further reading tells no more of the holder */
    bool has_failed;    /* the last attempt, in a way that does not tell whether there is a holder */
    bool is_ordinary;   /* when it was read, the key lived with no lease */
    struct error error; /* of the last attempt that failed */
};

/*
 * Get in line for a lock. *wait is zeroed but for what the caller sets. It lives in the arena. done is called once,
 * maybe from within.
 */
void lock_acquire(struct store *store, struct arena *arena, struct lock_wait *wait);

/* A lock's key was deleted, by a marker at this revision; 0: it may have been. The first in line tries now. */
void lock_wake(struct lease_bucket *in, const char *name, uint64_t marker_revision);

/* The first in line of each lock tries now. If the daemon ends, all who wait are answered with unavailable. */
void lock_try_all(struct lease_bucket *in);

#endif
