#include "daemon/base/key_index.h"

#include "daemon/base/hash.h"

#include <string.h>

struct key_index_slot {
    const char *key; /* NULL: free */
    uint32_t hash;
    uint32_t number;
};

bool key_index_init(struct key_index *index, struct arena *arena, size_t keys_max)
{
    size_t capacity = 8;

    while (capacity < keys_max * 2)
        capacity *= 2;
    index->slots = arena_zalloc(arena, capacity * sizeof(*index->slots));
    index->mask = capacity - 1;
    return index->slots != NULL;
}

/* Return the key's slot, or the free slot for it: the table is at most half full. */
static struct key_index_slot *find_slot(const struct key_index *index, const char *key, uint32_t hash)
{
    size_t at = hash & index->mask;

    while (index->slots[at].key != NULL && (index->slots[at].hash != hash || strcmp(index->slots[at].key, key) != 0))
        at = (at + 1) & index->mask;
    return &index->slots[at];
}

uint32_t key_index_add(struct key_index *index, const char *key, uint32_t number)
{
    uint32_t hash = (uint32_t)hash_bytes(key, strlen(key));
    struct key_index_slot *slot = find_slot(index, key, hash);

    if (slot->key == NULL)
        *slot = (struct key_index_slot){key, hash, number};
    return slot->number;
}

uint32_t key_index_find(const struct key_index *index, const char *key)
{
    const struct key_index_slot *slot = find_slot(index, key, (uint32_t)hash_bytes(key, strlen(key)));

    return slot->key != NULL ? slot->number : KEY_INDEX_NONE;
}
