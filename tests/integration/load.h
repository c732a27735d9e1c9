/*
 * load: many writes in flight on several sessions, while something happens to the daemon or its server.
 *
 * Each write has a key of its own in a bucket with history. Afterwards the bucket shows whether a write was lost or
 * stored twice.
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

/* Create the bucket, and send so many writes on each session: puts, creates and updates in turn. */
void load_begin(struct load *load, const struct daemon *daemon, unsigned writes);

/* Wait for so many more answers on each session. */
void load_wait_for_some(struct load *load, unsigned answers);

/* Wait for the other answers. All writes must have succeeded, and the bucket must have each of them exactly once. */
void load_finish(struct load *load);

#endif
