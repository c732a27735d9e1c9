/*
 * watch: one watcher of a bucket.
 *
 * Used by the handlers. A watch begins with what the bucket holds, as its options say (see watch_beginning), and is
 * then delivered each change, without a gap or a repetition. A live watch may fall behind: see backlog. It is a member
 * of the watch_set of its local copy.
 */
#ifndef DAEMON_STORE_WATCH_H
#define DAEMON_STORE_WATCH_H

#include "daemon/store/context.h"
#include "daemon/store/follow/watch_beginning.h"
#include "daemon/store/follow/watch_cut.h"
#include "daemon/store/follow/watch_set.h"

enum watch_from {
    WATCH_LAST,     /* the last entry of each key */
    WATCH_HISTORY,  /* all entries */
    WATCH_REVISION, /* all from a revision on */
    WATCH_UPDATES   /* only what is written from now on */
};

/* None of these functions may end the watch from within. */
struct watch_ops {
    /* The watch has begun. Called before everything else. */
    void (*started)(void *arg);
    /*
     * Deliver an entry. serial is the same for all watches that are delivered the same entry. is_unrecorded: the feed
     * has not brought it: the key has vanished, or the server came back older. Return false if must_fit and there is no
     * room: then the watch ends with resource_exhausted.
     */
    bool (*entry)(void *arg, const struct kv_entry *entry, uint64_t serial, bool must_fit, bool is_unrecorded);
    /* Pack an entry in all forms. serial as above. The bytes are valid until the next entry is packed or delivered. */
    void (*pack)(void *arg, const struct kv_entry *entry, uint64_t serial, struct watch_packed packed[WATCH_FORMS]);
    /* Deliver an entry that was packed. Called only after has_room has returned true. */
    void (*packed)(void *arg, const struct watch_packed packed[WATCH_FORMS], bool is_unrecorded);
    /*
     * Return whether a watch that begins or is behind should be delivered more now. After false, what a pull has
     * already requested is still delivered.
     */
    bool (*has_room)(void *arg);
    /* has_room has returned false: call watch_continue once there is room. */
    void (*await_room)(void *arg);
    /*
     * Everything that was there at the beginning has been delivered. revision: the point in time of a snapshot; NULL:
     * the watch is not a snapshot.
     */
    void (*ready)(void *arg, const uint64_t *revision);
    /* The watch could not begin, or ends. The last call. error has the revision to resume from, if it is known. */
    void (*ended)(void *arg, const struct error *error);
};

enum watch_state {
    WATCH_OVER,
    WATCH_LOOKING_UP, /* the bucket, before a copy of it is created: names that no bucket has must not use up room */
    WATCH_OPENING,    /* the bucket is not followed yet, or not up to what was acknowledged before the watch */
    WATCH_BEGINNING,  /* what is there at the beginning is being delivered: see watch_step */
    WATCH_LIVE,       /* changes are delivered at once */
    WATCH_BEHIND,     /* changes come from the backlog */
    WATCH_LOST        /* it was too far behind, and ends when its turn comes */
};

/* The owner allocates it, zeroed; it may go when ended was called, or after watch_stop. */
struct watch {
    /* Set by the owner; borrowed for the watch's life. */
    const char *const *filters;
    size_t filter_count;
    enum watch_from from;
    uint64_t from_revision;
    bool ignores_deletes;
    bool wants_previous; /* changes have the value before them, if it is in memory */
    bool is_snapshot;    /* ready is called at one point in time: see watch_cut */
    uint64_t owner;      /* see request */
    const struct watch_ops *ops;
    void *arg;

    /* private */
    struct watch_member member; /* of the copy's watch_set */
    struct watch *next_ready,
        *previous_ready; /* in the list of watches that may continue; previous_ready is NULL if it is not in it */
    struct store *store;
    struct local_copy *copy;
    enum watch_state state;
    struct bucket_wait look_up;
    struct timer timer;       /* of WATCH_OPENING */
    uint64_t deadline_ms;     /* of WATCH_OPENING */
    uint64_t must_reach;      /* the revision that the feed must have reached before the watch begins */
    uint64_t delivered;       /* everything up to this revision was delivered */
    uint64_t resume_revision; /* of a lost watch: to resume from; 0: there is none */
    bool was_beginning;       /* the same: it had not begun yet */
    uint64_t moved_ms;        /* of WATCH_BEGINNING: loop time at which it has begun, read or delivered something */
    unsigned epoch;           /* of the backlog: delivered is a revision of this epoch */
    struct watch_beginning beginning;
    struct watch_cut cut;
};

/*
 * Begin a watch of a bucket whose name is well-formed. ops->started or ops->ended is called within deadline_ms (loop
 * time), maybe from within.
 */
void watch_start(struct store *store, struct watch *watch, const char *bucket, uint64_t deadline_ms);

/* Stop it without calling ended. Does nothing if it is over. */
void watch_stop(struct watch *watch);

/* Stop it, and call ended with the error and the revision to resume from. */
void watch_end(struct watch *watch, const struct error *error);

/* Continue when the watch's turn comes: there is room again. Does nothing if it did not wait. */
void watch_continue(struct watch *watch);

/* --- For watch_beginning --------------------------------------------------------------------------- */

/* Everything that was there has been delivered: changes are delivered from now on. */
void watch_note_begun(struct watch *watch);

/* End a watch that resumes from a revision after which deletions may be missing. */
void watch_end_gone(struct watch *watch);

/* Remove the watch from the list of those that may continue. */
void watch_cancel_turn(struct watch *watch);

/* Deliver an entry of the beginning. The watch waits for room between entries, so this one need not fit. */
void watch_deliver_first(struct watch *watch, const struct kv_entry *entry);

/* Return whether a filter matches the key. */
bool watch_matches(const struct watch *watch, const char *key);

/* Note that the watch's beginning makes progress. */
static inline void watch_note_move(struct watch *watch)
{
    watch->moved_ms = uv_now(watch->store->loop);
}

/* Note that everything up to a revision was delivered. */
static inline void watch_note_delivered(struct watch *watch, uint64_t revision)
{
    if (revision > watch->delivered)
        watch->delivered = revision;
}

#endif
