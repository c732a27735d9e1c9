#include "daemon/store/store.h"

#include "daemon/base/log.h"
#include "daemon/base/redact.h"
#include "daemon/nats/consumer_removal.h"
#include "daemon/store/bucket/admin.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/compact/compact.h"
#include "daemon/store/compact/schedule.h"
#include "daemon/store/follow/feed.h"
#include "daemon/store/follow/follow.h"
#include "daemon/store/follow/state.h"
#include "daemon/store/follow/watch.h"
#include "daemon/store/journal.h"
#include "daemon/store/lease/leases.h"
#include "daemon/store/read/scan.h"
#include "daemon/store/write/bucket_writes.h"
#include "daemon/store/write/bulk_write.h"
#include "daemon/store/write/counter.h"
#include "daemon/store/write/delete_matching.h"
#include "daemon/store/write/group_commit.h"

#include <ctype.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* --- Events of the connection ---------------------------------------------------------------------- */

static void on_connection_up(void *arg)
{
    struct store *store = arg;

    jetstream_probe(&store->jetstream);
    requests_on_up(&store->requests);
    if (store->on_connection != NULL)
        store->on_connection(store->on_connection_arg, true);
    room_note_connected(store);
    follow_note_connected(store);
}

static void on_connection_down(void *arg)
{
    struct store *store = arg;

    requests_on_down(&store->requests);
    if (store->on_connection != NULL)
        store->on_connection(store->on_connection_arg, false);
}

/* Calls wait for the first connection until the first attempt fails. After a loss they wait until their deadlines. */
static void on_connection_unreachable(void *arg)
{
    struct store *store = arg;
    struct error error;

    if (!connection_get_status(store->connection)->was_connected && !store_is_available(store, &error))
        requests_fail_waiting(&store->requests, &error);
}

static void on_connection_message(void *arg, struct message *message)
{
    struct store *store = arg;

    if (!feed_accept_message(store, message))
        requests_on_message(&store->requests, message);
}

static void on_connection_denied(void *arg, enum denial_kind kind, const char *subject)
{
    struct requests *requests = &((struct store *)arg)->requests;

    if (kind == DENIAL_PUBLISH)
        requests_on_publish_denied(requests, subject);
    else
        requests_on_inbox_denied(requests, subject);
}

/* Make the name from the host's, as far as a consumer's name allows; the socket's path distinguishes its daemons. */
static void store_set_name(struct store *store)
{
    char host[HOST_NAME_MAX + 1] = "host";
    uint32_t hash = 2166136261u; /* FNV-1a */

    if (store->conf->nats.name != NULL) {
        snprintf(store->name, sizeof(store->name), "%s", store->conf->nats.name);
        return;
    }
    if (gethostname(host, sizeof(host)) != 0)
        strcpy(host, "host");
    host[sizeof(host) - 1] = '\0';
    /* Of a long name only the beginning is shown, and all of it counts. */
    for (const char *c = host; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * 16777619u;
    for (char *c = host; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c) && *c != '-' && *c != '_')
            *c = '-';
    }
    for (const char *c = store->conf->listen.path; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * 16777619u;
    snprintf(store->name, sizeof(store->name), "kvstored-%.32s-%08" PRIx32, host, hash);
}

/* Create the states of the rooms, lower rooms first. */
static int store_init_modules(struct store *store)
{
    if (bucket_init_table(store) != 0 || admin_init_all(store) != 0 || scan_init_all(store) != 0 ||
        group_commit_init_all(store) != 0 || bulk_write_init_all(store) != 0 || delete_matching_init_all(store) != 0 ||
        counter_init_all(store) != 0 || follow_init(store) != 0 || compact_init_all(store) != 0 ||
        leases_init(store) != 0)
        return -1;
    bucket_writes_init(store);
    return 0;
}

int store_init(struct store *store, uv_loop_t *loop, struct jobs *jobs, struct timers *timers, const struct conf *conf)
{
    struct connection_events events = {on_connection_up,      on_connection_down,   on_connection_unreachable,
                                       on_connection_message, on_connection_denied, store};

    memset(store, 0, sizeof(*store));
    store->loop = loop;
    store->conf = conf;
    store->jobs = jobs;
    store->timers = timers;
    store_set_name(store);
    if (store_init_modules(store) != 0)
        return -1;
    if (requests_init(&store->requests, loop, jobs, timers, conf) != 0)
        return -1;
    if (jetstream_init(&store->jetstream, &store->requests, conf->nats.domain) != 0)
        return -1;
    store->connection = connection_new(loop, jobs, conf, &events);
    if (store->connection == NULL)
        return -1;
    requests_set_connection(&store->requests, store->connection);
    room_start(store);
    return 0;
}

static void store_open_journal(struct store *store, const char *path)
{
    const char *reason;

    store->journal = journal_open(path, &reason);
    if (store->journal == NULL)
        log_warning("cannot use %s: %s; after a restart, clients cannot repeat writes that were in flight", path,
                    reason);
}

void store_open_files(struct store *store, const char *socket_path)
{
    const struct conf *conf = store->conf;
    bool is_embedded = conf->nats.mode == CONF_NATS_EMBEDDED, has_path = socket_path[0] != '\0';
    char path[PATH_MAX];

    if (has_path && snprintf(path, sizeof(path), "%s.writes", socket_path) < (int)sizeof(path))
        store_open_journal(store, path);
    int length = is_embedded ? snprintf(path, sizeof(path), "%s/kvstored.leases", conf->nats.data_dir)
                             : snprintf(path, sizeof(path), "%s.leases", socket_path);
    if ((is_embedded || has_path) && length < (int)sizeof(path))
        leases_open_file(store, path);
}

void store_stop(struct store *store, void (*stopped)(void *arg), void *arg)
{
    room_stop(store);
    leases_end(store);
    compact_schedule_end_all(store);
    group_commit_close_all(store);
    follow_end(store);
    connection_stop(store->connection, stopped, arg);
}

/* Requests of calls whose clients are gone may still wait. Failing one may start the next step of another. */
static void store_fail_everything(struct store *store)
{
    size_t failed;

    do {
        timers_expire_all(store->timers);
        counter_flush_all(store);
        group_commit_flush_all(store);
        failed = requests_fail_all(&store->requests) + bucket_fail_waiting(store);
    } while (failed > 0);
}

void store_free(struct store *store)
{
    store_fail_everything(store);
    leases_free(store);
    bucket_free_table(store);
    compact_free_all(store);
    follow_free(store);
    admin_free_all(store); /* after follow, which lists buckets */
    scan_free_all(store);
    counter_free_all(store);
    delete_matching_free_all(store);
    bulk_write_free_all(store);
    group_commit_free_all(store);
    consumer_removal_cancel_all(&store->jetstream);
    jetstream_free(&store->jetstream);
    requests_free(&store->requests);
    connection_free(store->connection);
    journal_close(store->journal);
}

bool store_is_available(const struct store *store, struct error *error)
{
    const struct connection_status *status = connection_get_status(store->connection);

    if (status->connected)
        return true;
    uint64_t away_ms = uv_now(store->loop) - status->lost_ms;
    /*
     * Before the first connection, the embedded server is starting. An external server may never come, once an attempt
     * has failed.
     */
    bool is_expected =
        status->was_connected || store->conf->nats.mode == CONF_NATS_EMBEDDED || status->last_error[0] == '\0';
    if (is_expected && away_ms < store->conf->nats.outage_wait_ms)
        return true;
    char reason[sizeof(status->last_error)];
    redact_paths(reason, sizeof(reason), status->last_error);
    error_set(error, ERROR_UNAVAILABLE, "no connection to NATS for %.3g s%s%s; try again later",
              (double)away_ms / 1000.0, reason[0] != '\0' ? ": " : "", reason);
    return false;
}

void store_reload(struct store *store)
{
    connection_set_ping_interval(store->connection);
    if (store->conf->nats.mode == CONF_NATS_EXTERNAL)
        connection_reload_credentials(store->connection);
    follow_reload(store);
}

void store_flush(struct store *store)
{
    group_commit_flush_all(store);
    requests_flush(&store->requests);
    connection_flush(store->connection);
}

size_t store_cache_bytes(const struct store *store)
{
    return store->follow->cache_budget.bytes;
}
