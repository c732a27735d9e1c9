#include "daemon/store/store.h"

#include "daemon/store/bucket.h"
#include "daemon/store/group.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The link's events are the requests'; the store listens in to ask a new server what it is. */

static void on_link_up(void *arg)
{
    struct store *store = arg;

    jetstream_probe(&store->jetstream);
    requests_on_up(&store->requests);
}

static void on_link_down(void *arg)
{
    requests_on_down(&((struct store *)arg)->requests);
}

static void on_link_message(void *arg, struct message *message)
{
    requests_on_message(&((struct store *)arg)->requests, message);
}

static void on_link_no_responders(void *arg)
{
    requests_on_no_responders(&((struct store *)arg)->requests);
}

int store_init(struct store *store, uv_loop_t *loop, struct timers *timers, const struct conf *conf)
{
    struct link_events events = {on_link_up, on_link_down, on_link_message, on_link_no_responders, store};

    memset(store, 0, sizeof(*store));
    store->loop = loop;
    store->conf = conf;
    store->timers = timers;
    if (requests_init(&store->requests, loop, timers, conf) != 0)
        return -1;
    if (jetstream_init(&store->jetstream, &store->requests, conf->nats.domain) != 0)
        goto free_requests;
    store->link = link_new(loop, conf, &events);
    if (store->link == NULL)
        goto free_jetstream;
    requests_set_link(&store->requests, store->link);
    group_init_all(store);
    return 0;

free_jetstream:
    jetstream_free(&store->jetstream);
free_requests:
    requests_free(&store->requests);
    return -1;
}

void store_stop(struct store *store, void (*stopped)(void *arg), void *arg)
{
    group_close_all(store);
    link_stop(store->link, stopped, arg);
}

/* Calls whose clients are gone may still be on their way. Ending one may begin the next step of another. */
static void fail_everything(struct store *store)
{
    size_t failed;

    do {
        timers_expire_all(store->timers);
        group_flush_all(store);
        failed = requests_fail_all(&store->requests) + bucket_fail_waiting(store);
    } while (failed > 0);
}

void store_free(struct store *store)
{
    fail_everything(store);
    bucket_forget_all(store);
    jetstream_free(&store->jetstream);
    requests_free(&store->requests);
    link_free(store->link);
}

bool store_is_available(const struct store *store, struct error *error)
{
    const struct link_status *status = link_get_status(store->link);

    if (status->connected)
        return true;
    uint64_t away_ms = uv_now(store->loop) - status->lost_ms;
    /* Our own server is on its way when there was no connection yet; of somebody else's nobody knows. */
    bool is_expected = status->was_connected || store->conf->nats.mode == CONF_NATS_EMBEDDED;
    if (is_expected && away_ms < store->conf->nats.outage_wait_ms)
        return true;
    error_set(error, ERROR_UNAVAILABLE, "no connection to NATS for %.3g s%s%s; try again later",
              (double)away_ms / 1000.0, status->last_error[0] != '\0' ? ": " : "", status->last_error);
    return false;
}

void store_flush(struct store *store)
{
    group_flush_all(store);
    requests_flush(&store->requests);
    link_flush(store->link);
}

void store_make_write_id(struct store *store, char id[STORE_ID_BYTES])
{
    snprintf(id, STORE_ID_BYTES, "%s-%" PRIx64, link_unique_id(store->link), ++store->writes);
}
