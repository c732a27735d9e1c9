/*
 * feed: every message of one bucket, as it is written, in order and without gaps.
 *
 * Used by local_copy. A feed has one consumer in NATS, without acknowledgements, which has the daemon's name: after a
 * restart the daemon deletes the consumer of the earlier run, and recreates it. The feed pulls (ADR-13, ADR-37) with
 * idle heartbeats: the server pushes only to a subscription on exactly the deliver subject, and the connection has one
 * wildcard subscription. After a gap in the deliveries, two missing heartbeats, or the loss of the consumer or of the
 * connection, the consumer is recreated after the last message that was delivered, with backoff and jitter. So a feed
 * ends only with its bucket.
 *
 * Heartbeats come every watches.heartbeat. An exclusive feed (feed_is_exclusive) needs them only while it misses a
 * message, and otherwise has one every two minutes: they do not wake an idle daemon with many buckets.
 */
#ifndef DAEMON_STORE_FEED_H
#define DAEMON_STORE_FEED_H

#include "daemon/base/table.h"
#include "daemon/nats/jetstream.h"
#include "daemon/nats/kv.h"
#include "daemon/nats/request.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/context.h"
#include "daemon/store/follow/feed_info.h"

#include <jansson.h>

/*
 * The atomic batch of the last message. Consumers deliver its messages one by one, maybe before all are stored; the
 * last one has Nats-Batch-Commit.
 */
struct feed_batch {
    uint64_t id;   /* a hash of Nats-Batch-Id */
    uint64_t from; /* sequence of its first message; 0: it has come as a whole, or the last message was in none */
};

/* Note the next message of the stream. */
void feed_batch_note(struct feed_batch *batch, const struct message *message, uint64_t sequence);

/* A message of the stream. */
struct feed_place {
    uint64_t sequence;
    int64_t stored_us; /* 0: not known */
    struct feed_batch batch;
};

/* All are called from the loop. The feed may be stopped from within begin, caught_up and ended, but not from entry. */
struct feed_ops {
    /* The bucket was found, or (is_recreated) another one with the same name. Nothing is delivered until feed_go. */
    void (*begin)(void *arg, bool is_recreated);
    void (*entry)(void *arg, const struct kv_entry *entry);
    /*
     * Everything was delivered that existed when the consumer was created or recreated. If question_us is not 0, the
     * stream is in question: it may have lost messages that were delivered, and have others in their place. Then what
     * is known of keys must be compared with the stream. question_us is when the last such message was stored,
     * INT64_MAX if that is not known. has_another_keeper: another server process keeps the stream than before, which
     * may have lost messages that were not delivered.
     */
    void (*caught_up)(void *arg, int64_t question_us, bool has_another_keeper);
    /* There is no such bucket. The feed is over. */
    void (*ended)(void *arg, const struct error *error);
};

enum feed_phase {
    FEED_STOPPED,
    FEED_BROKEN,    /* until the next attempt */
    FEED_ASKING,    /* for the state of the stream */
    FEED_COMPARING, /* the message at the position with the one that was delivered */
    FEED_HELD,      /* until feed_go */
    FEED_DELETING,  /* an earlier consumer */
    FEED_CREATING,
    FEED_CATCHING_UP,
    FEED_LIVE
};

/* Of a replicated stream, the leader is asked whether there is a message after the position. */
struct feed_question {
    struct jetstream_call call;
    bool is_open;
    uint64_t after; /* the position when it was asked */
    uint64_t until; /* the last sequence of the stream, as it was known then */
    int64_t until_us;
    uint64_t asked_ms;   /* clock_boot_ms */
    unsigned nones;      /* answers in a row that there is none */
    uint64_t missing_ms; /* loop time of the first heartbeat while messages are missing; 0: there was none */
};

/* The owner embeds it, zeroed. */
struct feed {
    UT_hash_handle hh; /* by its stream's name */
    struct request request;
    struct store *store;
    struct bucket *bucket; /* borrowed */
    const struct feed_ops *ops;
    void *arg;
    enum feed_phase phase;
    struct feed_info info;
    char created[40]; /* when the stream was created; another stream of this name has another time; "": not found yet */
    bool is_placed;   /* the position is valid */
    bool owes_recreation;       /* the bucket is another one than the owner knows; until feed_go */
    struct feed_place position; /* the last message that was delivered, or is gone */
    uint64_t keeper;            /* the server process that the position is of: see stream_state; 0: not known */
    uint64_t present_keeper;    /* of the stream as it was last found; becomes keeper after they were compared */
    int64_t question_us;        /* see caught_up; 0: the stream is not in question */
    bool has_another_keeper;    /* see caught_up */
    unsigned behind;            /* answers in a row of a replicated stream that it ends before the position */
    uint64_t known_last;        /* last sequence by a later STREAM.INFO; 0: not asked on this connection */
    int64_t known_last_us;
    unsigned idle_heartbeats; /* since then, without a message between them */
    struct feed_question question;
    uint64_t consumer_sequence;
    unsigned pulled;    /* messages that the present pulls may still bring */
    uint64_t live_on;   /* number of the connection on which it was live last; 0: it never was */
    uint64_t heard_ms;  /* clock_boot_ms up to which everything was delivered, as NATS has said since; 0: never */
    unsigned not_found; /* answers in a row that there is no such stream */
    unsigned thefts;    /* of the consumer, within a minute */
    uint64_t theft_ms;
    unsigned resyncs;   /* times that the consumer had to be recreated */
    uint64_t gaps;      /* times that the position skipped messages, which were overwritten or removed */
    struct error error; /* why the bucket is not followed; code ERROR_NONE: not known */
    char consumer[96];
};

/* Start a feed. bucket is borrowed until feed_stop. */
void feed_start(struct store *store, struct feed *feed, struct bucket *bucket, const struct feed_ops *ops, void *arg);

/* After begin was called: deliver everything after a message. */
void feed_go(struct feed *feed, const struct feed_place *place);

/* Return whether an answer of STREAM.INFO is of the stream that is followed, and not of another one with its name. */
bool feed_is_of(const struct feed *feed, json_t *answer);

/*
 * Note the stream's last message, from an answer of STREAM.INFO. If it is not delivered, it is gone: the position then
 * moves past it after two heartbeats, because one may have been sent just before the message. If the stream is
 * replicated, its leader is asked, too: the server that delivers may be behind.
 */
void feed_note_last(struct feed *feed, const struct feed_info *info);

/*
 * Ask for the state of the stream again, and continue: the bucket may be gone, or another one. If the feed waits for
 * feed_go, the owner has stopped the reading that was to come before it.
 */
void feed_look(struct feed *feed);

/* Stop a feed: no callback is called afterwards, and the consumer is deleted. */
void feed_stop(struct feed *feed);

/* Return the revision up to which everything was delivered. A live feed is usually well below a millisecond behind. */
static inline uint64_t feed_position(const struct feed *feed)
{
    return feed->position.sequence;
}

static inline bool feed_is_live(const struct feed *feed)
{
    return feed->phase == FEED_LIVE && feed->request.state == REQUEST_LISTENING;
}

/*
 * Return whether the stream is the embedded server's, and has no origin: nobody but this daemon writes to it. It may be
 * asked before the feed has begun.
 */
static inline bool feed_is_exclusive(const struct feed *feed, const struct conf *conf)
{
    return conf->nats.mode == CONF_NATS_EMBEDDED && !feed->info.has_origin;
}

/* Return how long a feed may be silent, in ms: two heartbeats, and what one may be late. */
static inline unsigned feed_silence_ms(unsigned heartbeat_ms)
{
    return 2 * heartbeat_ms + 250;
}

/* Give a message to the feed whose consumer delivered it. False: it is of no feed. */
bool feed_accept_message(struct store *store, struct message *message);

#endif
