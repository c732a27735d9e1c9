/*
 * bulk_get: reads many keys in one call.
 *
 * Used by the handlers. Each 1,024 keys are read at one point in time if the server can do that; otherwise each key is
 * read by itself.
 */
#ifndef DAEMON_STORE_BULK_GET_H
#define DAEMON_STORE_BULK_GET_H

#include "daemon/base/arena.h"
#include "daemon/base/key_index.h"
#include "daemon/store/read/get.h"

enum bulk_get_phase {
    BULK_GET_READS_CHUNK, /* one multi_last for the keys of the chunk */
    BULK_GET_VERIFIES,    /* single gets of what the chunk did not bring */
    BULK_GET_READS_SINGLY /* single gets of all keys */
};

/* A large chunk is read in pages, so that other replies can come between them. */
struct bulk_get_pages {
    bool is_off;     /* a value was overwritten between two pages, or is larger than a page: read without pages */
    bool is_next;    /* the request is sent again for the next page, and not as a retry */
    uint64_t up_to;  /* all pages are of the point in time of this sequence; 0: the first page has not come */
    uint64_t before; /* last revision of the page before this one */
    uint64_t last;   /* last revision so far */
    uint64_t left;   /* messages that must still come */
};

struct bulk_get {
    /* Set by the caller; borrowed until done was called. */
    const char *bucket_name;
    const char *const *keys; /* each once */
    size_t count;
    enum read_consistency consistency;
    const uint64_t *revisions; /* NULL, or read each key at the revision given, by itself */
    bool may_mix_moments;      /* keys that were missed may be of later moments than the others of their group */
    uint64_t deadline_ms;
    size_t bytes_max;                             /* of entries in the answer, before it fails as too_large */
    bool (*take_memory)(void *arg, size_t bytes); /* charges what is gathered; false: the limit is reached */
    void *memory_arg;
    size_t charged_bytes; /* that take_memory has accounted for already; it grows to the most of all readings */
    /* The reading starts, or starts again: discard the entries that came before. */
    void (*restart)(void *arg);
    /* keys[index] is present; the entry is valid during the call. Return its bytes in the answer; 0: it is not kept. */
    size_t (*entry)(void *arg, size_t index, const struct kv_entry *entry);
    /* All entries were delivered, or it failed. */
    void (*done)(void *arg, const struct error *error);
    void *arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct key_index by_name;
    struct bulk_key *all;
    struct bucket_request request; /* a multi_last */
    struct bulk_get_slot *spare;
    size_t chunk_start, chunk_count; /* keys of the multi_last in flight */
    struct bulk_get_pages pages;
    unsigned misses; /* readings that missed a key */
    struct timer pause;
    enum bulk_get_phase phase;
    bool has_answer; /* the stream itself has answered the chunk: a message came, and not from a mirror */
    bool has_missed; /* single gets have found a key that the chunk did not bring */
    size_t next, in_flight;
    size_t bytes; /* of entries, in this reading */
    bool is_filling;
    struct error error; /* the first one, of single gets */
};

void bulk_get(struct store *store, struct arena *arena, struct bulk_get *bulk);

#endif
