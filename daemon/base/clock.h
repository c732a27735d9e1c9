/*
 * clock: the machine's clocks, apart from the loop's own time (uv_now and uv_hrtime).
 *
 * Every room that is simulated reads the time here or from the loop, so that a simulation can replace all clocks.
 */
#ifndef DAEMON_CLOCK_H
#define DAEMON_CLOCK_H

#include <stdint.h>

/*
 * Return the milliseconds since the machine's start. Unlike the loop's time, they include the time for which the
 * machine was suspended. Use it for ages that must include that time.
 */
uint64_t clock_boot_ms(void);

/* Return the microseconds since the machine's start, without the time for which it was suspended. */
uint64_t clock_monotonic_us(void);

/* Return the microseconds since the epoch, which is how messages are timed. It may be set at any time. */
int64_t clock_epoch_us(void);

#endif
