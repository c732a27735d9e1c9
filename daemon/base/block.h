/*
 * block: how much memory a block of malloc takes.
 *
 * Used by cache, cache_value and key_order, which count their memory.
 */
#ifndef DAEMON_BLOCK_H
#define DAEMON_BLOCK_H

#include <malloc.h>
#include <stddef.h>

/* Return the bytes of a block, with malloc's own before it; 0 for NULL. */
static inline size_t block_bytes(void *block)
{
    return block != NULL ? malloc_usable_size(block) + sizeof(size_t) : 0;
}

#endif
