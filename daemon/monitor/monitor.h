/*
 * monitor: the metrics of the daemon.
 *
 * Created by main, and used by the handlers of daemon.stats and daemon.metrics. It has the sources of the figures, the
 * text that is written from them, and the HTTP endpoint.
 */
#ifndef DAEMON_MONITOR_MONITOR_H
#define DAEMON_MONITOR_MONITOR_H

#include "daemon/monitor/endpoint.h"
#include "daemon/monitor/exposition.h"
#include "daemon/monitor/figures.h"

struct monitor {
    struct figures_sources sources;
    struct exposition exposition;
    struct endpoint endpoint;
};

/* Begin to serve. All pointers are borrowed. Return 0, or -1 if memory ran out. */
int monitor_init(struct monitor *monitor, struct store *store, struct metrics *metrics, const struct usage *usage);

/* The embedded server was started: from now on its restarts are counted. */
void monitor_set_embedded(struct monitor *monitor, const struct embedded_process *embedded);

/* The configuration was read again. */
void monitor_reload(struct monitor *monitor);

/* Stop serving. The last sessions are gone; the loop still runs. */
void monitor_stop(struct monitor *monitor);

/* After the loop has ended. */
void monitor_free(struct monitor *monitor);

#endif
