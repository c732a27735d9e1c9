/*
 * read: getting one entry out of a bucket.
 *
 * Used by the handlers and by write. Finds the bucket's handle first, asks in the
 * way that the bucket allows, and calls back once, with the answer or an error.
 */
#ifndef DAEMON_STORE_READ_H
#define DAEMON_STORE_READ_H

#include "daemon/base/arena.h"
#include "daemon/nats/kv.h"
#include "daemon/store/bucket/bucket_request.h"
#include "daemon/store/context.h"

enum read_consistency {
    READ_DIRECT, /* any replica may answer; of the embedded server's buckets the handlers ask near first */
    READ_LEADER, /* the stream's leader answers: whatever was acknowledged before is seen */
    READ_CACHED  /* from memory: see near; here the same as DIRECT */
};

/* The entry, or NULL where the key is not there (never was, is deleted or has expired), or an error. */
typedef void read_entry_fn(void *arg, const struct kv_entry *entry, const struct error *error);

struct read_get {
    /* Set by the caller; strings are borrowed until done was called. */
    const char *bucket;
    const char *key;
    uint64_t revision;      /* 0: the last one */
    uint64_t from_sequence; /* the key's first message from it on, of the leader; 0: the last one */
    bool of_any_key;        /* with from_sequence: the first message of the bucket */
    enum read_consistency consistency;
    bool must_be_current; /* with READ_DIRECT: as new as the leader's answer; see take_direct */
    bool with_markers;    /* a delete or purge marker is an answer too */
    uint64_t deadline_ms;
    read_entry_fn *done;
    void *arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct bucket_request request;
    const char *body;
    uint64_t known_revision; /* see observe_known_revision */
};

/*
 * Gets one entry. The memory of *get, zeroed but for what the caller sets, and the arena
 * live until done was called; the entry lives as long as that call.
 */
void read_get(struct store *store, struct arena *arena, struct read_get *get);

/* Copy an entry into an arena, its headers included: entries live as long as the message that they came with. */
bool read_copy_entry(struct arena *arena, const struct kv_entry *entry, struct kv_entry *copy);

/* The error of a call whose take_memory says no. ask_for: what would need less of it, such as "fewer keys". */
void read_set_memory_error(struct error *error, const char *ask_for);

/* Ends it without calling done. Does nothing where it is over, or never began. */
void read_get_cancel(struct read_get *get);

#endif
