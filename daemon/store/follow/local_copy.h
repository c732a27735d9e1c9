/*
 * local_copy: what this daemon has in memory of a bucket that it follows.
 *
 * Used by watch, cached_read and compact. A local copy is created when a client watches a bucket, or reads it in a way
 * that memory may answer, or when cache.buckets names the bucket. It is freed some time after its last use. One tick
 * serves all copies.
 *
 * The parts of a copy, each of which only its own module changes:
 *
 *     feed           every message of the bucket, in order
 *     contents       the keys and values in memory
 *     watches        the watches of the bucket, and the changes that some have not been delivered
 *     min_revisions  what answers must include
 *     waits          calls that wait for the feed or for a load
 *     reconcile      readings of the whole bucket: loads, and checks for keys that vanished without a message
 *
 * Calls go in this order: cached_read and watch call local_copy; local_copy calls reconcile; both call the other parts.
 * No part calls back, but for the functions that watch and the waiting calls have given it.
 */
#ifndef DAEMON_STORE_LOCAL_COPY_H
#define DAEMON_STORE_LOCAL_COPY_H

#include "daemon/store/bucket/bucket.h"
#include "daemon/store/context.h"
#include "daemon/store/follow/contents.h"
#include "daemon/store/follow/feed.h"
#include "daemon/store/follow/local_copy_wait.h"
#include "daemon/store/follow/min_revision.h"
#include "daemon/store/follow/reconcile.h"
#include "daemon/store/follow/watch_set.h"

/* How often the periodic work of all copies is done. */
#define LOCAL_COPY_TICK_MS 1000u

enum local_copy_state {
    LOCAL_COPY_UNOPENED, /* the bucket is looked up at the next tick */
    LOCAL_COPY_OPENING,  /* the bucket is being looked up */
    LOCAL_COPY_OPEN,     /* the feed was started */
    LOCAL_COPY_OVER      /* there is no such bucket: nobody finds the copy, its watches end, then it is freed */
};

/*
 * A room above that is notified of every change of a bucket, at once and beside the watches. It has a copy of the
 * bucket kept. The owner embeds it, zeroed but for the functions. None of them may end the copy, or stop listening,
 * from within.
 */
struct local_copy_listener {
    struct local_copy *copy; /* NULL: it does not listen */
    bool keeps_copy;         /* false: another bucket may take its place when too many are followed */
    /* A message of the bucket, or a change of which the stream has no message. */
    void (*entry)(struct local_copy_listener *listener, const struct kv_entry *entry);
    /* The bucket was recreated, or its stream may have lost messages. */
    void (*doubt)(struct local_copy_listener *listener);
    /*
     * All that the stream had was delivered, for the first time, or after a loss of the connection. has_another_keeper:
     * another server process keeps the stream than before, which may have lost messages that were not delivered.
     */
    void (*caught_up)(struct local_copy_listener *listener, bool has_another_keeper);
    /* The copy has ended, and the listener hears no more. */
    void (*ended)(struct local_copy_listener *listener);
};

struct local_copy {
    UT_hash_handle hh;                  /* by its name, unless it is over */
    struct local_copy *next, *previous; /* if it is over */
    char name[KV_BUCKET_LENGTH_MAX + 1];
    struct store *store;
    enum local_copy_state state;
    struct bucket *bucket; /* if the copy is open */
    struct bucket_wait wait;
    bool is_configured; /* named by cache.buckets */
    uint64_t read_ms;   /* loop time of the last cached read */
    uint64_t used_ms;   /* the same, or of the last watch's end */
    struct job ending;  /* of watches, with the feed's error */

    struct feed feed;
    unsigned seen_resyncs; /* of the feed */
    struct contents contents;
    struct watch_set watches;
    struct local_copy_listener *listener; /* NULL: there is none */
    struct min_revisions min_revisions;
    struct local_copy_waits waits;
    struct reconcile reconcile;
};

/* What a bucket is followed for. */
enum local_copy_use { LOCAL_COPY_FOR_WATCH, LOCAL_COPY_FOR_READ, LOCAL_COPY_CONFIGURED };

/*
 * Return the copy of a bucket that exists, as far as is known; create it if there is none. known: the bucket as it was
 * looked up just now; NULL: it is looked up for the new copy. NULL, with an error of resource_exhausted: too many
 * buckets are followed already. user: see fair_queue_user. The memory of the copy counts for the user who has created
 * it, and then for the one whose read has made it keep values; for nobody if the configuration names the bucket.
 */
struct local_copy *local_copy_obtain(struct store *store, const char *bucket, struct bucket *known,
                                     enum local_copy_use use, uint64_t user, struct error *error);

/* Return the copy of a bucket; NULL: there is none. */
struct local_copy *local_copy_find(struct store *store, const char *bucket);

/* A watch has ended: the copy stays for a while. */
void local_copy_note_use(struct local_copy *copy);

/* Return whether watches can begin: the feed is live, and no keys are being removed. */
static inline bool local_copy_is_following(const struct local_copy *copy)
{
    return feed_is_live(&copy->feed) && !reconcile_is_removing(&copy->reconcile);
}

/* Return whether the feed waits for a load. */
static inline bool local_copy_is_before_feed(const struct local_copy *copy)
{
    return copy->feed.phase == FEED_HELD;
}

/* Begin the watches that wait for the copy to follow its bucket. */
static inline void local_copy_begin_watches(struct local_copy *copy)
{
    if (local_copy_is_following(copy))
        watch_set_begin(&copy->watches);
}

/*
 * Return whether nobody but this daemon writes to the bucket: it is one of the embedded server's, and has no origin.
 * Then memory has what the bucket has, apart from writes that were sent and not answered yet.
 */
static inline bool local_copy_is_exclusive(const struct local_copy *copy)
{
    return feed_is_exclusive(&copy->feed, copy->store->conf);
}

/* Return why the bucket is not followed yet; code ERROR_NONE: not known. */
static inline const struct error *local_copy_error(const struct local_copy *copy)
{
    return copy->feed.error.code != ERROR_NONE ? &copy->feed.error : &copy->reconcile.error;
}

/* --- For lease ------------------------------------------------------------------------------------- */

/* Begin to listen to a bucket, to which nobody else listens. False: too many are followed, or memory ran out. */
bool local_copy_listen(struct store *store, const char *bucket, struct local_copy_listener *listener);

/* Does nothing if it does not listen. */
void local_copy_stop_listening(struct local_copy_listener *listener);

/* Tell the listener of a change. For the files of this room. */
static inline void local_copy_tell_listener(struct local_copy *copy, const struct kv_entry *entry)
{
    if (copy->listener != NULL)
        copy->listener->entry(copy->listener, entry);
}

/* --- For compact ----------------------------------------------------------------------------------- */

/* Delete markers up to this revision are about to be removed: watches that begin, and a load, may miss them. */
void local_copy_note_removal(struct store *store, const char *bucket, uint64_t revision);

/*
 * Delete markers up to this revision were removed: a watch that is resumed at this revision or an earlier one ends with
 * revision_gone. The copy drops the markers at the next check; its answers stay right until then.
 */
void local_copy_note_compacted(struct store *store, const char *bucket, uint64_t revision);

/* --- For follow ------------------------------------------------------------------------------------ */

/* End all copies and their watches, and remove their consumers. */
void local_copy_end_all(struct store *store);

#endif
