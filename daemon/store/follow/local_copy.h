/*
 * replica: what this daemon knows of a bucket that it follows.
 *
 * Used by watch and near. A replica is created when a client watches a bucket, or reads it in a way that memory may
 * answer, or when the bucket is one of cache.buckets. It is freed some time after its last use. Its feed tells it every
 * change. It keeps the bucket's keys in a cache: with values for reads, otherwise only those that watches were told, to
 * notice when one vanishes without a message. It tells changes to watches, at once or through a backlog, and tells
 * reads whether what it has may be answered. One tick serves all replicas: it checks, loads and frees.
 */
#ifndef DAEMON_STORE_REPLICA_H
#define DAEMON_STORE_REPLICA_H

#include "daemon/nats/consumer.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/context.h"
#include "daemon/store/follow/backlog.h"
#include "daemon/store/follow/cache.h"
#include "daemon/store/follow/feed.h"
#include "daemon/store/follow/filter_tree.h"

struct watch;
struct local_copy_floor;

/* A reading of all that the bucket has beside the feed. */
enum local_copy_reading {
    REPLICA_READS_NOTHING,
    REPLICA_ASKS,  /* the stream, whether a look is worth while */
    REPLICA_LOADS, /* keys and values: before the feed begins, or for reads */
    REPLICA_CHECKS /* keys: which are still there */
};

struct local_copy {
    UT_hash_handle hh; /* by its name */
    struct store *store;
    struct bucket *bucket; /* NULL until it is looked up */
    struct bucket_wait wait;
    struct feed feed;

    struct cache cache;
    bool keeps_values;  /* wanted by reads */
    bool is_configured; /* by cache.buckets */
    bool is_loaded;     /* the cache has every key, and may answer */
    bool is_partial;    /* there was no room for the keys alone */
    bool is_opening;    /* the bucket is being looked up */
    bool is_over;       /* there is no such bucket: freed at the next tick */
    uint64_t read_ms;   /* loop time of the last cached read */
    uint64_t used_ms;   /* the same, or of the last watch's end */

    struct consumer_reading reading;
    enum local_copy_reading reads;
    struct jetstream_call ask;
    const char **filters; /* subjects, of a check */
    size_t filter_count;
    bool tells_load; /* watches are told what the reading finds */
    bool has_load;   /* all was read since values are kept; the feed may still have to come up to it */
    bool wants_load; /* at the next tick */
    bool compares;   /* the load that is wanted, or under way, tells of what the stream has otherwise than is known */
    bool wants_check;
    bool is_distrusted;     /* until a check was done */
    unsigned seen_resyncs;  /* of the feed */
    uint64_t reading_from;  /* the feed's position when the reading began */
    int64_t lost_us;        /* when the last message was stored that was told before the stream was in question */
    struct feed_place read; /* the last message that it found */
    unsigned reading_tries; /* that came from a server which was behind */
    uint64_t checked_ms;
    uint64_t checked_subjects; /* in the stream, at the last look */

    struct watch *watches;
    unsigned watch_count;
    size_t watch_filter_count;     /* of all of them */
    struct filter_tree watch_tree; /* of their filters */
    struct watch **matches;        /* scratch: those that a key matches */
    size_t match_count, match_capacity;
    struct backlog backlog; /* changes that some watches have not been told yet */
    struct job sweeping;    /* tells of what a reading did not meet */
    struct cache_cursor sweep_cursor;
    struct job dropping; /* values that nobody reads any more */
    struct cache_cursor drop_cursor;
    bool drops;
    struct timer sweep_timer;     /* while it waits for watches that are slow to read */
    uint64_t sweep_limit;         /* of revisions */
    uint64_t sweep_waits_from_ms; /* loop time; 0: it does not wait */
    bool sweeps;
    unsigned beginning_count; /* watches that are not done with what was there at their beginning */

    struct local_copy_floor *floors;      /* uthash: keys that were written or answered ahead of the feed */
    struct local_copy_floor *first_floor; /* nearly in the order of their revisions */
    unsigned doubt_count;                 /* of floors */
    uint64_t floor_all;                   /* a revision that reads of all keys must reach; 0: none */
    uint64_t floor_highest;               /* of all floors that there ever were */
    struct local_copy_wait *waits;        /* in the order of their revisions */
    unsigned wait_count;
    struct job waking;
    uint64_t vanished_at; /* the revision that watches were told last with a key that had vanished; 0: none had */
    uint64_t compacted;   /* markers up to this revision may have been removed */
    uint64_t acked;       /* the highest revision that this host has written */

    char name[KV_BUCKET_LENGTH_MAX + 1];
};

/* For what a bucket is followed. */
enum local_copy_use { REPLICA_FOR_WATCH, REPLICA_FOR_CACHE, REPLICA_CONFIGURED };

/*
 * The replica of a bucket, made where there is none. NULL, with an error of resource_exhausted, where too many buckets
 * are followed already.
 */
struct local_copy *local_copy_obtain(struct store *store, const char *bucket, enum local_copy_use use,
                                     struct error *error);

/* The one that is there, or NULL. */
struct local_copy *local_copy_find(struct store *store, const char *bucket);

/* --- For watch --- */

/* Whether watches can begin: the feed is there. */
static inline bool local_copy_is_following(const struct local_copy *copy)
{
    return feed_is_live(&copy->feed) && !copy->sweeps;
}

/* Why it does not follow the bucket yet; code ERROR_NONE where nothing is known. */
const struct error *local_copy_trouble(const struct local_copy *copy);

/* False: out of memory. */
bool local_copy_add_watch(struct local_copy *copy, struct watch *watch);
void local_copy_remove_watch(struct local_copy *copy, struct watch *watch);

/* Take the watch's filters out of the tree: it is not told changes at once any more. */
void local_copy_leave_tree(struct local_copy *copy, struct watch *watch);

/* Put the watch's filters into the tree again. False: out of memory. */
bool local_copy_enter_tree(struct local_copy *copy, struct watch *watch);

/* A watch was told of an entry that was read beside the feed. */
void local_copy_note_told(struct local_copy *copy, const struct kv_entry *entry);

/* --- For near --- */

/*
 * Whether nobody but this daemon writes to the bucket: it is one of the embedded server's, and not fed from others.
 * Then what is in memory is what the bucket has, but for what was sent and not answered yet.
 */
bool local_copy_is_exclusive(const struct local_copy *copy);

enum local_copy_answer {
    REPLICA_HAS,   /* the entry is in the view */
    REPLICA_LACKS, /* the key is not there */
    REPLICA_WAITS, /* the feed has yet to bring what must be seen: see local_copy_await */
    REPLICA_UNSURE /* ask NATS */
};

/*
 * What may be answered of a key: all that this daemon has acknowledged or answered about it by now is seen, and of a
 * transaction all or nothing. Of REPLICA_WAITS *revision is what to wait for.
 */
enum local_copy_answer local_copy_get(struct local_copy *copy, const char *key, size_t length, struct cache_view *view,
                                      uint64_t *revision);

/* The same once a wait is over: what was acknowledged since it began need not be seen. */
enum local_copy_answer local_copy_get_now(struct local_copy *copy, const char *key, size_t length,
                                          struct cache_view *view, uint64_t *revision);

/*
 * Whether a key's time is over by the clock, its own or what the bucket's settings are by now. Then only the server
 * knows whether it is still there.
 */
bool local_copy_has_expired(const struct local_copy *copy, const struct cache_key *key);

/* Whether the cache has every key, as new as is promised. */
bool local_copy_can_answer(const struct local_copy *copy);

/* The revision up to which all keys must be known so that none is answered too old; 0 for any. */
uint64_t local_copy_highest_floor(const struct local_copy *copy);

/* Whether the feed has brought this revision and, with is_whole, is in the middle of no batch. */
bool local_copy_has_reached(const struct local_copy *copy, uint64_t revision, bool is_whole);

/* Who waits for the feed. The owner embeds it, zeroed. */
struct local_copy_wait {
    struct local_copy_wait *next, *previous;
    struct store *store;
    struct local_copy *copy; /* NULL: waits for none */
    uint64_t revision;
    bool is_whole;
    bool is_for_load;
    struct timer timer;
    /* Called once, from the loop: has_come, or it took too long. */
    void (*ready)(void *arg, bool has_come);
    void *arg;
};

/* Whether one more may wait, and the feed is there to wait for. */
bool local_copy_may_await(const struct local_copy *copy);

/* Waits for what local_copy_has_reached tells, until until_ms of the loop's time. ready and arg are set by the caller.
 */
void local_copy_await(struct local_copy *copy, struct local_copy_wait *wait, uint64_t revision, bool is_whole,
                      uint64_t until_ms);

/*
 * Return whether the copy is being read, and a reading of the keys beside it would not be much quicker: then a listing
 * waits for the copy.
 */
bool local_copy_is_worth_waiting(const struct local_copy *copy);

/* Wait until the copy has been read. */
void local_copy_await_load(struct local_copy *copy, struct local_copy_wait *wait, uint64_t until_ms);

/* Waits no longer; ready is not called. Does nothing where it does not wait. */
void local_copy_wait_cancel(struct local_copy_wait *wait);

/* --- What it observes: see observe --- */

/* NATS has answered about a key: its last entry. The cache may have lost the value, and takes it again. */
void local_copy_note_read(struct store *store, const char *bucket, const struct kv_entry *entry);

/* A key was written, or answered, at a revision. Cheap where nothing is followed. */
void local_copy_note_revision(struct store *store, const char *bucket, const char *key, uint64_t revision,
                              bool is_write);

/* The revision of the key's entry in the cache; 0 for none. */
uint64_t local_copy_revision_of(struct store *store, const char *bucket, const char *key);

/*
 * NATS has answered that the key is not there, to a question that was asked when the cache had it at revision_before.
 * is_certain: the answer is not of a follower that may be behind.
 */
void local_copy_note_absent(struct store *store, const char *bucket, const char *key, uint64_t revision_before,
                            bool is_certain);

/*
 * This daemon is about to purge, change or remove the bucket, which leaves no messages: nothing of it is answered from
 * memory until that is over. Each begin needs one end. If memory runs out, no bucket is answered from memory until
 * then.
 */
void local_copy_begin_change(struct store *store, const char *bucket);

/* It is over, and the bucket is looked at. is_known: not so where the server may still do it, on this connection. */
void local_copy_end_change(struct store *store, const char *bucket, bool is_known);

/*
 * Note that delete markers up to this revision were removed: a watch that is resumed there or earlier ends with
 * revision_gone. The copy forgets the markers at the next check; what it answers stays right meanwhile.
 */
void local_copy_note_compacted(struct store *store, const char *bucket, uint64_t revision);

/* They are about to be removed: watches that begin may miss them, and so may a copy that is being read. */
void local_copy_note_removal(struct store *store, const char *bucket, uint64_t revision);

/* Ends the unanswered changes whose connection the server has closed. */
void local_copy_end_doubtful_changes(struct store *store);

/* --- For store --- */

/*
 * Follows the buckets that cache.buckets names: when the link is up, when a bucket was made, when the configuration was
 * read again, and now and then, for what others make.
 */
void local_copy_follow_configured(struct store *store);
/* Return 0, or -1 if memory ran out. */
int local_copy_init_all(struct store *store);

/* The configuration was read again. */
void local_copy_reload(struct store *store);
void local_copy_free_all(struct store *store);

/* Ends all, consumers included. */
void local_copy_end_all(struct store *store);

struct local_copy_totals {
    unsigned buckets, cached_buckets;
    uint64_t keys;
};
void local_copy_total(const struct store *store, struct local_copy_totals *totals);

#endif
