#include "daemon/store/compact/chunk.h"

#include "daemon/base/array.h"
#include "daemon/base/hash.h"

#include <stdlib.h>
#include <string.h>

/* A chunk is full if it has this number of markers, or of bytes of keys. */
#define MARKERS_MAX 65536u
#define TEXT_MAX    (8u * 1024u * 1024u)

bool compact_chunk_is_full(const struct compact_chunk *chunk)
{
    return chunk->count >= MARKERS_MAX || chunk->text_bytes >= TEXT_MAX;
}

bool compact_chunk_add(struct compact_chunk *chunk, const struct kv_entry *entry, const char *subject)
{
    size_t bytes = strlen(entry->key) + 1;

    if (!array_reserve((void **)&chunk->markers, &chunk->capacity, chunk->count + 1, sizeof(*chunk->markers)) ||
        !array_reserve((void **)&chunk->text, &chunk->text_capacity, chunk->text_bytes + bytes, 1))
        return false;
    memcpy(chunk->text + chunk->text_bytes, entry->key, bytes);
    chunk->markers[chunk->count++] = (struct compact_marker){
        .sequence = entry->revision, .hash = hash_bytes(subject, strlen(subject)), .key = chunk->text_bytes};
    chunk->text_bytes += bytes;
    return true;
}

/* Not simply the last one: a reading that restarts brings markers again. */
uint64_t compact_chunk_last_removable(const struct compact_chunk *chunk)
{
    uint64_t last = 0;

    for (size_t i = 0; i < chunk->count; i++) {
        if (!chunk->markers[i].is_retained && chunk->markers[i].sequence > last)
            last = chunk->markers[i].sequence;
    }
    return last;
}

void compact_chunk_clear(struct compact_chunk *chunk)
{
    chunk->count = 0;
    chunk->text_bytes = 0;
}

void compact_chunk_free(struct compact_chunk *chunk)
{
    free(chunk->markers);
    free(chunk->text);
    memset(chunk, 0, sizeof(*chunk));
}
