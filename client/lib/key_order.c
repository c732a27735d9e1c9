#include "client/lib/key_order.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *left, const void *right)
{
    const struct key_order_key *a = left, *b = right;
    size_t common = a->size < b->size ? a->size : b->size;
    int order = common > 0 ? memcmp(a->bytes, b->bytes, common) : 0;

    return order != 0 ? order : (a->size > b->size) - (a->size < b->size);
}

bool key_order_make(struct key_order *index, size_t capacity)
{
    *index = (struct key_order){0};
    index->keys = calloc(capacity + 1, sizeof(*index->keys));
    return index->keys != NULL;
}

void key_order_add(struct key_order *index, const char *bytes, size_t size, size_t place)
{
    index->keys[index->count++] = (struct key_order_key){.bytes = bytes, .size = size, .place = place};
}

static void sort(struct key_order *index)
{
    if (!index->is_sorted)
        qsort(index->keys, index->count, sizeof(*index->keys), compare);
    index->is_sorted = true;
}

size_t key_order_find(struct key_order *index, const char *bytes, size_t size)
{
    const struct key_order_key wanted = {.bytes = bytes, .size = size};

    if (index->next == index->count)
        index->next = 0;
    if (!index->is_sorted && index->count > 0 && compare(&wanted, &index->keys[index->next]) == 0)
        return index->keys[index->next++].place;
    sort(index);
    const struct key_order_key *found = bsearch(&wanted, index->keys, index->count, sizeof(*index->keys), compare);

    return found != NULL ? found->place : KEY_ORDER_NONE;
}

bool key_order_has_twins(struct key_order *index)
{
    sort(index);
    for (size_t i = 1; i < index->count; i++) {
        if (compare(&index->keys[i - 1], &index->keys[i]) == 0)
            return true;
    }
    return false;
}

void key_order_free(struct key_order *index)
{
    free(index->keys);
    index->keys = NULL;
}
