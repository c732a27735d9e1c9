/*
 * consumer: what a stream holds, read once from beginning to end.
 *
 * Used by the store for histories and keys. A pull consumer without acks (ADR-13,
 * ADR-37) that is made for one reading and removed after it. Pulling, not pushing:
 * the server pushes only to a subscription on just the deliver subject, which the
 * link's wildcard is not (measured: a consumer with a deliver subject under it never
 * delivers). A hole in the deliveries, a silence or a lost link starts the reading over
 * with a new consumer; the reader is told to forget what it has.
 *
 * A consumer that reads the last message of each subject passes over those that are replaced before their turn, and
 * delivers those that replace them; but how many are pending it only estimates meanwhile, and so it may seem to be at
 * its end before it is. So such a reading looks behind its end, and reads on in further laps while there is something:
 * what was there all the time is then met once at least, and what is written all the time maybe several times.
 */
#ifndef DAEMON_NATS_CONSUMER_H
#define DAEMON_NATS_CONSUMER_H

#include "daemon/nats/jetstream.h"
#include "daemon/nats/kv.h"

struct consumer_reading;

/* What is read: of the messages of stream whose subjects match a filter. Strings are borrowed until the reading is
 * over. */
struct consumer_scope {
    const char *stream;
    const char *const *filters; /* of subjects; no two may match the same one (the server refuses it) */
    size_t filter_count;
    bool last_per_subject;   /* the last message of each subject, once or more often; otherwise all messages */
    bool headers_only;       /* without their payload */
    uint64_t start_sequence; /* not last_per_subject: from here on; 0: from the beginning */
};

enum consumer_verdict {
    CONSUMER_MORE,
    CONSUMER_ENOUGH, /* the reading is over, and done is called with no error */
    CONSUMER_PAUSE   /* what is on its way still comes, then nothing more until consumer_go_on */
};

struct consumer_ops {
    /*
     * The reading begins, or begins again: nothing that was read before counts, unless the reader knows what it has,
     * and moves scope.start_sequence.
     */
    void (*restart)(void *arg);
    /* One message, in the order of the stream. */
    enum consumer_verdict (*message)(void *arg, struct message *message, const struct kv_delivery *delivery);
    /* Everything was read (error NULL), or it could not be. Called once. */
    void (*done)(void *arg, const struct error *error);
};

/* The owner embeds it, zeroed, in memory that lives until done was called. */
struct consumer_reading {
    struct request request;
    struct jetstream *jetstream;
    const struct consumer_ops *ops;
    void *arg;
    struct consumer_scope scope;
    char name[64]; /* of the present consumer */
    bool is_paused;
    unsigned attempt; /* that the present consumer was made by; 0: there is none */
    unsigned pulled;  /* messages that the present pull may still bring */
    uint64_t consumer_sequence;
    uint64_t position; /* sequence of the last message that came, of all laps */
    unsigned lap;      /* 0: the first consumer; the others read what has come behind it */
    bool begins_lap;   /* the next attempt does */
    bool is_looking;   /* whether there is more behind the position */
};

/*
 * Reads what scope says, in the order of the sequences, to the end of the stream. A reading without a deadline has
 * UINT64_MAX.
 */
void consumer_read(struct jetstream *jetstream, struct consumer_reading *reading, const struct consumer_scope *scope,
                   uint64_t deadline_ms, const struct consumer_ops *ops, void *arg);

/* Goes on after a pause. Does nothing where there is none. */
void consumer_go_on(struct consumer_reading *reading);

/* Ends a reading before its end: nothing more is called. Does nothing when it is over. */
void consumer_stop(struct consumer_reading *reading);

/* What a pull takes in bytes at most: there is always room for one message. */
size_t consumer_pull_bytes(const struct link *link);

#endif
