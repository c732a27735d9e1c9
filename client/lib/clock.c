#include "client/lib/clock.h"

#include <time.h>

#define PAUSE_MIN_MS 50u
#define PAUSE_MAX_MS 2000u

int64_t clock_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t clock_boot_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

uint64_t clock_now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

int64_t clock_moment_after(double seconds)
{
    int64_t now_ms = clock_now_ms();

    if (seconds < 0 || seconds > (double)(INT64_MAX / 2 - now_ms) / 1000)
        return INT64_MAX;
    return now_ms + (int64_t)(seconds * 1000);
}

/* xorshift */
uint32_t clock_random_below(uint32_t *state, uint32_t bound)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state % bound;
}

uint32_t clock_grow_pause(uint32_t *state, unsigned *pause_ms)
{
    if (*pause_ms == 0)
        *pause_ms = PAUSE_MIN_MS;
    else if (*pause_ms < PAUSE_MAX_MS)
        *pause_ms = *pause_ms * 2 < PAUSE_MAX_MS ? *pause_ms * 2 : PAUSE_MAX_MS;
    return *pause_ms / 2 + clock_random_below(state, *pause_ms / 2 + 1);
}
