#include "daemon/store/read/key_order.h"

#include "daemon/base/block.h"

#include <stdlib.h>
#include <string.h>

/* Names of the first leaf when it is made. */
#define LEAF_NAMES_FIRST 4u

/* Two neighbouring leaves are joined if they have no more names together than this. */
#define LEAF_NAMES_JOINED (KEY_ORDER_LEAF_NAMES / 2u)

/* realloc, with its bytes counted. */
static void *key_order_resize(struct key_order *order, void *block, size_t bytes)
{
    size_t before = block_bytes(block);
    void *resized = realloc(block, bytes);

    if (resized != NULL)
        order->bytes += block_bytes(resized) - before;
    return resized;
}

static void key_order_free_leaf(struct key_order *order, struct key_order_leaf *leaf)
{
    order->bytes -= block_bytes(leaf);
    free(leaf);
}

/* --- Finding --------------------------------------------------------------------------------------- */

/* Return the name with an index in a list. */
typedef const char *key_order_name_fn(const void *list, size_t index);

static const char *key_order_first_name(const void *list, size_t index)
{
    const struct key_order_leaf *const *leaves = list;

    return leaves[index]->names[0];
}

static const char *key_order_name(const void *list, size_t index)
{
    const char *const *names = list;

    return names[index];
}

/* Return how many of count names are < name; with is_after, how many are <= name. They are in byte order. */
static inline size_t key_order_count_before(const void *list, size_t count, key_order_name_fn *name_at,
                                            const char *name, bool is_after)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int comparison = strcmp(name_at(list, middle), name);
        if (is_after ? comparison <= 0 : comparison < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Return where the name would be added: in the leaf that has its neighbours, maybe at that leaf's end. */
static struct key_order_place key_order_place_of(const struct key_order *order, const char *name, bool is_after)
{
    size_t before = key_order_count_before(order->leaves, order->leaf_count, key_order_first_name, name, is_after);
    struct key_order_place place = {.leaf = before > 0 ? before - 1 : 0};

    if (order->leaf_count > 0)
        place.index = key_order_count_before(order->leaves[place.leaf]->names, order->leaves[place.leaf]->count,
                                             key_order_name, name, is_after);
    return place;
}

struct key_order_place key_order_find(const struct key_order *order, const char *name, bool is_after)
{
    struct key_order_place place = key_order_place_of(order, name, is_after);

    if (place.leaf < order->leaf_count && place.index == order->leaves[place.leaf]->count)
        place = (struct key_order_place){.leaf = place.leaf + 1};
    return place;
}

/* --- Adding ---------------------------------------------------------------------------------------- */

/* Insert an empty leaf at an index of the array. NULL: out of memory. */
static struct key_order_leaf *key_order_insert_leaf(struct key_order *order, size_t at, size_t capacity)
{
    if (order->leaf_count == order->leaf_capacity) {
        size_t more = order->leaf_capacity > 0 ? order->leaf_capacity * 2 : 1;
        struct key_order_leaf **leaves =
            key_order_resize(order, (void *)order->leaves, more * sizeof(struct key_order_leaf *));
        if (leaves == NULL)
            return NULL;
        order->leaves = leaves;
        order->leaf_capacity = more;
    }
    struct key_order_leaf *leaf = key_order_resize(order, NULL, sizeof(*leaf) + capacity * sizeof(char *));
    if (leaf == NULL)
        return NULL;
    leaf->count = 0;
    leaf->capacity = (uint16_t)capacity;
    memmove((void *)(order->leaves + at + 1), (void *)(order->leaves + at),
            (order->leaf_count - at) * sizeof(*order->leaves));
    order->leaves[at] = leaf;
    order->leaf_count++;
    return leaf;
}

/* Split a full leaf of the greatest size to make room for a name, and move the place along. */
static bool key_order_split(struct key_order *order, struct key_order_place *place)
{
    struct key_order_leaf *full = order->leaves[place->leaf];
    /* If names are added in byte order, the leaves stay full. */
    bool is_last = place->leaf + 1 == order->leaf_count && place->index == full->count;
    size_t kept = is_last ? full->count : full->count / 2u;
    struct key_order_leaf *leaf = key_order_insert_leaf(order, place->leaf + 1, KEY_ORDER_LEAF_NAMES);

    if (leaf == NULL)
        return false;
    leaf->count = (uint16_t)(full->count - kept);
    memcpy((void *)leaf->names, (void *)(full->names + kept), leaf->count * sizeof(*leaf->names));
    full->count = (uint16_t)kept;
    if (place->index > kept || is_last) {
        place->leaf++;
        place->index -= kept;
    }
    return true;
}

static bool key_order_grow_leaf(struct key_order *order, size_t at)
{
    size_t capacity = order->leaves[at]->capacity * 2u;

    if (capacity > KEY_ORDER_LEAF_NAMES)
        capacity = KEY_ORDER_LEAF_NAMES;
    struct key_order_leaf *leaf =
        key_order_resize(order, order->leaves[at], sizeof(struct key_order_leaf) + capacity * sizeof(const char *));
    if (leaf == NULL)
        return false;
    leaf->capacity = (uint16_t)capacity;
    order->leaves[at] = leaf;
    return true;
}

/* Return the place where a name is to be added. If names are added in byte order, it is the end, without a search. */
static struct key_order_place key_order_place_to_add(const struct key_order *order, const char *name)
{
    const char *last = key_order_last(order);

    if (last == NULL || strcmp(name, last) <= 0)
        return key_order_place_of(order, name, false);
    size_t leaf = order->leaf_count - 1;
    return (struct key_order_place){.leaf = leaf, .index = order->leaves[leaf]->count};
}

/* Return whether the name after the place is this one. */
static bool key_order_is_at(const struct key_order *order, struct key_order_place place, const char *name)
{
    if (place.leaf < order->leaf_count && place.index == order->leaves[place.leaf]->count)
        place = (struct key_order_place){.leaf = place.leaf + 1};
    const char *next = key_order_next(order, &place);
    return next != NULL && strcmp(next, name) == 0;
}

enum key_order_added key_order_add(struct key_order *order, const char *name)
{
    struct key_order_place place = key_order_place_to_add(order, name);

    if (key_order_is_at(order, place, name))
        return KEY_ORDER_HAD_IT;
    if (order->leaf_count == 0 && key_order_insert_leaf(order, 0, LEAF_NAMES_FIRST) == NULL)
        return KEY_ORDER_NO_MEMORY;
    struct key_order_leaf *leaf = order->leaves[place.leaf];
    bool is_full = leaf->count == leaf->capacity;
    if (is_full && !(leaf->capacity < KEY_ORDER_LEAF_NAMES ? key_order_grow_leaf(order, place.leaf)
                                                           : key_order_split(order, &place)))
        return KEY_ORDER_NO_MEMORY;
    leaf = order->leaves[place.leaf];
    memmove((void *)(leaf->names + place.index + 1), (void *)(leaf->names + place.index),
            (leaf->count - place.index) * sizeof(*leaf->names));
    leaf->names[place.index] = name;
    leaf->count++;
    return KEY_ORDER_ADDED;
}

/* --- Removing -------------------------------------------------------------------------------------- */

static void key_order_remove_leaf(struct key_order *order, size_t at)
{
    key_order_free_leaf(order, order->leaves[at]);
    order->leaf_count--;
    memmove((void *)(order->leaves + at), (void *)(order->leaves + at + 1),
            (order->leaf_count - at) * sizeof(*order->leaves));
}

static void key_order_join_with_next(struct key_order *order, size_t at)
{
    if (at + 1 >= order->leaf_count)
        return;
    struct key_order_leaf *leaf = order->leaves[at], *next = order->leaves[at + 1];
    size_t count = (size_t)leaf->count + next->count;
    if (count > LEAF_NAMES_JOINED || count > leaf->capacity)
        return;
    memcpy((void *)(leaf->names + leaf->count), (void *)next->names, next->count * sizeof(*next->names));
    leaf->count = (uint16_t)count;
    key_order_remove_leaf(order, at + 1);
}

void key_order_remove(struct key_order *order, const char *name)
{
    struct key_order_place place = key_order_place_of(order, name, false);

    if (order->leaf_count == 0)
        return;
    struct key_order_leaf *leaf = order->leaves[place.leaf];
    /* The place before the first name of a leaf is the end of the leaf before it. */
    if (place.index == leaf->count) {
        if (++place.leaf == order->leaf_count)
            return;
        place.index = 0;
        leaf = order->leaves[place.leaf];
    }
    if (strcmp(leaf->names[place.index], name) != 0)
        return;
    leaf->count--;
    memmove((void *)(leaf->names + place.index), (void *)(leaf->names + place.index + 1),
            (leaf->count - place.index) * sizeof(*leaf->names));
    if (leaf->count == 0) {
        key_order_remove_leaf(order, place.leaf);
        return;
    }
    key_order_join_with_next(order, place.leaf);
    if (place.leaf > 0)
        key_order_join_with_next(order, place.leaf - 1);
}

const char *key_order_remove_last(struct key_order *order)
{
    const char *last = key_order_last(order);

    if (last == NULL)
        return NULL;
    size_t at = order->leaf_count - 1;
    if (--order->leaves[at]->count == 0)
        key_order_remove_leaf(order, at);
    return last;
}

void key_order_clear(struct key_order *order)
{
    for (size_t i = 0; i < order->leaf_count; i++)
        free(order->leaves[i]);
    free((void *)order->leaves);
    memset(order, 0, sizeof(*order));
}
