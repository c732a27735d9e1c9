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

struct bulk_get {
    /* Set by the caller; borrowed until done was called. */
    const char *bucket;
    const char *const *keys; /* each once */
    size_t count;
    enum read_consistency consistency;
    uint64_t deadline_ms;
    size_t bytes_max;                             /* of values, before it fails as too_large */
    bool (*take_memory)(void *arg, size_t bytes); /* accounts for what is gathered; false: there is no more */
    void *memory_arg;
    size_t charged_bytes; /* that take_memory has accounted for already; it grows to the most of all readings */
    /* The reading begins, or begins again: entries that came before do not count. */
    void (*restart)(void *arg);
    /* A key that is there, as keys[index]; it lives as long as the call. */
    void (*entry)(void *arg, size_t index, const struct kv_entry *entry);
    /* All that are there were told, or it failed. */
    void (*done)(void *arg, const struct error *error);
    void *arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct key_index by_name;
    struct bulk_key *all;
    struct bucket_request request; /* of a multi-last read */
    char *body;                    /* its JSON */
    size_t body_bytes;
    struct bulk_get_slot *spare;
    size_t chunk_start, chunk_count; /* keys of the multi-last read under way */
    unsigned misses;                 /* readings that missed a key */
    enum bulk_get_phase phase;
    bool has_answer; /* the bucket's own stream has answered the chunk, and not a mirror of it */
    bool has_missed; /* and found that some of it is there */
    size_t next, in_flight;
    size_t bytes; /* of values, in this reading */
    bool is_filling;
    struct error error; /* the first one of single gets */
};

void bulk_get(struct store *store, struct arena *arena, struct bulk_get *bulk);

#endif
