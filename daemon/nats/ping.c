#include "daemon/nats/ping.h"

#include <string.h>
#include <uv.h>

#define MISSED_MAX 2u

void ping_reset(struct ping *ping)
{
    ping->sent_ns = 0;
    ping->missed = 0;
}

bool ping_begin(struct ping *ping)
{
    if (ping->sent_ns != 0 && ++ping->missed >= MISSED_MAX)
        return false;
    if (ping->sent_ns == 0)
        ping->sent_ns = uv_hrtime();
    return true;
}

void ping_end(struct ping *ping, uint64_t *rtt_us, uint64_t *min_us)
{
    if (ping->sent_ns != 0) {
        *rtt_us = (uv_hrtime() - ping->sent_ns) / 1000;
        if (*min_us == 0 || *rtt_us < *min_us)
            *min_us = *rtt_us;
    }
    ping_reset(ping);
}

bool ping_is_subject(const struct ping *ping, const char *subject)
{
    return strcmp(subject, ping->subject) == 0;
}
