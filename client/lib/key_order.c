#include "client/lib/key_order.h"

#include <stdlib.h>
#include <string.h>

static int key_order_compare(const void *left, const void *right)
{
    const struct key_order_key *a = left, *b = right;
    size_t common = a->size < b->size ? a->size : b->size;
    int order = common > 0 ? memcmp(a->bytes, b->bytes, common) : 0;

    return order != 0 ? order : (a->size > b->size) - (a->size < b->size);
}

bool key_order_make(struct key_order *order, size_t capacity)
{
    *order = (struct key_order){0};
    order->keys = calloc(capacity + 1, sizeof(*order->keys));
    return order->keys != NULL;
}

void key_order_add(struct key_order *order, const char *bytes, size_t size, size_t place)
{
    order->keys[order->count++] = (struct key_order_key){.bytes = bytes, .size = size, .place = place};
}

static void key_order_sort(struct key_order *order)
{
    if (!order->is_sorted)
        qsort(order->keys, order->count, sizeof(*order->keys), key_order_compare);
    order->is_sorted = true;
}

size_t key_order_find(struct key_order *order, const char *bytes, size_t size)
{
    const struct key_order_key wanted = {.bytes = bytes, .size = size};

    if (order->next == order->count)
        order->next = 0;
    if (!order->is_sorted && order->count > 0 && key_order_compare(&wanted, &order->keys[order->next]) == 0)
        return order->keys[order->next++].place;
    key_order_sort(order);
    const struct key_order_key *found =
        bsearch(&wanted, order->keys, order->count, sizeof(*order->keys), key_order_compare);

    return found != NULL ? found->place : KEY_ORDER_NONE;
}

bool key_order_has_twins(struct key_order *order)
{
    key_order_sort(order);
    for (size_t i = 1; i < order->count; i++) {
        if (key_order_compare(&order->keys[i - 1], &order->keys[i]) == 0)
            return true;
    }
    return false;
}

void key_order_free(struct key_order *order)
{
    free(order->keys);
    order->keys = NULL;
}
