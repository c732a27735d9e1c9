#include "daemon/base/backoff.h"

#include "daemon/base/chance.h"

uint64_t backoff_bound_ms(unsigned attempt, uint64_t min_ms, uint64_t max_ms)
{
    uint64_t bound_ms = min_ms;

    for (unsigned i = 1; i < attempt && bound_ms < max_ms; i++)
        bound_ms *= 2;
    return bound_ms < max_ms ? bound_ms : max_ms;
}

uint64_t backoff_ms(unsigned attempt, uint64_t min_ms, uint64_t max_ms)
{
    uint64_t bound_ms = backoff_bound_ms(attempt, min_ms, max_ms);

    return chance_number() % (bound_ms + 1);
}
