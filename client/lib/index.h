/*
 * index: finds the place of a key among many.
 *
 * Used where a bulk call's keys and its answer are brought together. Fill it with index_add, at most as often as it was
 * made for, then look for keys: in the order in which they were added that takes one comparison each.
 */
#ifndef CLIENT_INDEX_H
#define CLIENT_INDEX_H

#include <stdbool.h>
#include <stddef.h>

#define INDEX_NONE ((size_t)-1)

struct index_key {
    const char *bytes; /* borrowed */
    size_t size;
    size_t place;
};

struct index {
    struct index_key *keys;
    size_t count;
    size_t next; /* to be looked for, as long as the order is the same */
    bool is_sorted;
};

/* Makes an empty index with room for capacity keys. False when out of memory. */
bool index_make(struct index *index, size_t capacity);

void index_add(struct index *index, const char *bytes, size_t size, size_t place);

/* The place of the key that has these bytes, one of them where there are several; or INDEX_NONE. */
size_t index_find(struct index *index, const char *bytes, size_t size);

/* Whether a key is there twice. */
bool index_has_twins(struct index *index);

void index_free(struct index *index);

#endif
