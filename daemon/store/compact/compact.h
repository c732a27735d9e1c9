/*
 * compact: removes the delete markers of a bucket that are older than a given age.
 *
 * Used by the handlers for bucket.compact, and by compact_schedule for buckets with a marker_ttl. A delete marker is a
 * message like any other: those of a million deleted keys take space, and a reading of the whole bucket delivers them.
 * A compaction makes three promises, so it does more than purge each marker:
 *
 * - A key that is written again keeps its value. A purge removes messages only up to the marker that was read.
 *
 * - A deletion is never lost silently. Before markers are removed, the horizon is written to the bucket, as a message
 *   of KV_COMPACTED_KEY: the highest revision of a marker that may have been removed. A watch that is resumed at the
 *   horizon or before it ends with revision_gone: see watch.
 *
 * - A deleted value does not come back. With the embedded server a marker is retained until the old values of its key
 *   have left the server's files: see remains. In a bucket with a history the messages before a marker are purged
 *   first, which counts as having left the files. The files of an external server cannot be read, so no marker is
 *   retained.
 *
 * The stream is read from its beginning, a chunk of markers at a time. Markers that come before all values are removed
 * with one purge, unless the bucket has a history. The others are purged one by one, few at a time, so that other
 * callers hardly notice.
 */
#ifndef DAEMON_STORE_COMPACT_H
#define DAEMON_STORE_COMPACT_H

#include "daemon/base/arena.h"
#include "daemon/nats/consumer.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/follow/local_copy.h"
#include "daemon/store/read/get.h"
#include "daemon/store/write/write.h"

/* removed is the number of markers that were removed, also if there is an error. */
typedef void compact_done_fn(void *arg, uint64_t removed, const struct error *error);

#define COMPACT_PURGES_MAX 4u

struct compact_purge {
    struct jetstream_call call;
    struct compact *compact;
    uint64_t markers; /* that it may remove; more messages that it removes are not counted */
    bool is_under_way;
};

struct compact_chunk {
    struct compact_marker *markers; /* in the order of their sequences, as long as the reading does not begin again */
    size_t count, capacity;
    char *text; /* their keys */
    size_t text_bytes, text_capacity;
};

/* Age in seconds from which markers are removed by default: that of PurgeDeletes in the NATS client libraries. */
#define COMPACT_DEFAULT_AGE_S 1800

struct compact {
    /* Set by the caller, the rest zeroed; borrowed until done was called. */
    const char *bucket;
    int64_t older_than_s;  /* 0: of any age; -1: the bucket's marker_ttl, or COMPACT_DEFAULT_AGE_S if it has none */
    bool needs_marker_ttl; /* does nothing if the bucket has none */
    uint64_t deadline_ms;
    compact_done_fn *done;
    void *arg;

    /* private */
    struct compact *next, *previous; /* of the store */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    bool is_waiting;       /* for its turn: nothing was begun */
    struct timer deadline; /* of the look at the files, which has none of its own */
    struct bucket *handle;
    struct bucket_wait wait;
    struct jetstream_call info;
    struct local_copy_wait feed_wait;
    struct job going_on;
    struct consumer_reading reading;
    const char *subject;
    uint64_t connection;  /* number of the connection that the stream is read on */
    int64_t cutoff_us;    /* markers that were stored later stay */
    uint64_t last;        /* markers with a higher sequence stay */
    bool is_in_files;     /* of the embedded server */
    bool is_reading;      /* the reading is not over; it may be paused */
    bool is_working;      /* on chunk */
    bool is_clearing;     /* the messages before the chunk's markers are being purged; the markers come later */
    uint64_t read_to;     /* the last sequence that was read */
    uint64_t barrier;     /* the first sequence that must stay; 0: none was read yet */
    bool is_past_barrier; /* the markers that come before all values are done */
    struct compact_chunk filling, chunk; /* that is being read, that is being worked on */
    struct compact_look *look;
    struct arena horizon_arena;
    bool has_horizon_arena;
    struct read_get horizon_get;
    struct write horizon_write;
    uint64_t horizon;   /* as it was last read from the bucket */
    size_t next_marker; /* of the chunk */
    struct compact_purge purges[COMPACT_PURGES_MAX];
    unsigned purges_under_way;
    bool has_removed; /* a purge was sent */
    uint64_t removed;
    struct error error; /* code ERROR_NONE: none */
};

/*
 * So many may be under way: each has up to 20 MB of markers, and may keep a worker thread busy. The others wait for
 * their turn. A session may have as many, so that one does not keep the others waiting.
 */
#define COMPACTIONS_MAX 2u

/* Start a compaction. done is called once, maybe from within; *compact must live until then. */
void compact_start(struct store *store, struct arena *arena, struct compact *compact);

/*
 * Fail the bucket's compactions: this daemon is about to create, change, purge or delete it. Afterwards it may be
 * another stream, in which the sequences that were read are other messages.
 */
void compact_note_change(struct store *store, const char *bucket);

/* --- For the facade --- */

/* Return 0, or -1 if memory ran out. */
int compact_init_all(struct store *store);
void compact_free_all(struct store *store);

#endif
