/*
 * chunk: delete markers of a bucket that are removed together.
 *
 * Used by compact and its parts.
 */
#ifndef DAEMON_STORE_COMPACT_CHUNK_H
#define DAEMON_STORE_COMPACT_CHUNK_H

#include "daemon/nats/kv.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct compact_marker {
    uint64_t sequence;
    uint64_t hash;    /* of its subject */
    size_t key;       /* in the chunk's text */
    bool is_retained; /* old values of its key are still in the server's files */
};

/* Zeroed: empty. */
struct compact_chunk {
    struct compact_marker *markers; /* in the order of their sequences, as long as the reading does not restart */
    size_t count, capacity;
    char *text; /* their keys */
    size_t text_bytes, text_capacity;
};

/* Return whether the chunk has enough markers. What was already requested from the server can still be added. */
bool compact_chunk_is_full(const struct compact_chunk *chunk);

/* Add a marker. False: out of memory. */
bool compact_chunk_add(struct compact_chunk *chunk, const struct kv_entry *entry, const char *subject);

static inline const char *compact_chunk_key(const struct compact_chunk *chunk, const struct compact_marker *marker)
{
    return chunk->text + marker->key;
}

/* Return the highest sequence of a marker that may be removed; 0: there is none. */
uint64_t compact_chunk_last_removable(const struct compact_chunk *chunk);

/* Empty the chunk, and keep its memory. */
void compact_chunk_clear(struct compact_chunk *chunk);
void compact_chunk_free(struct compact_chunk *chunk);

#endif
