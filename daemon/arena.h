/*
 * arena: the memory of one call, let go of in one stroke.
 *
 * Used by everything that works for a call. It is the MessagePack library's zone,
 * so that decoded parameters and our own structures share it.
 */
#ifndef DAEMON_ARENA_H
#define DAEMON_ARENA_H

#include <msgpack/zone.h>
#include <stddef.h>
#include <string.h>

struct arena {
    msgpack_zone zone;
};

/* size_bytes of memory, aligned for any type and not cleared, until the arena goes; NULL when memory ran out. */
static inline void *arena_alloc(struct arena *arena, size_t size_bytes)
{
    return msgpack_zone_malloc(&arena->zone, size_bytes);
}

/* The same, cleared. */
static inline void *arena_zalloc(struct arena *arena, size_t size_bytes)
{
    void *memory = arena_alloc(arena, size_bytes);

    return memory != NULL ? memset(memory, 0, size_bytes) : NULL;
}

/* A copy of length bytes with a NUL behind them. */
static inline char *arena_strndup(struct arena *arena, const char *bytes, size_t length)
{
    char *copy = arena_alloc(arena, length + 1);

    if (copy == NULL)
        return NULL;
    memcpy(copy, bytes, length);
    copy[length] = '\0';
    return copy;
}

static inline char *arena_strdup(struct arena *arena, const char *text)
{
    return arena_strndup(arena, text, strlen(text));
}

#endif
