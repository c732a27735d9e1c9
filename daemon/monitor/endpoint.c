#include "daemon/monitor/endpoint.h"

#include "daemon/base/log.h"
#include "daemon/monitor/endpoint_server.h"

#include <stdio.h>
#include <string.h>

static void endpoint_open(struct endpoint *endpoint);

static void endpoint_on_retry(uv_timer_t *timer)
{
    endpoint_open(timer->data);
}

static void endpoint_close_server(struct endpoint *endpoint)
{
    if (endpoint->server != NULL)
        endpoint_server_close(endpoint->server);
    endpoint->server = NULL;
}

/* The daemon runs without the endpoint: its metrics must not keep it from its work. Log each reason once. */
static void endpoint_retry_later(struct endpoint *endpoint, const char *error)
{
    if (strcmp(endpoint->trouble, error) != 0)
        log_error("metrics: %s; trying again every %u s", error, ENDPOINT_RETRY_MS / 1000);
    snprintf(endpoint->trouble, sizeof(endpoint->trouble), "%s", error);
    endpoint->state = ENDPOINT_RETRYING;
    uv_timer_start(&endpoint->retry, endpoint_on_retry, ENDPOINT_RETRY_MS, 0);
}

/* Open the new address before the old one is closed, unless it is the same Unix socket with another mode or group. */
static void endpoint_open(struct endpoint *endpoint)
{
    const struct conf *conf = endpoint->conf;
    char error[ENDPOINT_ERROR_BYTES];

    if (endpoint->server != NULL && endpoint_server_has_address(endpoint->server, conf))
        endpoint_close_server(endpoint);
    struct endpoint_server *server = endpoint_server_open(endpoint, error);
    if (server == NULL) {
        endpoint_retry_later(endpoint, error);
        return;
    }
    endpoint_close_server(endpoint);
    endpoint->server = server;
    endpoint->state = ENDPOINT_OPEN;
    endpoint->trouble[0] = '\0';
    log_info("metrics: listening on %s", conf->metrics.listen);
}

void endpoint_init(struct endpoint *endpoint, uv_loop_t *loop, struct jobs *jobs, const struct conf *conf,
                   struct exposition *exposition)
{
    memset(endpoint, 0, sizeof(*endpoint));
    endpoint->loop = loop;
    endpoint->jobs = jobs;
    endpoint->conf = conf;
    endpoint->exposition = exposition;
    uv_timer_init(loop, &endpoint->retry);
    endpoint->retry.data = endpoint;
    if (conf->metrics.listen != NULL)
        endpoint_open(endpoint);
}

void endpoint_reload(struct endpoint *endpoint)
{
    uv_timer_stop(&endpoint->retry);
    if (endpoint->conf->metrics.listen == NULL) {
        endpoint_close_server(endpoint);
        endpoint->state = ENDPOINT_OFF;
    } else if (endpoint->server == NULL || !endpoint_server_is_current(endpoint->server, endpoint->conf)) {
        endpoint->trouble[0] = '\0';
        endpoint_open(endpoint);
    } else {
        endpoint->state = ENDPOINT_OPEN;
    }
}

void endpoint_close(struct endpoint *endpoint)
{
    endpoint->state = ENDPOINT_OFF;
    endpoint_close_server(endpoint);
    if (!uv_is_closing((uv_handle_t *)&endpoint->retry))
        uv_close((uv_handle_t *)&endpoint->retry, NULL);
}
