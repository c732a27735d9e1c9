/*
 * consumer: reads the messages of a stream, once, from beginning to end.
 *
 * Used by the store for histories, keys, copies and watches. A reading has its own pull consumer without
 * acknowledgements (ADR-13, ADR-37), which is removed after it. It pulls because the server pushes only to a
 * subscription on exactly the deliver subject, and the connection has one wildcard subscription. After a gap in the
 * deliveries, a silence or a lost connection, the reading continues with a new consumer: after its position, if it
 * reads by sequence and the stream is known to be unchanged. Otherwise it starts over, and calls restart.
 *
 * A reading begins with STREAM.INFO. A stream that keeps one message of each subject is read by sequence, and without a
 * filter if all of it is wanted. A last_per_subject consumer, or a filter that most keys match, would make the server
 * count its keys, and the bucket takes no writes meanwhile (nats-server 2.15: 0.2 µs a key).
 *
 * No reading ends on an estimate. The server only estimates how many messages are pending. It also ends a no_wait pull
 * early if the next entry of a last_per_subject consumer's list was replaced (nats-server 2.15, loopAndGatherMsgs). So
 * at a supposed end the reading asks the stream's leader for the next message after its position. If there is none,
 * everything was read. Otherwise it continues after its position, in laps: by another list, up to the last sequence
 * that the leader had when the reading began, and from there by sequence. It is done when a lap has ended at the end of
 * the store and has reached that sequence. Then every key that existed throughout was delivered at least once: a
 * message replaced before its turn is replaced by one with a higher sequence, which follows. A key that is written
 * meanwhile may be delivered several times.
 */
#ifndef DAEMON_NATS_CONSUMER_H
#define DAEMON_NATS_CONSUMER_H

#include "daemon/nats/consumer_pull.h"
#include "daemon/nats/jetstream.h"
#include "daemon/nats/kv.h"

struct consumer_reading;

/*
 * Additional time for an attempt to create a consumer, in milliseconds: the server may count all messages of the stream
 * first. nats-server 2.15 counts 5,000 in a millisecond; a slow machine is assumed to count 1,000.
 */
static inline unsigned consumer_creation_ms(uint64_t messages)
{
    return (unsigned)(messages / 1000);
}

/* What to read: the messages of stream whose subjects match a filter. Strings are borrowed until the reading ends. */
struct consumer_scope {
    const char *stream;
    const char *const *filters; /* of subjects; no two may match the same subject (the server refuses that) */
    size_t filter_count;
    bool last_per_subject;   /* the last message of each subject, and later ones; otherwise all messages */
    bool headers_only;       /* without their payload */
    bool leaves_place;       /* release its place in the request's limit after the creation: it may read for long */
    uint64_t start_sequence; /* not last_per_subject: from here on; 0: from the beginning */
};

enum consumer_verdict {
    CONSUMER_MORE,
    CONSUMER_ENOUGH, /* the reading is over, and done is called with no error */
    CONSUMER_PAUSE   /* the messages of the present pull still come, then none until consumer_continue */
};

struct consumer_ops {
    /*
     * The reading begins, or starts over. The reader discards what was read before, or keeps it and sets
     * scope.start_sequence to where the reading is to continue. It may call consumer_require.
     */
    void (*restart)(void *arg);
    /* One message, in the order of the stream. */
    enum consumer_verdict (*message)(void *arg, struct message *message, const struct kv_delivery *delivery);
    /* Everything was read (error NULL), or the reading has failed. Called once. */
    void (*done)(void *arg, const struct error *error);
};

enum consumer_phase {
    CONSUMER_ASKING, /* for STREAM.INFO */
    CONSUMER_CREATING,
    CONSUMER_PULLING,
    CONSUMER_LOOKING, /* asks the leader for the next message after position */
    CONSUMER_NEXT_LAP /* the next attempt reads on after position */
};

/* The owner embeds it, zeroed, in memory that lives until done was called. */
struct consumer_reading {
    struct request request;
    struct jetstream *jetstream;
    const struct consumer_ops *ops;
    void *arg;
    struct consumer_scope scope;
    enum consumer_phase phase;
    char name[64]; /* of the present consumer; "": none */
    bool is_paused;
    unsigned attempt; /* whose replies count; 0: none do */
    uint64_t consumer_sequence;
    uint64_t position; /* sequence of the last message that came, of all laps */

    /* Of the present consumer. */
    bool reads_sequence; /* by sequence, and not the list of a last_per_subject consumer */
    bool saw_end;        /* the store had no matching message after position */
    uint64_t pending;    /* the server's estimate of the messages that follow */
    unsigned pulled;     /* messages that the present pull may still bring */
    struct consumer_pull pull;
    uint64_t pulled_from; /* the position before it */
    unsigned empty_pulls;

    /* Of all laps. */
    size_t looked_filters; /* number of filters for which the leader was asked */
    uint64_t looked_from;  /* position when the leader was asked last */
    unsigned empty_laps;   /* in a row */

    /* Of the stream. */
    uint64_t incarnation; /* see stream_info */
    uint64_t target;      /* the leader's last sequence when it was asked, or a later one that is required */
    uint64_t first;       /* and its first one */
    uint64_t messages;    /* that it had then */
    uint64_t read;        /* messages that came since the reading began, or started over */
    uint64_t logged_ms;   /* loop time at which its progress was logged last */
    bool is_whole;        /* the filter is all of its subjects */
    bool keeps_one;       /* message of each subject */
};

/* Read the messages of scope, in the order of their sequences, to the end of the stream. deadline_ms UINT64_MAX: none.
 */
void consumer_read(struct jetstream *jetstream, struct consumer_reading *reading, const struct consumer_scope *scope,
                   uint64_t deadline_ms, const struct consumer_ops *ops, void *arg);

/*
 * Called by restart: the stream has this sequence, and the reading does not end before it has reached it. The answer to
 * STREAM.INFO may be older.
 */
void consumer_require(struct consumer_reading *reading, uint64_t sequence);

/* Continue after a pause. Does nothing if there is none. */
void consumer_continue(struct consumer_reading *reading);

/* End a reading early: done is not called. Does nothing if it has ended. */
void consumer_stop(struct consumer_reading *reading);

#endif
