#include "daemon/nats/ping.h"

#include "daemon/base/clock.h"

#include <string.h>
#include <uv.h>

#define MISSED_MAX 2u

/* Pings that are asked for are at least so far apart. */
#define PAUSE_NS 100000000ull

void ping_reset(struct ping *ping)
{
    ping->oldest.hr_ns = 0;
    ping->missed = 0;
    ping->last_sent_ns = 0;
    ping->answered_sent_ms = clock_boot_ms();
}

bool ping_is_missed(struct ping *ping, uint64_t interval_ms)
{
    if (ping->oldest.hr_ns == 0)
        return false;
    /* If the process was stopped, the ping is old, but the reply may have come. One may also be sent in an interval. */
    uint64_t age_ms = (uv_hrtime() - ping->oldest.hr_ns) / 1000000;
    return ++ping->missed >= MISSED_MAX && age_ms >= interval_ms + interval_ms / 2;
}

bool ping_may_begin(const struct ping *ping)
{
    return ping->oldest.hr_ns == 0 && uv_hrtime() - ping->last_sent_ns >= PAUSE_NS;
}

struct ping_times ping_times_now(void)
{
    return (struct ping_times){uv_hrtime(), clock_boot_ms()};
}

void ping_begin(struct ping *ping)
{
    struct ping_times now = ping_times_now();

    ping->last_sent_ns = now.hr_ns;
    if (ping->oldest.hr_ns == 0)
        ping->oldest = now;
}

void ping_end(struct ping *ping, const void *payload, size_t bytes, uint64_t *rtt_us, uint64_t *min_us)
{
    struct ping_times times = ping->oldest;

    if (payload != NULL && bytes == sizeof(times))
        memcpy(&times, payload, sizeof(times));
    ping->oldest.hr_ns = 0;
    ping->missed = 0;
    if (times.hr_ns == 0)
        return;
    ping->answered_sent_ms = times.boot_ms;
    *rtt_us = (uv_hrtime() - times.hr_ns) / 1000;
    if (*min_us == 0 || *rtt_us < *min_us)
        *min_us = *rtt_us;
}

bool ping_is_subject(const struct ping *ping, const char *subject)
{
    return strcmp(subject, ping->subject) == 0;
}
