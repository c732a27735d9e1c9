/*
 * watch: one watcher of a bucket.
 *
 * Used by the handlers; replica tells it what changes. A watch begins with what the bucket holds, as its options say,
 * and then tells each change, without a gap or a repeat. If the bucket is in memory, the beginning comes from there, in
 * the order of revisions. Otherwise it comes from readings of the stream: each goes on where the last one ended, until
 * one has reached the position of the replica's feed. A watch with from_revision then checks that no delete marker was
 * removed that it should have been told (see compact). A live watch may fall behind: see backlog.
 */
#ifndef DAEMON_STORE_WATCH_H
#define DAEMON_STORE_WATCH_H

#include "daemon/base/arena.h"
#include "daemon/nats/consumer.h"
#include "daemon/store/context.h"
#include "daemon/store/follow/backlog.h"
#include "daemon/store/follow/cache.h"
#include "daemon/store/read/get.h"

#define WATCH_FILTERS_MAX 64u

enum watch_from {
    WATCH_LAST,     /* the last entry of each key */
    WATCH_HISTORY,  /* all entries */
    WATCH_REVISION, /* all from a revision on */
    WATCH_UPDATES   /* nothing but what is written from now on */
};

/* None of these functions may end the watch from within. */
struct watch_ops {
    /* The watch has begun. Called before everything else. */
    void (*started)(void *arg);
    /*
     * Deliver an entry. serial is the same for all watches that are told the same entry. Return false if must_fit and
     * there is no room: then the watch ends with resource_exhausted.
     */
    bool (*entry)(void *arg, const struct kv_entry *entry, uint64_t serial, bool must_fit);
    /* Pack an entry in all forms. serial as above. The bytes are valid until the next entry is packed or delivered. */
    void (*pack)(void *arg, const struct kv_entry *entry, uint64_t serial, struct watch_packed packed[WATCH_FORMS]);
    /* Deliver an entry that was packed. Called only after has_room has returned true. */
    void (*packed)(void *arg, const struct watch_packed packed[WATCH_FORMS]);
    /*
     * Return whether a watch that begins or is behind should be told more now. After false, what a pull has already
     * requested is still delivered.
     */
    bool (*has_room)(void *arg);
    /* has_room has returned false: call watch_go_on once there is room. */
    void (*await_room)(void *arg);
    /* Everything that was there at the beginning has been delivered. */
    void (*ready)(void *arg);
    /* The watch could not begin, or ends. The last call. error has the revision to go on from, if it is known. */
    void (*ended)(void *arg, const struct error *error);
};

enum watch_state {
    WATCH_OVER,
    WATCH_OPENING,    /* the bucket is not followed yet */
    WATCH_WALKING,    /* over the cache */
    WATCH_FETCHING,   /* a value that was evicted, on the way */
    WATCH_READING,    /* the stream */
    WATCH_SETTLING,   /* before it reads on: a server that is behind may have answered */
    WATCH_CONFIRMING, /* checks that no delete marker was removed that it should have been told */
    WATCH_LIVE
};

/* The owner allocates it, zeroed; it may go when ended was called, or after watch_stop. */
struct watch {
    /* Set by the owner; borrowed for the watch's life. */
    const char *const *filters;
    size_t filter_count;
    enum watch_from from;
    uint64_t from_revision;
    bool ignores_deletes;
    const void *owner; /* see request */
    const struct watch_ops *ops;
    void *arg;

    /* private */
    struct watch *next, *previous;             /* of the replica */
    struct watch *next_ready, *previous_ready; /* of those that go on */
    bool is_going_on;
    struct watch *next_behind, *previous_behind; /* of the change */
    struct change *behind;                       /* the first change that it was not told; NULL: it is not behind */
    unsigned epoch;                              /* of the replica's backlog: told is a revision of this epoch */
    bool is_lost;                                /* it was too far behind, and ends when its turn comes */
    uint64_t lost_revision;                      /* to go on from; 0: it must begin anew */
    struct filter_ref *refs;                     /* of filters, in the replica's tree; NULL: it is behind */
    uint64_t matched_serial;                     /* of the last entry that a filter matched */
    struct store *store;
    struct local_copy *copy;
    enum watch_state state;
    struct timer timer;
    uint64_t told; /* all up to this revision was told */
    bool is_ready;

    struct cache_cursor cursor;
    struct read_get get;
    struct arena *arena; /* of get */

    struct consumer_reading reading;
    const char **subjects;
    size_t subject_count;
    bool is_narrow;        /* subjects say just what filters say */
    bool is_confirmed;     /* by a second look, where servers may be behind */
    bool is_complete;      /* after the reading, no marker from from_revision on had been removed */
    bool may_miss_markers; /* some were removed since that it was not told yet */
    uint64_t began_at;     /* the feed's position when it began */
    uint64_t reading_from; /* the feed's position when the reading began */
};

/*
 * Begins a watch of a bucket whose name is well-formed. ops->started or ops->ended is called within deadline_ms (loop
 * time), maybe from within.
 */
void watch_start(struct store *store, struct watch *watch, const char *bucket, uint64_t deadline_ms);

/* Ends it without a word. Does nothing when it is over. */
void watch_stop(struct watch *watch);

/* --- For replica --- */

/* The feed is there. */
void watch_begin(struct watch *watch);

/* Return whether the watch is told changes. */
static inline bool watch_is_live(const struct watch *watch)
{
    return watch->state == WATCH_LIVE;
}

/* Tell a change. */
void watch_tell(struct watch *watch, const struct kv_entry *entry, uint64_t serial);

/*
 * Tell that a key has vanished without a message, or has an earlier value again. A watch that is resumed from a
 * revision is not told such changes.
 */
void watch_tell_again(struct watch *watch, const struct kv_entry *entry, uint64_t serial);

/* Let a live watch fall behind: a job tells it the change, and all later ones. Until then it is not in the tree. */
void watch_fall_behind(struct watch *watch, struct change *change);

/* End a watch that is too far behind, when its turn comes. revision: to go on from; 0: it must begin anew. */
void watch_lose(struct watch *watch, uint64_t revision);

/* The bucket was recreated: all that it holds is told as changes. */
void watch_follow_anew(struct watch *watch);

/* Delete markers up to this revision are about to be removed. */
void watch_note_removal(struct watch *watch, uint64_t revision);

/* The cache goes: it must read on from the stream. */
void watch_leave_cache(struct watch *watch);

void watch_end(struct watch *watch, const struct error *error);

/* --- For the owner --- */

/* Go on when the watch's turn comes: there is room again. Does nothing if it did not wait. */
void watch_go_on(struct watch *watch);

#endif
