/*
 * watch: one watcher of a bucket.
 *
 * Used by the handlers; replica tells it what changes. A watch begins with what the bucket holds, as its options say,
 * and goes over to the changes without a hole or a repeat. What is there at the beginning comes from memory
 * where the bucket is in it, in the order of revisions, else from a reading of the stream, which goes on from where it
 * ended until it has met the replica's feed.
 */
#ifndef DAEMON_STORE_WATCH_H
#define DAEMON_STORE_WATCH_H

#include "daemon/arena.h"
#include "daemon/nats/consumer.h"
#include "daemon/store/backlog.h"
#include "daemon/store/cache.h"
#include "daemon/store/read.h"
#include "daemon/store/store.h"

#define WATCH_FILTERS_MAX 64u

enum watch_from {
    WATCH_LAST,     /* the last entry of each key */
    WATCH_HISTORY,  /* all entries */
    WATCH_REVISION, /* all from a revision on */
    WATCH_UPDATES   /* nothing but what is written from now on */
};

/* None of them may end the watch from within. */
struct watch_ops {
    /* It has begun: told before anything else. */
    void (*started)(void *arg);
    /*
     * An entry. serial is the same for all watches that are told of the same one. False, where it must fit: there is
     * no room, and the watch ends with resource_exhausted.
     */
    bool (*entry)(void *arg, const struct kv_entry *entry, uint64_t serial, bool must_fit);
    /*
     * An entry in all its forms. serial as above. They are valid until the next entry is packed or told.
     */
    void (*pack)(void *arg, const struct kv_entry *entry, uint64_t serial, struct watch_packed packed[WATCH_FORMS]);
    /* An entry that was packed; there was room just now. */
    void (*packed)(void *arg, const struct watch_packed packed[WATCH_FORMS]);
    /*
     * While the watch begins, or is behind: whether it should go on telling now. What is on its way already need not
     * fit: it is no more than a pull brings.
     */
    bool (*has_room)(void *arg);
    /* There was none: call watch_go_on when there is. */
    void (*await_room)(void *arg);
    /* All that was there is told. */
    void (*ready)(void *arg);
    /* It could not begin, or must end; the last call. error has a revision where it is known from where to go on. */
    void (*ended)(void *arg, const struct error *error);
};

enum watch_state {
    WATCH_OVER,
    WATCH_OPENING,    /* the bucket is not followed yet */
    WATCH_WALKING,    /* over the cache */
    WATCH_FETCHING,   /* a value that was evicted, on the way */
    WATCH_READING,    /* the stream */
    WATCH_SETTLING,   /* before it reads on: a server that is behind may have answered */
    WATCH_CONFIRMING, /* that no delete markers were removed that it should have been told */
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
    struct change *behind;                       /* the first that it was not told; NULL: it is not behind */
    unsigned epoch;                              /* of the replica's backlog, that told is of */
    bool is_lost;                                /* it was too far behind, and ends */
    uint64_t lost_revision;                      /* to go on from; 0: it must begin anew */
    struct filter_ref *refs;                     /* of filters, in the replica's tree; NULL: it is behind */
    uint64_t matched_serial;                     /* of the last entry that a filter matched */
    struct store *store;
    struct replica *replica;
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
    bool is_complete;      /* no marker behind from_revision had been removed when all was read */
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

/* Whether it is told of changes. */
static inline bool watch_is_live(const struct watch *watch)
{
    return watch->state == WATCH_LIVE;
}

/* Something changed. */
void watch_tell(struct watch *watch, const struct kv_entry *entry, uint64_t serial);

/* A key is not there any more, or is as it was: no revision tells it to who begins again. */
void watch_tell_again(struct watch *watch, const struct kv_entry *entry, uint64_t serial);

/* The change is one of many that it is told of in a job's turn. A live watch leaves the tree of filters for so long. */
void watch_fall_behind(struct watch *watch, struct change *change);

/* It was too far behind, and ends in its turn. revision: to go on from; 0: none. */
void watch_lose(struct watch *watch, uint64_t revision);

/* The bucket was made anew: all that it holds is told as changes. */
void watch_follow_anew(struct watch *watch);

/* The cache goes: it must read on from the stream. */
void watch_leave_cache(struct watch *watch);

void watch_end(struct watch *watch, const struct error *error);

/* --- For the owner --- */

/* There is room again: the watch goes on in its turn. Does nothing if it did not wait. */
void watch_go_on(struct watch *watch);

#endif
