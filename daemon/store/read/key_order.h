/*
 * key_order: a set of keys in byte order.
 *
 * Used by cache, so that the cost of a page depends on its size and not on that of the bucket, and by scan, which
 * gathers keys as they come. The names are borrowed. They are in leaves of up to KEY_ORDER_LEAF_NAMES. One array has
 * the leaves in their order, some fifty thousand for five million names. That takes about 12 bytes a name. The first
 * leaf starts small, because most sets are.
 */
#ifndef DAEMON_STORE_KEY_ORDER_H
#define DAEMON_STORE_KEY_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEY_ORDER_LEAF_NAMES 128u

struct key_order_leaf {
    uint16_t count, capacity;
    const char *names[];
};

struct key_order {
    struct key_order_leaf **leaves; /* none is empty */
    size_t leaf_count, leaf_capacity;
    size_t bytes; /* of all leaves and the array, with malloc's own */
};

/* A position between two names: the next name is at index in leaf. Valid until the set is changed. */
struct key_order_place {
    size_t leaf;
    size_t index;
};

enum key_order_added {
    KEY_ORDER_ADDED,
    KEY_ORDER_HAD_IT,   /* the set has an equal name, and is not changed */
    KEY_ORDER_NO_MEMORY /* the set is not changed */
};

/* Add a name. */
enum key_order_added key_order_add(struct key_order *order, const char *name);

/* Return the last name; NULL if there is none. */
static inline const char *key_order_last(const struct key_order *order)
{
    if (order->leaf_count == 0)
        return NULL;
    const struct key_order_leaf *leaf = order->leaves[order->leaf_count - 1];
    return leaf->names[leaf->count - 1];
}

/* Remove the last name and return it; NULL if there is none. */
const char *key_order_remove_last(struct key_order *order);

/* Remove a name. Does nothing if it is not there. */
void key_order_remove(struct key_order *order, const char *name);

/* Return the place before the first name >= name; with is_after, before the first name > name. */
struct key_order_place key_order_find(const struct key_order *order, const char *name, bool is_after);

/* Return the next name, and move the place; NULL at the end. */
static inline const char *key_order_next(const struct key_order *order, struct key_order_place *place)
{
    if (place->leaf >= order->leaf_count)
        return NULL;
    const struct key_order_leaf *leaf = order->leaves[place->leaf];
    const char *name = leaf->names[place->index++];
    if (place->index == leaf->count) {
        place->leaf++;
        place->index = 0;
    }
    return name;
}

/* Free everything but the names. */
void key_order_clear(struct key_order *order);

#endif
