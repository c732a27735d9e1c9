/*
 * watcher: a watch in a session of its own, all that it was told, and whether that is what the bucket's history has.
 */
#ifndef FAULT_WATCHER_H
#define FAULT_WATCHER_H

#include "tests/support/client.h"
#include "tests/support/stream_log.h"

struct watcher {
    struct client *client;
    const char *bucket;
    char prefix[32]; /* of the keys that its filter means: "even." of "even.>", "" of all */
    uint64_t id;
    struct stored *told; /* in the order in which it came; operations as in nats.h */
    size_t count, room;
    size_t ready_at;   /* so many were told before watch.ready */
    unsigned readies;  /* one, if all is well */
    const char *ended; /* the error's code; NULL: it goes on */
};

/* filter: one token and ">", or ">". options: further members, or "". */
void watcher_begin(struct watcher *watcher, const char *socket_path, const char *bucket, const char *filter,
                   const char *options);
void watcher_end(struct watcher *watcher);

/* Takes what is there; waits up to the time for something. */
void watcher_take(struct watcher *watcher, unsigned patience_ms);

/* Until it was told of this revision, or a later one. */
void watcher_wait(struct watcher *watcher, uint64_t revision);
void watcher_wait_ready(struct watcher *watcher);

/* The last revision that it was told; 0: none. */
uint64_t watcher_last(const struct watcher *watcher);

/* It was told each entry of the log from this revision on whose key it means: in order, none missing, none twice. */
void watcher_expect(struct watcher *watcher, const struct stream_log *log, uint64_t from_revision);

#endif
