/*
 * array: an array of malloc that grows by doubling.
 *
 * Used by modules that collect elements without knowing how many will come.
 */
#ifndef DAEMON_ARRAY_H
#define DAEMON_ARRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#define ARRAY_CAPACITY_FIRST 1024u

/*
 * Make room for needed elements of element_bytes each; *array is NULL and *capacity 0 at first. False: out of memory,
 * and nothing is changed.
 */
static inline bool array_reserve(void **array, size_t *capacity, size_t needed, size_t element_bytes)
{
    size_t larger = *capacity > 0 ? *capacity : ARRAY_CAPACITY_FIRST;

    if (needed <= *capacity)
        return true;
    while (larger < needed)
        larger *= 2;
    void *grown = realloc(*array, larger * element_bytes);
    if (grown == NULL)
        return false;
    *array = grown;
    *capacity = larger;
    return true;
}

#endif
