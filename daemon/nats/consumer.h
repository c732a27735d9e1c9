/*
 * consumer: reads what a stream holds, once, from beginning to end.
 *
 * Used by the store for histories, keys, copies and watches. A reading has a pull consumer without acknowledgements
 * (ADR-13, ADR-37) of its own, which is removed after it. It pulls because the server pushes only to a subscription on
 * exactly the deliver subject, and the link has one wildcard subscription. After a gap in the deliveries, a silence or
 * a lost link it goes on with a new consumer: after its position if it reads by sequence and the stream is known to be
 * the same. Otherwise it starts over, and calls restart.
 *
 * A reading first asks what the stream is. A stream that keeps one message of each subject is read by sequence, and
 * without a filter if all of it is wanted: a last_per_subject consumer, or a filter that most keys match, makes the
 * server count its keys, during which the bucket takes no writes (nats-server 2.15: 0.2 µs a key).
 *
 * No reading ends on an estimate. A server only estimates how many messages are pending, and ends a no_wait pull early
 * when the next entry of a last_per_subject consumer's list was replaced (nats-server 2.15, loopAndGatherMsgs). So at a
 * supposed end the reading asks the stream's leader for the next message after its position. If there is none, all was
 * read. Otherwise it reads on by sequence, in laps. It is done when a lap has ended at the end of the store, and has
 * reached the last sequence that the leader had when the reading began. Then every key that existed all the time was
 * delivered at least once: a message that is replaced before its turn is replaced by one with a higher sequence, which
 * is still to come. A key that is written meanwhile may be delivered several times.
 */
#ifndef DAEMON_NATS_CONSUMER_H
#define DAEMON_NATS_CONSUMER_H

#include "daemon/nats/jetstream.h"
#include "daemon/nats/kv.h"

struct consumer_reading;

/*
 * Additional time for an attempt to create a consumer, in milliseconds: the server may count all messages of the stream
 * first. nats-server 2.15 counts 5,000 in a millisecond; a slow machine is taken to count 1,000.
 */
static inline unsigned consumer_patience_ms(uint64_t messages)
{
    return (unsigned)(messages / 1000);
}

/* What is read: of the messages of stream whose subjects match a filter. Strings are borrowed until the reading is
 * over. */
struct consumer_scope {
    const char *stream;
    const char *const *filters; /* of subjects; no two may match the same one (the server refuses it) */
    size_t filter_count;
    bool last_per_subject;   /* the last message of each subject, once or more often; otherwise all messages */
    bool headers_only;       /* without their payload */
    bool leaves_place;       /* gives up its place in the request's limit after the creation: it may read for long */
    uint64_t start_sequence; /* not last_per_subject: from here on; 0: from the beginning */
};

enum consumer_verdict {
    CONSUMER_MORE,
    CONSUMER_ENOUGH, /* the reading is over, and done is called with no error */
    CONSUMER_PAUSE   /* what the pull has requested still comes, then nothing until consumer_go_on */
};

struct consumer_ops {
    /*
     * The reading begins, or starts over. The reader forgets what was read before, or keeps it and sets
     * scope.start_sequence to where the reading goes on.
     */
    void (*restart)(void *arg);
    /* One message, in the order of the stream. */
    enum consumer_verdict (*message)(void *arg, struct message *message, const struct kv_delivery *delivery);
    /* Everything was read (error NULL), or it could not be. Called once. */
    void (*done)(void *arg, const struct error *error);
};

enum consumer_phase {
    CONSUMER_ASKING, /* what the stream is */
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
    unsigned attempt; /* whose answers count */
    uint64_t consumer_sequence;
    uint64_t position; /* sequence of the last message that came, of all laps */

    /* Of the present consumer. */
    bool reads_sequence; /* by sequence, and not the list of a last_per_subject consumer */
    bool saw_end;        /* the store had no message after position that matches */
    uint64_t pending;    /* the server's estimate */
    unsigned pulled;     /* messages that the present pull may still bring */
    unsigned delivered;  /* messages that it brought */
    unsigned empty_pulls;

    /* Of all laps. */
    size_t looked_filters; /* filters for which the leader was asked */
    uint64_t looked_from;  /* position at the last question */
    unsigned empty_laps;   /* in a row */

    /* Of the stream. */
    uint64_t incarnation; /* see stream_info */
    uint64_t target;      /* the leader's last sequence when it was asked */
    uint64_t messages;    /* that it had then */
    uint64_t read;        /* messages that came since the reading began, the last time */
    uint64_t logged_ms;   /* loop time at which its progress was logged last */
    bool is_whole;        /* the filter is all of its subjects */
    bool keeps_one;       /* message of each subject */
};

/* Read what scope says, in the order of the sequences, to the end of the stream. deadline_ms UINT64_MAX: none. */
void consumer_read(struct jetstream *jetstream, struct consumer_reading *reading, const struct consumer_scope *scope,
                   uint64_t deadline_ms, const struct consumer_ops *ops, void *arg);

/* Go on after a pause. Does nothing if there is none. */
void consumer_go_on(struct consumer_reading *reading);

/* End a reading early: nothing more is called. Does nothing if it is over. */
void consumer_stop(struct consumer_reading *reading);

/* Return max_bytes of a pull: at least two of the largest messages. */
size_t consumer_pull_bytes(const struct connection *connection);

#endif
