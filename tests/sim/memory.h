/*
 * memory: allocations of the simulation, which ends if there is no memory.
 */
#ifndef SIM_MEMORY_H
#define SIM_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* Return what was allocated. NULL ends the process. */
void *memory_need(void *allocated);

/* Return zeroed memory. The caller frees it. */
void *memory_new(size_t bytes);

/* Return an array of count items with room for one more. items was made by this function, or is NULL. */
void *memory_grow(void *items, size_t count, size_t item_bytes);

/* What is allocated from now on, or no longer, may be lost: who has it is killed. Calls do not nest. */
void memory_may_leak(bool may_leak);

/* Return whether anything else was lost by now, and report it. Only a build with sanitizers finds out. */
bool memory_has_leaked(void);

#endif
