/*
 * key_index: finds the keys of one call by name.
 *
 * Used for calls that name many keys. The index lives in the call's arena and needs no clean-up: it may go, with the
 * arena, at any moment.
 */
#ifndef DAEMON_KEY_INDEX_H
#define DAEMON_KEY_INDEX_H

#include "daemon/base/arena.h"

#include <stdbool.h>
#include <stdint.h>

#define KEY_INDEX_NONE UINT32_MAX

struct key_index {
    struct key_index_slot *slots;
    size_t mask;
};

/* Make room for up to keys_max keys. False: out of memory. */
bool key_index_init(struct key_index *index, struct arena *arena, size_t keys_max);

/* Add key with the caller's number, unless it is there. Return the key's number. key is borrowed. */
uint32_t key_index_add(struct key_index *index, const char *key, uint32_t number);

/* Return the key's number, or KEY_INDEX_NONE. */
uint32_t key_index_find(const struct key_index *index, const char *key);

#endif
