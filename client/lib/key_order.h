/*
 * key_order: finds the place of a key among many.
 *
 * Used where a bulk call's keys and its answer are brought together. Fill it with index_add, at most as often as it was
 * made for, then look for keys: in the order in which they were added that takes one comparison each.
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
    size_t next; /* to be looked for, as long as the order is the same */
    bool is_sorted;
};

/* Makes an empty index with room for capacity keys. False when out of memory. */
bool key_order_make(struct key_order *index, size_t capacity);

void key_order_add(struct key_order *index, const char *bytes, size_t size, size_t place);

/* The place of the key that has these bytes, one of them where there are several; or INDEX_NONE. */
size_t key_order_find(struct key_order *index, const char *bytes, size_t size);

/* Whether a key is there twice. */
bool key_order_has_twins(struct key_order *index);

void key_order_free(struct key_order *index);

#endif
