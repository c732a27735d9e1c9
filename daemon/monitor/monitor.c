#include "daemon/monitor/monitor.h"

#include "daemon/base/clock.h"

#include <string.h>
#include <uv.h>

int monitor_init(struct monitor *monitor, struct store *store, struct metrics *metrics, const struct usage *usage)
{
    memset(monitor, 0, sizeof(*monitor));
    monitor->sources = (struct figures_sources){.metrics = metrics,
                                                .store = store,
                                                .usage = usage,
                                                .started_ms = uv_now(store->loop),
                                                .started_at_ms = (uint64_t)clock_epoch_us() / 1000};
    if (exposition_init(&monitor->exposition, &monitor->sources) != 0)
        return -1;
    endpoint_init(&monitor->endpoint, store->loop, store->jobs, store->conf, &monitor->exposition);
    return 0;
}

void monitor_set_embedded(struct monitor *monitor, const struct embedded_process *embedded)
{
    monitor->sources.embedded = embedded;
}

void monitor_reload(struct monitor *monitor)
{
    exposition_reload(&monitor->exposition);
    endpoint_reload(&monitor->endpoint);
}

void monitor_stop(struct monitor *monitor)
{
    endpoint_close(&monitor->endpoint);
    exposition_stop(&monitor->exposition);
}

void monitor_free(struct monitor *monitor)
{
    exposition_free(&monitor->exposition);
}
