#include "tests/sim/doors.h"

#include "daemon/base/chance.h"
#include "daemon/base/clock.h"
#include "daemon/base/log.h"
#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>

static const struct clocks of_none;

/* Of the present host. */
static const struct clocks *present = &of_none;

#define MILLION 1000000

void doors_set_clocks(const struct clocks *clocks)
{
    present = clocks != NULL ? clocks : &of_none;
}

static uint64_t clocks_interval_ns(const struct clocks *clocks, uint64_t world_ns)
{
    uint64_t rate = (uint64_t)(MILLION + clocks->rate_ppm);

    return world_ns / MILLION * rate + world_ns % MILLION * rate / MILLION;
}

/* Rounded up: when it is over, the clock has reached what it was to reach. */
uint64_t clocks_world_interval_ns(const struct clocks *clocks, uint64_t ns)
{
    uint64_t rate = (uint64_t)(MILLION + clocks->rate_ppm);

    return ns / rate * MILLION + (ns % rate * MILLION + rate - 1) / rate;
}

uint64_t clocks_monotonic_ns(const struct clocks *clocks)
{
    uint64_t now_ns = world_now_ns();

    if (now_ns < clocks->suspended_until_ns)
        now_ns = clocks->suspended_until_ns;
    return clocks_interval_ns(clocks, now_ns - clocks->suspended_ns);
}

uint64_t clocks_world_ns(const struct clocks *clocks, uint64_t monotonic_ns)
{
    return clocks_world_interval_ns(clocks, monotonic_ns) + clocks->suspended_ns;
}

uint64_t doors_monotonic_ns(void)
{
    return clocks_monotonic_ns(present);
}

uint64_t clock_boot_ms(void)
{
    return clocks_interval_ns(present, world_now_ns()) / WORLD_MS + (uint64_t)present->boot_ms;
}

uint64_t clock_monotonic_us(void)
{
    return doors_monotonic_ns() / 1000;
}

int64_t clock_epoch_us(void)
{
    return (world_epoch_ns() + present->epoch_ns) / 1000;
}

uint64_t chance_number(void)
{
    return world_random();
}

/* --- The log --------------------------------------------------------------------------------------- */

/* Each level is on, so that a printed run does the same as one that is not. */
int log_is_on(enum conf_log_level level)
{
    (void)level;
    return 1;
}

void log_write(enum conf_log_level level, const char *format, ...)
{
    static const char *const words[] = {[CONF_LOG_ERROR] = "error",
                                        [CONF_LOG_WARNING] = "warning",
                                        [CONF_LOG_INFO] = "info",
                                        [CONF_LOG_DEBUG] = "debug"};
    va_list args;

    if (!world_is_printed())
        return;
    printf("%10.6f   %s: ", (double)world_now_ns() / 1e9, words[level]);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

bool log_may(struct log_limit *limit, const char *kind)
{
    (void)limit;
    (void)kind;
    return true;
}

const char *log_priority(enum conf_log_level level)
{
    (void)level;
    return "";
}

void log_set_level(enum conf_log_level level)
{
    (void)level;
}
