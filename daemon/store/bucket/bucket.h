/*
 * bucket: what must be known of a bucket to read and write it.
 *
 * Used by all rooms of the store. A bucket is looked up once, with STREAM.INFO, and the answer is trusted for
 * buckets.metadata_ttl. Callers that open the same unknown bucket at the same time share one look-up. The bucket is
 * forgotten when this daemon changes it, and when an answer shows that somebody else has changed it.
 */
#ifndef DAEMON_STORE_BUCKET_H
#define DAEMON_STORE_BUCKET_H

#include "daemon/nats/kv.h"
#include "daemon/store/bucket/stream.h"
#include "daemon/store/context.h"

struct bucket {
    const char *name;
    const char *origin; /* the bucket that is written to: the one that a mirror copies, otherwise the bucket itself */
    const char *stream; /* "KV_b" */
    const char *prefix; /* of the subjects under which its keys are stored: "$KV.b." */
    const char *put_prefix; /* of the subjects to publish to; a mirror has another one */
    unsigned history;
    unsigned replicas;
    bool allows_ttl;        /* TTL per key */
    bool allows_atomic;     /* atomic batches */
    bool allows_direct;     /* direct gets */
    bool is_mirror;         /* written to through the bucket that it copies */
    bool is_exclusive;      /* of the embedded server, without mirror or sources: only this daemon writes to it */
    bool is_clustered;      /* several servers may answer its reads */
    int64_t max_value_size; /* bytes; -1: no limit of the bucket's own */
    uint64_t max_age_ms;    /* of every message; 0: no limit */
    int64_t marker_ttl_s;   /* after which delete markers go; 0: they stay */

    /* private */
    struct bucket_shared *shared;
    uint64_t keeper; /* of its ids, by the look-up; 0: the connection's server, or not known */
    char leader[64]; /* the server that leads the stream; "": not known */
    unsigned references;
};

typedef void bucket_ready_fn(void *arg, struct bucket *bucket, const struct error *error);

/* A caller that waits for a bucket. The owner embeds it, zeroed; the memory lives until ready was called. */
struct bucket_wait {
    struct bucket_wait *next;
    struct bucket_wait *previous;
    struct timer timer;
    struct store *store;
    uint64_t owner;
    struct arena *caller;       /* set by the owner: learns how long it waited; NULL: none */
    struct bucket_entry *entry; /* NULL: waits for nothing */
    bucket_ready_fn *ready;
    void *arg;
};

/*
 * Open a bucket whose name is well-formed. ready is called once, maybe from within: with a bucket that the callee must
 * bucket_release, or with an error. owner: the session that it is for, see fair_queue_identity, or 0; users and
 * sessions take turns.
 */
void bucket_open(struct store *store, struct bucket_wait *wait, const char *name, uint64_t owner, uint64_t deadline_ms,
                 bucket_ready_fn *ready, void *arg);

/* Stop waiting: ready is not called. Does nothing if ready was called already. */
void bucket_wait_cancel(struct bucket_wait *wait);

struct bucket *bucket_retain(struct bucket *bucket);
void bucket_release(struct bucket *bucket);

/* --- The stream ------------------------------------------------------------------------------------ */

/* Record that a message of the bucket was stored under this sequence. */
void bucket_note_sequence(const struct store *store, struct bucket *bucket, uint64_t sequence);

/* Return what is known of the bucket's stream without asking. */
struct stream_state bucket_stream(const struct store *store, const struct bucket *bucket);

/* Return the keeper of the stream's ids that answers on the present connection; 0: the connection does not show it. */
uint64_t bucket_keeper(const struct store *store, const struct bucket *bucket);

/*
 * This daemon begins or ends a call that may remove messages without a trace, of any bucket: a purge, or new settings.
 * is_in_doubt: the call ended without an answer, and the server may still carry it out on the present connection.
 */
void bucket_note_removal(struct store *store, bool is_in_doubt);

/*
 * Return whether this daemon may have removed messages since bucket_stream gave this number of removals, when the
 * connection with this number was the present one.
 */
bool bucket_has_removed_since(const struct store *store, uint64_t removals, uint64_t connection);

/* Return the bucket if it was looked up and is not forgotten, borrowed until the caller returns to the loop; otherwise
 * NULL. */
const struct bucket *bucket_find_known(const struct store *store, const char *name);

/* Call visit for each bucket that is known. It looks no bucket up. */
void bucket_each(const struct store *store, void (*visit)(void *arg, const struct bucket *bucket), void *arg);

/* Make the next bucket_open look the bucket up again. A bucket in use stays as it is. */
void bucket_forget(struct store *store, const char *name);

/* The same if the change of its settings may still come: for buckets.metadata_ttl, it is looked up again each second.
 */
void bucket_doubt(struct store *store, const char *name);

/* --- Attachments ----------------------------------------------------------------------------------- */

/* What a higher room keeps for each bucket, from its first look-up until nothing uses the bucket. */
struct bucket_attachment_ops {
    /* Return a new attachment; NULL if memory ran out. */
    void *(*make)(struct store *store);
    void (*release)(void *attachment);
    /* Return whether the attachment must be kept, although nobody holds the bucket. */
    bool (*is_in_use)(const void *attachment);
};

/* Attach something to each bucket that is looked up from now on. There is one attachment for each bucket. */
void bucket_attach(struct store *store, const struct bucket_attachment_ops *ops);
void *bucket_attachment(const struct bucket *bucket);

/* --- For the facade -------------------------------------------------------------------------------- */

/* Return 0, or -1 if memory ran out. */
int bucket_init_table(struct store *store);
void bucket_free_table(struct store *store);

/* Fail all callers that wait for a bucket, when the daemon ends. Return how many there were. */
size_t bucket_fail_waiting(struct store *store);

#endif
