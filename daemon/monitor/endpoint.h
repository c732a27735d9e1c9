/*
 * endpoint: serves the figures over HTTP, at metrics.listen.
 *
 * Created by monitor. libmicrohttpd speaks HTTP. It has no thread of its own: it runs when its epoll descriptor is
 * readable, or a timer fires. It takes a tenth of the loop's time at most. A connection carries one request and ends
 * after ENDPOINT_CONNECTION_MS, whatever it does. The oldest is closed if there are more than ENDPOINT_CONNECTIONS_MAX.
 * So clients of the endpoint that are slow, silent or many can only harm each other.
 */
#ifndef DAEMON_MONITOR_ENDPOINT_H
#define DAEMON_MONITOR_ENDPOINT_H

#include "conf/conf.h"
#include "daemon/base/jobs.h"
#include "daemon/monitor/exposition.h"

#include <uv.h>

#define ENDPOINT_ERROR_BYTES 512

#define ENDPOINT_CONNECTIONS_MAX 16u
#define ENDPOINT_CONNECTION_MS   10000u
/* A text answers all requests of this time, so that scraping often costs little. */
#define ENDPOINT_TEXT_MS 200u
/* The pause between attempts to open an address that cannot be used. */
#define ENDPOINT_RETRY_MS 5000u

struct endpoint_server;

enum endpoint_state {
    ENDPOINT_OFF,      /* metrics.listen is not set, or the daemon ends */
    ENDPOINT_RETRYING, /* the address cannot be used now */
    ENDPOINT_OPEN
};

struct endpoint {
    uv_loop_t *loop;
    struct jobs *jobs;
    const struct conf *conf;
    struct exposition *exposition;
    enum endpoint_state state;
    struct endpoint_server *server; /* while it is open; also while another address is tried */
    uv_timer_t retry;
    char trouble[ENDPOINT_ERROR_BYTES]; /* the last error that was logged */
};

/* Open the address of the configuration, now or when it can be used. All pointers are borrowed. */
void endpoint_init(struct endpoint *endpoint, uv_loop_t *loop, struct jobs *jobs, const struct conf *conf,
                   struct exposition *exposition);

/* The configuration was read again. */
void endpoint_reload(struct endpoint *endpoint);

/* Close everything. The handles close in the loop's next turns. */
void endpoint_close(struct endpoint *endpoint);

#endif
