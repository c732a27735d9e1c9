/*
 * consumer: what a stream holds, read once from beginning to end.
 *
 * Used by the store for histories and keys. A pull consumer without acks (ADR-13,
 * ADR-37) that is made for one reading and removed after it. Pulling, not pushing:
 * the server pushes only to a subscription on just the deliver subject, which the
 * link's wildcard is not (measured: a consumer with a deliver subject under it never
 * delivers). A hole in the deliveries, a silence or a lost link starts the reading over
 * with a new consumer; the reader is told to forget what it has.
 */
#ifndef DAEMON_NATS_CONSUMER_H
#define DAEMON_NATS_CONSUMER_H

#include "daemon/nats/jetstream.h"
#include "daemon/nats/kv.h"

struct consumer_reading;

struct consumer_ops {
    /* The reading begins, or begins again: nothing that was read before counts. */
    void (*restart)(void *arg);
    /* One message. False: enough, the reading is over and done is called with no error. */
    bool (*message)(void *arg, struct message *message, const struct kv_delivery *delivery);
    /* Everything was read (error NULL), or it could not be. Called once. */
    void (*done)(void *arg, const struct error *error);
};

/* The owner embeds it, zeroed, in memory that lives until done was called. */
struct consumer_reading {
    struct request request;
    struct jetstream *jetstream;
    const struct consumer_ops *ops;
    void *arg;
    const char *stream;
    const char *filter;
    bool last_per_subject;
    bool headers_only;
    unsigned attempt; /* that the present consumer was made by; 0: there is none */
    unsigned pulled;  /* messages that the present pull may still bring */
    uint64_t consumer_sequence;
};

/*
 * Reads the messages of stream whose subjects match filter, in the order of their
 * sequences: all of them, or the last one of each subject; with or without their
 * payload. Strings are borrowed until done.
 */
void consumer_read(struct jetstream *jetstream, struct consumer_reading *reading, const char *stream,
                   const char *filter, bool last_per_subject, bool headers_only, uint64_t deadline_ms,
                   const struct consumer_ops *ops, void *arg);

#endif
