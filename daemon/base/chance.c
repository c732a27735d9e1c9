#include "daemon/base/chance.h"

#include <sys/random.h>
#include <time.h>
#include <unistd.h>

uint64_t chance_number(void)
{
    struct timespec now;
    uint64_t number;

    if (getrandom(&number, sizeof(number), GRND_NONBLOCK) == (ssize_t)sizeof(number))
        return number;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return ((uint64_t)now.tv_nsec ^ (uint64_t)getpid() << 32) * 0x9e3779b97f4a7c15u;
}
