/*
 * compact: removes the delete markers of a bucket that are older than a given age.
 *
 * Used by the handlers for bucket.compact, and by schedule for buckets with a marker_ttl. A delete marker is a
 * message like any other: those of a million deleted keys take space, and a reading of the whole bucket delivers them.
 * A compaction makes three promises, so it does more than purge each marker:
 *
 * - A key that is written again keeps its value. A purge removes messages only up to the marker that was read. Before
 *   each chunk, and between purges, the stream is compared with the one that was read: it may have been recreated.
 *
 * - A deletion is never lost silently. Before markers are removed, the horizon is written to the bucket, as a message
 *   of KV_COMPACTED_KEY: the highest revision of a marker that may have been removed. A watch that is resumed at the
 *   horizon or before it ends with revision_gone: see watch_beginning.
 *
 * - A deleted value does not come back. With the embedded server a marker is retained until the old values of its key
 *   have left the server's files: see remains. In a bucket with a history the messages before a marker are purged
 *   first, which counts as having left the files. The files of an external server cannot be read, so no marker is
 *   retained.
 *
 * The stream is read from its beginning, a chunk of markers at a time. A chunk ends when it is full, and when half of
 * the time that is left has passed: what was read is not lost at the deadline. Then the next compaction continues where
 * this one has ended (see progress), unless the bucket has a history, whose last messages are not read in order.
 * Markers that come before all values are removed with one purge, unless the bucket has a history. The others are
 * purged one by one, few at a time, so that other callers hardly notice.
 */
#ifndef DAEMON_STORE_COMPACT_H
#define DAEMON_STORE_COMPACT_H

#include "daemon/base/arena.h"
#include "daemon/base/turns.h"
#include "daemon/nats/consumer.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/compact/chunk.h"
#include "daemon/store/compact/copy_wait.h"
#include "daemon/store/compact/files.h"
#include "daemon/store/compact/plan.h"
#include "daemon/store/compact/purges.h"
#include "daemon/store/compact/raise_horizon.h"

/* removed is the number of markers that were removed, also if there is an error. */
typedef void compact_done_fn(void *arg, uint64_t removed, const struct error *error);

enum compact_step {
    COMPACT_WAITING,  /* at first: for its turn; nothing was begun */
    COMPACT_OPENING,  /* looks up the bucket, and waits for the local copy to have the markers */
    COMPACT_READING,  /* no chunk is being worked on */
    COMPACT_CHECKING, /* that the stream is still the one that was read */
    COMPACT_CLEARING, /* purges the messages before the chunk's markers; the markers come later */
    COMPACT_LOOKING,  /* for old values in the server's files */
    COMPACT_RAISING,  /* the horizon */
    COMPACT_PURGING   /* the chunk's markers */
};

struct compact {
    /* Set by the caller, the rest zeroed; borrowed until done was called. */
    const char *bucket_name;
    int64_t older_than_s;  /* 0: of any age; -1: the bucket's marker_ttl, or COMPACT_DEFAULT_AGE_S if it has none */
    bool needs_marker_ttl; /* does nothing if the bucket has none */
    uint64_t deadline_ms;
    bool (*is_wanted)(void *arg); /* false: nobody waits for the answer; NULL: always true */
    compact_done_fn *done;
    void *arg;

    /* private */
    struct compact *next, *previous; /* all compactions */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct turn turn;
    enum compact_step step;
    struct timer deadline;  /* for the look at the files, which has none of its own */
    struct timer half_time; /* when to work on the markers that were read */
    struct bucket *opened;  /* NULL: not yet */
    struct bucket_wait wait;
    struct jetstream_call info; /* asks for the stream before it is read, and before it is changed */
    struct compact_copy_wait copy;
    struct job going_on;
    struct consumer_reading reading;
    bool is_reading;  /* the reading is not over; it may be paused */
    bool has_changed; /* something was requested that may change the bucket */
    const char *subject;
    uint64_t connection; /* number of the connection that the stream is read on */
    struct compact_plan plan;
    uint64_t read_to;                    /* the last sequence that was read */
    uint64_t chunk_to;                   /* the same when the reading of the chunk being worked on ended */
    uint64_t done_to;                    /* all markers up to here are done; 0: unknown */
    uint64_t barrier;                    /* the first sequence that must stay; 0: none was read yet */
    struct compact_chunk filling, chunk; /* being read, being worked on */
    struct compact_files *files;         /* NULL: no look is in progress */
    struct raise_horizon raise;
    struct compact_purges purges;
    struct error error; /* code ERROR_NONE: none */
};

/*
 * The number of compactions in progress at a time: each has up to 20 MB of markers, and may keep a worker thread busy.
 * The others wait for their turn: see turns. A session may have as many.
 */
#define COMPACTIONS_MAX 2u

/* Start a compaction. done is called once, maybe from within; *compact must live until then. */
void compact_start(struct store *store, struct arena *arena, struct compact *compact);

/*
 * Fail the bucket's compactions: this daemon is about to create, change, purge or delete it, or has done so. Afterwards
 * it may be another stream, in which the sequences that were read are other messages.
 */
void compact_note_change(struct store *store, const char *bucket);

/* --- For the facade --- */

/* Return 0, or -1 if memory ran out. */
int compact_init_all(struct store *store);
void compact_free_all(struct store *store);

#endif
