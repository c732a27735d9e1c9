/*
 * load: many writes under way on several sessions, while something happens to the daemon or its server.
 *
 * Each write has a key of its own in a bucket with history: afterwards the bucket tells
 * whether one was lost or written twice.
 */
#ifndef INTEGRATION_LOAD_H
#define INTEGRATION_LOAD_H

#include "tests/support/client.h"

#define LOAD_SESSIONS 4u

struct load {
    const struct daemon *daemon;
    const char *bucket;
    unsigned writes;   /* of each session */
    unsigned answered; /* of them */
    struct client *sessions[LOAD_SESSIONS];
};

/* Makes the bucket, and sends writes per session: puts, creates and updates in turn. */
void load_begin(struct load *load, const struct daemon *daemon, unsigned writes);

/* Waits until so many of each session are answered. */
void load_wait_for_some(struct load *load, unsigned answers);

/* Waits for all that is left. All must have succeeded, and the bucket must have each of them exactly once. */
void load_finish(struct load *load);

#endif
