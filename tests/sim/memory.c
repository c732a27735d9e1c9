#include "tests/sim/memory.h"

#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>

void memory_may_leak(bool may_leak)
{
    if (may_leak)
        __lsan_disable();
    else
        __lsan_enable();
}

bool memory_has_leaked(void)
{
    return __lsan_do_recoverable_leak_check() != 0;
}
#else
void memory_may_leak(bool may_leak)
{
    (void)may_leak;
}

bool memory_has_leaked(void)
{
    return false;
}
#endif

void *memory_need(void *allocated)
{
    if (allocated == NULL)
        abort();
    return allocated;
}

void *memory_new(size_t bytes)
{
    return memory_need(calloc(1, bytes));
}

void *memory_grow(void *items, size_t count, size_t item_bytes)
{
    if ((count & (count - 1)) != 0)
        return items; /* there is room up to the next power of two */
    return memory_need(realloc(items, (count > 0 ? 2 * count : 1) * item_bytes));
}
