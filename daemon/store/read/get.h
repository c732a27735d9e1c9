/*
 * get: reads one entry of a bucket.
 *
 * Used by the handlers, by follow and by write. It opens the bucket, reads in the way that the bucket allows, and calls
 * back once, with the answer or an error.
 */
#ifndef DAEMON_STORE_GET_H
#define DAEMON_STORE_GET_H

#include "daemon/base/arena.h"
#include "daemon/nats/kv.h"
#include "daemon/store/bucket/bucket_request.h"
#include "daemon/store/context.h"

enum read_consistency {
    READ_DIRECT, /* any replica may answer */
    READ_LEADER, /* the stream's leader answers: the read sees all writes that were acknowledged before */
    READ_CACHED  /* from memory: see cached_read; here the same as DIRECT */
};

/* The entry; NULL if the key is absent (never written, deleted or expired); or an error. */
typedef void get_done_fn(void *arg, const struct kv_entry *entry, const struct error *error);

struct get {
    /* Set by the caller; strings are borrowed until done was called. */
    const char *bucket_name;
    const char *key;
    uint64_t revision;      /* 0: the last one */
    uint64_t from_sequence; /* read the key's first message from this sequence on, from the leader; 0: the last one */
    bool of_any_key;        /* with from_sequence: the first message of the bucket */
    enum read_consistency consistency;
    bool must_be_current; /* with READ_DIRECT: as new as the leader's answer; see get_receive_direct */
    bool with_markers;    /* also return delete and purge markers */
    uint64_t deadline_ms;
    get_done_fn *done;
    void *arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct bucket_request request;
    const char *body;
    uint64_t known_revision; /* see observe_known_revision */
    unsigned not_found;      /* number of answers that there is no such stream */
};

/*
 * Read one entry. *get is zeroed but for what the caller sets. It and the arena live until done was called; the entry
 * is valid during that call.
 */
void get_start(struct store *store, struct arena *arena, struct get *get);

/* Copy an entry into an arena, with its headers and what says when it expires: entries live as long as the message that
 * they came with. */
bool get_copy_entry(struct arena *arena, const struct kv_entry *entry, struct kv_entry *copy);

/* Set the error of a call whose take_memory returned false. ask_for: what needs less memory, such as "fewer keys". */
void get_set_memory_error(struct error *error, const char *ask_for);

/* End it without calling done. Does nothing if it has ended, or never began. */
void get_cancel(struct get *get);

#endif
