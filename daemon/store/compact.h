/*
 * compact: removes the delete markers of a bucket that are older than a given age.
 *
 * Used by the handlers, and by itself for buckets with a marker_ttl: see compact_note_delete. A delete marker is a
 * message like any other: a million deleted keys take space, and whoever reads the bucket from its beginning reads
 * their markers. Three promises make their removal more than a purge of each:
 *
 * - A key that is written again keeps its value. A purge takes only what stands up to the marker that was seen.
 *
 * - A deletion is never lost in silence. Before markers are removed, the bucket gets a message that says up to which
 *   revision (KV_COMPACTED_KEY). A watch that goes on from an earlier revision ends with revision_gone; see watch.
 *
 * - A deleted value does not come back. See remains: with the embedded server a marker stays until the old values of
 *   its key have left the server's files. A server that is not ours cannot be looked into.
 *
 *   In a bucket with a history what stands before a marker is purged first: that has left the files then, too.
 *
 * The stream is read from its beginning, a chunk of markers at a time. Markers that stand before all values go with one
 * purge, if the bucket has no history; the others one by one. So few purges are at the server at a time that other
 * callers hardly notice.
 */
#ifndef DAEMON_STORE_COMPACT_H
#define DAEMON_STORE_COMPACT_H

#include "daemon/arena.h"
#include "daemon/nats/consumer.h"
#include "daemon/store/bucket.h"
#include "daemon/store/read.h"
#include "daemon/store/replica.h"
#include "daemon/store/write.h"

/* How many markers were removed; also beside an error. */
typedef void compact_done_fn(void *arg, uint64_t removed, const struct error *error);

#define COMPACT_PURGES_MAX 4u

struct compact_purge {
    struct jetstream_call call;
    struct compact *compact;
    uint64_t markers; /* that it may remove */
    bool is_under_way;
};

struct compact_chunk {
    struct compact_marker *markers; /* in the order of their sequences */
    size_t count, capacity;
    char *text; /* their keys */
    size_t text_bytes, text_capacity;
};

struct compact {
    /* Set by the caller, zeroed otherwise; borrowed until done was called. */
    const char *bucket;
    int64_t older_than_s;  /* -1: what the bucket's marker_ttl says; 0: of any age */
    bool needs_marker_ttl; /* does nothing where the bucket has none */
    uint64_t deadline_ms;
    compact_done_fn *done;
    void *arg;

    /* private */
    struct compact *next, *previous; /* of the store */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct timer deadline; /* of what has none of its own */
    struct bucket *handle;
    struct bucket_wait wait;
    struct jetstream_call info;
    struct replica_wait feed_wait;
    struct job going_on;
    struct consumer_reading reading;
    const char *subject;
    uint64_t link;        /* number of the connection that the stream is read on */
    int64_t cutoff_us;    /* markers that were stored later stay */
    uint64_t last;        /* so do those with a higher sequence */
    bool is_in_files;     /* of the embedded server */
    bool is_reading;      /* the reading is not over; it may be paused */
    bool is_working;      /* on the chunk */
    bool is_clearing;     /* what stands before the chunk's markers is purged, and they stay for now */
    uint64_t read_to;     /* the last sequence that was read */
    uint64_t barrier;     /* the first sequence that must stay; 0: none was met */
    bool is_past_barrier; /* no more markers stand before all values */
    struct compact_chunk filling, chunk;
    struct compact_look *look;
    struct arena horizon_arena;
    bool has_horizon_arena;
    struct read_get horizon_get;
    struct write horizon_write;
    uint64_t horizon;   /* that the bucket has */
    size_t next_marker; /* of the chunk */
    struct compact_purge purges[COMPACT_PURGES_MAX];
    unsigned purges_under_way;
    bool has_removed; /* a purge was sent */
    uint64_t removed;
    struct error error; /* code ERROR_NONE: none */
};

/* So many may be under way: each has up to 20 MB of markers, and may keep a worker thread busy. */
#define COMPACTIONS_MAX 2u

/* Calls done once, maybe from within. The memory of *compact lives until then. */
void compact_start(struct store *store, struct arena *arena, struct compact *compact);

/*
 * The bucket is about to be removed, made, purged or changed by this daemon: what follows may be another stream, whose
 * revisions say something else. Its compactions end.
 */
void compact_note_change(struct store *store, const char *bucket);

/* The revision up to which markers may have been removed, of the last message of KV_COMPACTED_KEY (NULL: none). */
uint64_t compact_read_horizon(const struct kv_entry *entry);

#endif
