#include "daemon/base/clock.h"

#include <time.h>

static int64_t clock_read_us(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

uint64_t clock_boot_ms(void)
{
    return (uint64_t)clock_read_us(CLOCK_BOOTTIME) / 1000;
}

uint64_t clock_monotonic_us(void)
{
    return (uint64_t)clock_read_us(CLOCK_MONOTONIC);
}

int64_t clock_epoch_us(void)
{
    return clock_read_us(CLOCK_REALTIME);
}
