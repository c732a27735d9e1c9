#include "tests/sim/doors.h"

#include "daemon/base/chance.h"
#include "daemon/base/clock.h"
#include "daemon/base/log.h"
#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>

/* Of the present host. */
static int64_t boot_offset_ms, epoch_offset_ns;

void doors_set_clocks(int64_t boot_ms, int64_t epoch_ns)
{
    boot_offset_ms = boot_ms;
    epoch_offset_ns = epoch_ns;
}

/* No simulated machine is suspended. */
uint64_t clock_boot_ms(void)
{
    return world_now_ns() / WORLD_MS + (uint64_t)boot_offset_ms;
}

uint64_t clock_monotonic_us(void)
{
    return world_now_ns() / 1000;
}

int64_t clock_epoch_us(void)
{
    return (world_epoch_ns() + epoch_offset_ns) / 1000;
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
