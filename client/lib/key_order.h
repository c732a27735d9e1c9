/*
 * key_order: finds the place of a key among many.
 *
 * Used to match a bulk call's keys with its answer. Fill it with key_order_add, at most as often as its capacity, then
 * look for keys. Keys that are looked for in the order in which they were added take one comparison each.
 */
#ifndef CLIENT_KEY_ORDER_H
#define CLIENT_KEY_ORDER_H

#include <stdbool.h>
#include <stddef.h>

#define KEY_ORDER_NONE ((size_t)-1)

struct key_order_key {
    const char *bytes; /* borrowed */
    size_t size;
    size_t place;
};

struct key_order {
    struct key_order_key *keys;
    size_t count;
    size_t next; /* expected next, as long as the order is the same */
    bool is_sorted;
};

/* Make an empty order with room for capacity keys. False when out of memory. */
bool key_order_make(struct key_order *order, size_t capacity);

void key_order_add(struct key_order *order, const char *bytes, size_t size, size_t place);

/* Return the place of a key that has these bytes, or KEY_ORDER_NONE. */
size_t key_order_find(struct key_order *order, const char *bytes, size_t size);

/* Whether a key occurs twice. */
bool key_order_has_twins(struct key_order *order);

void key_order_free(struct key_order *order);

#endif
