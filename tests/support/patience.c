#include "tests/support/patience.h"

#include <time.h>
#include <unistd.h>

unsigned patience_chosen_ms = 60000;

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t now_ms(void)
{
    return now_ns() / 1000000u;
}

void pause_shortly(void)
{
    usleep(1000);
}
