/*
 * reconcile: compares a local copy with its stream, beside the feed.
 *
 * Used by local_copy. A check finds keys that vanished without a message (expired, purged): it asks the stream for its
 * number of keys, and if that shows that keys are missing, it reads the subjects of all keys. A load reads all keys
 * with their values: before the feed begins, for reads, or because the stream may have other messages than were
 * delivered. After each reading, keys that it did not meet are removed from the copy, and watches are delivered their
 * deletion.
 */
#ifndef DAEMON_STORE_RECONCILE_H
#define DAEMON_STORE_RECONCILE_H

#include "daemon/base/jobs.h"
#include "daemon/nats/consumer.h"
#include "daemon/store/follow/cache.h"
#include "daemon/store/follow/feed.h"

struct local_copy;

enum reconcile_phase {
    RECONCILE_IDLE,
    RECONCILE_ASKING,               /* the stream, whether a check is worthwhile */
    RECONCILE_CHECKING,             /* reads the subjects of the keys */
    RECONCILE_LOADING,              /* reads keys and values */
    RECONCILE_REMOVING_AFTER_CHECK, /* removes keys that the check did not meet */
    RECONCILE_REMOVING_AFTER_LOAD   /* the same of the load */
};

/* The purpose of the load that is wanted or in progress. */
enum reconcile_purpose {
    RECONCILE_TO_FILL,    /* the copy has no value, or not all */
    RECONCILE_TO_DELIVER, /* the bucket was recreated: watches are delivered all that it has */
    RECONCILE_TO_COMPARE  /* the stream may have lost messages: watches are delivered what differs */
};

struct reconcile {
    enum reconcile_phase phase;
    enum reconcile_purpose purpose;
    bool wants_load;    /* at the next tick */
    bool wants_check;   /* as soon as it is possible */
    bool must_check;    /* nothing is answered from memory before a check */
    struct error error; /* why the last reading failed; ERROR_NONE: it did not */

    struct jetstream_call question;
    struct consumer_reading reading;
    const char **subjects; /* of a check */
    size_t subject_count;
    uint64_t begin_position;     /* the feed's position when the reading began */
    struct feed_place last_read; /* the last message that the reading met */
    int64_t question_us;         /* see feed_ops.caught_up */
    bool has_news;               /* the load has met a key that was written since, and is not known */
    bool is_confirmed;           /* a load has found a difference: the next one delivers what still differs */

    uint64_t checked_ms;       /* loop time of the last check */
    uint64_t awaits_ms;        /* loop time since which a check waits for watches that begin; 0: none does */
    uint64_t checked_subjects; /* in the stream, at the last check */

    struct job removing;
    struct timer removing_timer; /* while watches are slow to read what they were delivered */
    struct cache_cursor removing_cursor;
    uint64_t removing_limit; /* newer keys stay */
    uint64_t removed_marker; /* the latest marker that was removed, while removing; 0: none */
    uint64_t stalled_ms;     /* loop time since which it waits for slow watches; 0: it does not wait */
};

static inline bool reconcile_is_idle(const struct reconcile *reconcile)
{
    return reconcile->phase == RECONCILE_IDLE;
}

static inline bool reconcile_is_loading(const struct reconcile *reconcile)
{
    return reconcile->phase == RECONCILE_LOADING || reconcile->phase == RECONCILE_REMOVING_AFTER_LOAD;
}

/* Return whether keys that were not met are being removed. Watches do not begin meanwhile: their keys may vanish. */
static inline bool reconcile_is_removing(const struct reconcile *reconcile)
{
    return reconcile->phase >= RECONCILE_REMOVING_AFTER_CHECK;
}

/* Return whether all keys are compared with the stream: watches are notified of what differs. */
static inline bool reconcile_is_comparing(const struct reconcile *reconcile)
{
    return reconcile->purpose == RECONCILE_TO_COMPARE;
}

/* Return whether the copy may be trusted: false until a check or a comparing load that was asked for is done. */
static inline bool reconcile_is_trusted(const struct reconcile *reconcile)
{
    return !reconcile->must_check && !reconcile_is_comparing(reconcile);
}

/* Check as soon as it is possible. */
static inline void reconcile_request_check(struct reconcile *reconcile)
{
    reconcile->wants_check = true;
}

/* Load at the next tick. */
static inline void reconcile_request_load(struct reconcile *reconcile)
{
    reconcile->wants_load = true;
}

/* Load now. */
void reconcile_load(struct local_copy *copy);

/* The bucket was met for the first time, or recreated: forget what was in progress or wanted before. */
void reconcile_begin(struct local_copy *copy, bool is_recreated);

/* Load at the next tick, compare, and trust nothing before. question_us: see struct reconcile. */
void reconcile_compare(struct local_copy *copy, int64_t question_us);

/* Trust nothing before a check, which begins if it can. */
void reconcile_distrust(struct local_copy *copy);

/* Check, if a check is due or wanted, and possible now. */
void reconcile_check_if_due(struct local_copy *copy);

/* Load, if that is wanted and possible now. Return whether it begins. */
bool reconcile_load_if_wanted(struct local_copy *copy);

/* At each tick: load or check, if that is wanted and possible. */
void reconcile_tick(struct local_copy *copy);

/* A key has vanished from the stream without a message: remove it, and deliver its deletion to watches. */
void reconcile_remove_vanished(struct local_copy *copy, struct cache_key *key);

/* Stop what is in progress. */
void reconcile_stop(struct local_copy *copy);

#endif
