#include "client/index.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *left, const void *right)
{
    const struct index_key *a = left, *b = right;
    size_t common = a->size < b->size ? a->size : b->size;
    int order = common > 0 ? memcmp(a->bytes, b->bytes, common) : 0;

    return order != 0 ? order : (a->size > b->size) - (a->size < b->size);
}

bool index_make(struct index *index, size_t capacity)
{
    index->count = 0;
    index->keys = calloc(capacity + 1, sizeof(*index->keys));
    return index->keys != NULL;
}

void index_add(struct index *index, const char *bytes, size_t size, size_t place)
{
    index->keys[index->count++] = (struct index_key){.bytes = bytes, .size = size, .place = place};
}

void index_sort(struct index *index)
{
    qsort(index->keys, index->count, sizeof(*index->keys), compare);
}

size_t index_find(const struct index *index, const char *bytes, size_t size)
{
    const struct index_key wanted = {.bytes = bytes, .size = size};
    const struct index_key *found = bsearch(&wanted, index->keys, index->count, sizeof(*index->keys), compare);

    return found != NULL ? found->place : INDEX_NONE;
}

bool index_has_twins(const struct index *index)
{
    for (size_t i = 1; i < index->count; i++) {
        if (compare(&index->keys[i - 1], &index->keys[i]) == 0)
            return true;
    }
    return false;
}

void index_free(struct index *index)
{
    free(index->keys);
    index->keys = NULL;
}
