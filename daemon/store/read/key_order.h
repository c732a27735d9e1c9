/*
 * order: a set of names in byte order.
 *
 * Used by cache, so that a page of keys costs what it returns and not what the bucket has, and by scan, which gathers
 * keys as they come. The names are borrowed. They are in leaves of up to ORDER_LEAF_NAMES; one array has the leaves in
 * their order, some fifty thousand for five million names. That takes about 12 bytes a name. The first leaf begins
 * small, because most sets are.
 */
#ifndef DAEMON_STORE_ORDER_H
#define DAEMON_STORE_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ORDER_LEAF_NAMES 128u

struct order_leaf {
    uint16_t count, capacity;
    const char *names[];
};

struct order {
    struct order_leaf **leaves; /* none is empty */
    size_t leaf_count, leaf_capacity;
    size_t bytes; /* of all leaves and the array, with malloc's own */
};

/* A place between two names: the next one is at index in leaf. Valid until the set is changed. */
struct order_place {
    size_t leaf;
    size_t index;
};

enum order_added {
    ORDER_ADDED,
    ORDER_HAD_IT,   /* the set has an equal name, and is not changed */
    ORDER_NO_MEMORY /* the set is not changed */
};

/* Add a name. */
enum order_added order_add(struct order *order, const char *name);

/* Return the last name; NULL if there is none. */
static inline const char *order_last(const struct order *order)
{
    if (order->leaf_count == 0)
        return NULL;
    const struct order_leaf *leaf = order->leaves[order->leaf_count - 1];
    return leaf->names[leaf->count - 1];
}

/* Remove the last name and return it; NULL if there is none. */
const char *order_take_last(struct order *order);

/* Remove a name. Does nothing if it is not there. */
void order_remove(struct order *order, const char *name);

/* Return the place before the first name >= name; with is_behind, before the first name > name. */
struct order_place order_find(const struct order *order, const char *name, bool is_behind);

/* Return the next name, and move the place; NULL at the end. */
static inline const char *order_next(const struct order *order, struct order_place *place)
{
    if (place->leaf >= order->leaf_count)
        return NULL;
    const struct order_leaf *leaf = order->leaves[place->leaf];
    const char *name = leaf->names[place->index++];
    if (place->index == leaf->count) {
        place->leaf++;
        place->index = 0;
    }
    return name;
}

/* Free everything but the names. */
void order_clear(struct order *order);

#endif
