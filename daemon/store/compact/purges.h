/*
 * purges: removes the markers of a chunk from a stream.
 *
 * Used by compact. Each purge is a request to NATS. Few are in flight at a time, so that other callers hardly notice. A
 * purge of one subject removes the marker and what came before it. While all markers come before all values, one purge
 * of all subjects removes many.
 */
#ifndef DAEMON_STORE_COMPACT_PURGES_H
#define DAEMON_STORE_COMPACT_PURGES_H

#include "daemon/nats/jetstream.h"
#include "daemon/store/compact/chunk.h"
#include "daemon/store/context.h"

#define COMPACT_PURGES_MAX 4u

struct compact_purge {
    struct jetstream_call call;
    struct compact_purges *purges;
    uint64_t markers; /* that it may remove; it can remove more messages, which are not counted */
    bool is_in_flight;
};

/* The owner embeds it, zeroed. */
struct compact_purges {
    /* Set by the owner; borrowed. */
    struct store *store;
    const char *stream;
    const char *prefix;  /* of the subjects */
    uint64_t owner;      /* see request */
    uint64_t connection; /* number of the connection that the stream was read on */
    uint64_t deadline_ms;
    bool is_past_barrier; /* markers are removed one by one */
    /*
     * All markers of the chunk were removed, or there was an error, or compact_purges_have_more: the owner continues
     * after it has checked the stream. Called once for each start, and for each continuation.
     */
    void (*done)(void *arg, const struct error *error);
    bool (*is_wanted)(void *arg); /* false: no more purges are sent */
    void *arg;

    /* Results, of all chunks */
    uint64_t removed; /* markers */
    bool has_removed; /* a purge was sent */

    /* private */
    const struct compact_chunk *chunk;
    bool keeps_markers;
    uint64_t barrier;
    size_t next_marker;
    struct compact_purge slots[COMPACT_PURGES_MAX];
    unsigned in_flight;
    unsigned allowed;   /* purges that may be sent until the owner checks the stream */
    struct error error; /* code ERROR_NONE: none */
};

/*
 * Remove the markers of a chunk that are not retained. keeps_markers: remove only what comes before each marker of its
 * key. barrier: the first sequence that must stay, 0 for none. done may be called from within.
 */
void compact_purges_start(struct compact_purges *purges, const struct compact_chunk *chunk, bool keeps_markers,
                          uint64_t barrier);

/* Return whether purges are left to send. While done is called: the owner must check the stream, and continue. */
bool compact_purges_have_more(const struct compact_purges *purges);

/* Send more. done may be called from within. */
void compact_purges_continue(struct compact_purges *purges);

/* Send no more: done is called when what is in flight has ended, and not from within. */
void compact_purges_fail(struct compact_purges *purges, const struct error *error);

/* Stop waiting for what is in flight, which the server may still carry out. done is not called. */
void compact_purges_cancel(struct compact_purges *purges);

/* The last purge was sent, or is not waited for: see bucket_note_removal. Call it once at the end. */
void compact_purges_end(struct compact_purges *purges);

#endif
