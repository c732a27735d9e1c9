/*
 * feed: every message of one bucket, as it is written, in order and without a hole.
 *
 * Used by replica. A feed has one consumer in NATS, without acks, which has the daemon's name: a daemon that starts
 * again removes the one that it left there, and recreates it. It pulls (ADR-13, ADR-37), with idle heartbeats: the
 * server pushes only to a subscription on exactly the deliver subject, and the link has one wildcard subscription.
 * After a gap in the deliveries, two missing heartbeats, the loss of the consumer or of the link, the consumer is
 * recreated after the last message that came, with a backoff and jitter. So a feed ends only with its bucket.
 *
 * Heartbeats come every watches.heartbeat. An exclusive feed (feed_is_exclusive) needs them only while it misses a
 * message, and otherwise has one every two minutes: an idle daemon with many buckets is not woken by them.
 */
#ifndef DAEMON_STORE_FEED_H
#define DAEMON_STORE_FEED_H

#include "daemon/base/table.h"
#include "daemon/nats/kv.h"
#include "daemon/nats/request.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/context.h"

#include <jansson.h>

/* What the stream was when the feed last asked. */
struct feed_info {
    uint64_t first_sequence; /* nothing before it is there any more */
    uint64_t last_sequence;
    int64_t last_us;   /* time at which the message with last_sequence was stored */
    uint64_t subjects; /* that have a message: keys, those of markers included */
    uint64_t bytes;    /* of all messages */
    unsigned replicas;
    bool expires_silently; /* values may expire and leave no marker */
    bool has_origin;       /* it is fed from other buckets: a mirror, or one with sources */
    int64_t max_age_us;    /* of every message; 0: for ever */
};

/* Reads it out of an answer of STREAM.INFO. */
void feed_read_info(json_t *answer, struct feed_info *info);

/*
 * The atomic batch of the last message. Consumers deliver its messages one by one, maybe before all are stored; the
 * last one has Nats-Batch-Commit.
 */
struct feed_batch {
    uint64_t id;   /* a hash of Nats-Batch-Id */
    uint64_t from; /* sequence of its first message; 0: all of it has come, or the last message was in none */
};

/* The next message of the stream is taken. */
void feed_batch_note(struct feed_batch *batch, const struct message *message, uint64_t sequence);

/* All are called from the loop. The feed may be stopped from within begin, caught_up and ended, not from within entry.
 */
struct feed_ops {
    /*
     * The bucket is met for the first time, or (is_anew) it is another one than before under the same name. Nothing
     * is told until feed_go.
     */
    void (*begin)(void *arg, bool is_anew);
    void (*entry)(void *arg, const struct kv_entry *entry);
    /*
     * Everything that was there when the consumer was made, now or again, was told. is_in_question: the stream may have
     * lost messages that were told, and have others in their place: what is known of keys has to be compared with it.
     */
    void (*caught_up)(void *arg, bool is_in_question);
    /* There is no such bucket (any more). The feed is over. */
    void (*ended)(void *arg, const struct error *error);
};

enum feed_phase {
    FEED_STOPPED,
    FEED_BROKEN,    /* until the next attempt */
    FEED_ASKING,    /* what the stream is */
    FEED_COMPARING, /* what it has at the position */
    FEED_HELD,      /* until feed_go */
    FEED_REMOVING,
    FEED_CREATING,
    FEED_CATCHING_UP,
    FEED_LIVE
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
    char created[40]; /* the stream's: another time is another stream; "": not met yet */
    bool is_placed;   /* position is known */
    uint64_t position;
    int64_t position_us; /* when the message there was stored; 0: not known */
    uint64_t met_keeper; /* of the stream as it was met last; that of the position once they are compared */
    unsigned behind;     /* answers in a row of a stream with replicas that it has less than the position */
    uint64_t keeper;     /* the server process that the position is of: see stream_state; 0: not known */
    bool is_in_question; /* the stream may have been set back behind the position, and written anew */
    int64_t question_us; /* position_us then; INT64_MAX where that is not known */
    struct feed_batch batch;
    uint64_t known_last; /* sequence of the stream's last message, by a replica's STREAM.INFO; 0: not asked */
    int64_t known_last_us;
    unsigned idle_beats; /* heartbeats since then without a message between them */
    uint64_t consumer_sequence;
    unsigned pulled;    /* messages that the pulls under way may still bring */
    uint64_t live_on;   /* the link's number when it was live last; 0: it never was */
    uint64_t heard_ms;  /* store_boot_ms when NATS last told that all was told; 0: never */
    unsigned not_found; /* answers in a row that there is no such stream */
    unsigned thefts;    /* of the consumer, of late */
    uint64_t theft_ms;
    unsigned resyncs;   /* times that it had to be made anew */
    struct error error; /* why it could not be made, if so */
    char consumer[96];
};

/* bucket is borrowed until feed_stop. */
void feed_start(struct store *store, struct feed *feed, struct bucket *bucket, const struct feed_ops *ops, void *arg);

/* A message of the stream. */
struct feed_place {
    uint64_t sequence;
    int64_t stored_us; /* 0: not known */
    struct feed_batch batch;
};

/* Once begin was called: tells everything behind a message. */
void feed_go(struct feed *feed, const struct feed_place *place);

/* Whether an answer of STREAM.INFO is of the stream that is followed, and not of another one under the same name. */
bool feed_is_of(const struct feed *feed, json_t *answer);

/*
 * The stream has a last message, by an answer of STREAM.INFO. If it does not come, it is gone: the position then moves
 * on after two heartbeats, since one may have been sent just before it.
 */
void feed_note_last(struct feed *feed, const struct feed_info *info);

/* Asks what the stream is, and goes on. */
void feed_look(struct feed *feed);

/* Nothing is called any more; the consumer is removed. */
void feed_stop(struct feed *feed);

/* Everything up to this revision was told; while the feed is live, well below a millisecond ago as a rule. */
static inline uint64_t feed_position(const struct feed *feed)
{
    return feed->position;
}

static inline bool feed_is_live(const struct feed *feed)
{
    return feed->phase == FEED_LIVE && feed->request.state == REQUEST_LISTENING;
}

/*
 * Return whether the stream is the embedded server's, and not fed from others: nobody but this daemon writes to it. It
 * may be asked before the feed has begun.
 */
static inline bool feed_is_exclusive(const struct feed *feed, const struct conf *conf)
{
    return conf->nats.mode == CONF_NATS_EMBEDDED && !feed->info.has_origin;
}

/* How long a feed may be silent: two heartbeats, and what one may be late. */
static inline unsigned feed_silence_ms(unsigned heartbeat_ms)
{
    return 2 * heartbeat_ms + 250;
}

/* Gives a message to the feed whose consumer delivered it. False: it is none of theirs. */
bool feed_take_message(struct store *store, struct message *message);

#endif
