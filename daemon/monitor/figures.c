#include "daemon/monitor/figures.h"

#include "daemon/store/follow/follow.h"
#include "daemon/store/follow/state.h"
#include "daemon/store/lease/leases.h"
#include "daemon/store/write/counter.h"
#include "daemon/store/write/group_commit.h"

#include <sys/resource.h>
#include <uv.h>

static uint64_t figures_time_us(const struct timeval *time)
{
    return (uint64_t)time->tv_sec * 1000000u + (uint64_t)time->tv_usec;
}

static void figures_collect_process(const struct figures_sources *sources, struct figures *figures)
{
    struct rusage usage;
    size_t resident = 0;

    figures->uptime_ms = uv_now(sources->store->loop) - sources->started_ms;
    figures->started_at_ms = sources->started_at_ms;
    figures->longest_turn_us = sources->store->jobs->longest_turn_ns / 1000;
    figures->cpu_us = getrusage(RUSAGE_SELF, &usage) == 0
                          ? figures_time_us(&usage.ru_utime) + figures_time_us(&usage.ru_stime)
                          : FIGURES_UNKNOWN;
    figures->resident_bytes = uv_resident_set_memory(&resident) == 0 ? resident : FIGURES_UNKNOWN;
    figures->server_restarts = sources->embedded != NULL ? embedded_process_restarts(sources->embedded) : 0;
}

static void figures_collect_clients(const struct figures_sources *sources, struct figures *figures)
{
    const struct metrics *metrics = sources->metrics;
    const struct conf *conf = sources->store->conf;
    const size_t *taken = sources->usage->taken;

    figures->calls_in_flight = metrics->calls;
    figures->calls_limit = conf->limits.calls;
    figures->call_bytes = taken[USAGE_CALL_BYTES];
    figures->call_bytes_limit = conf->limits.call_bytes;
    figures->input_bytes = taken[USAGE_INPUT_BYTES];
    figures->unread_bytes = taken[USAGE_OUT_BYTES];
    figures->unread_bytes_limit = conf->limits.out_bytes;
    figures->bytes_in = metrics->bytes_in;
    figures->bytes_out = metrics->bytes_out;
    figures->unknown_outcomes = metrics->unknown_outcomes;
    figures->sessions_open = metrics->sessions;
    figures->sessions_total = metrics->sessions_total;
    figures->sessions_refused = metrics->sessions_refused;
    figures->sessions_ended = metrics->sessions_ended;
    figures->sessions_limit = conf->limits.sessions;
    figures->filters = taken[USAGE_FILTERS];
    figures->filters_limit = conf->watches.max_filters;
    figures->locks_used = taken[USAGE_LOCKS];
    figures->locks_limit = conf->locks.max;
}

static void figures_collect_group_commit(const struct store *store, struct figures *figures)
{
    const struct group_commit_stats *stats = group_commit_statistics(store);

    figures->batches = stats->batches;
    figures->batch_writes = stats->grouped;
    figures->batches_failed = stats->failed;
    figures->batch_size_p50 = metrics_quantile(&stats->sizes, 0.5);
    figures->batch_size_p99 = metrics_quantile(&stats->sizes, 0.99);
    figures->batch_size_max = stats->sizes.max;
}

static void figures_collect_increments(const struct store *store, struct figures *figures)
{
    const struct counter_stats *stats = counter_statistics(store);

    figures->increments = stats->increments;
    figures->increment_writes = stats->writes;
    figures->increment_conflicts = stats->conflicts;
}

static void figures_collect_follow(const struct store *store, struct figures *figures)
{
    const struct follow_state *follow = store->follow;
    struct follow_totals totals;
    uint64_t now_ns = uv_hrtime();

    follow_total(store, &totals);
    figures->watches_open = follow->watch_stats.open;
    figures->watches_total = follow->watch_stats.total;
    figures->watches_ended = follow->watch_stats.ended;
    figures->followed_buckets = totals.buckets;
    figures->watch_entries = follow->watch_stats.entries;
    figures->resyncs = follow->watch_stats.resyncs;
    figures->vanished = follow->watch_stats.vanished;
    figures->watches_behind = totals.behind;
    figures->backlog_bytes = totals.backlog_bytes;
    figures->lag_us = totals.oldest_change_ns != 0 ? (now_ns - totals.oldest_change_ns) / 1000 : 0;
    figures->cached_buckets = totals.cached_buckets;
    figures->cached_keys = totals.keys;
    figures->cache_bytes = follow->cache_budget.bytes;
    figures->cache_limit = follow->cache_budget.max_bytes;
    figures->hits = follow->cache_stats.hits;
    figures->misses = follow->cache_stats.misses;
    figures->evicted = follow->cache_budget.evicted;
}

static void figures_collect_leases(const struct store *store, struct figures *figures)
{
    struct leases_totals totals;

    leases_total(store, &totals);
    figures->locks_held = totals.held;
    figures->locks_waiting = totals.waiting;
    figures->locks_acquired = totals.acquired;
    figures->locks_lost = totals.lost;
    figures->leases = totals.leases;
    figures->leases_declared_dead = totals.declared_dead;
    figures->lease_renewals = totals.renewals;
}

static void figures_collect_nats(const struct store *store, struct figures *figures)
{
    const struct connection_status *status = connection_get_status(store->connection);

    figures->retries = store->requests.retries;
    figures->requests_in_flight = requests_in_flight(&store->requests);
    figures->is_connected = status->connected;
    figures->is_healthy = status->connected && status->trouble[0] == '\0' && room_trouble(&store->room) == NULL;
    figures->nats_url = status->url;
    figures->nats_version = store->jetstream.server_version;
    figures->rtt_us = status->rtt_us;
    figures->reconnects = status->reconnects;
}

static void figures_collect_room(const struct store *store, struct figures *figures)
{
    const struct room *room = &store->room;
    bool is_known = room_is_known(room);
    uint64_t limit = store->conf->nats.max_store_bytes;

    figures->store_used = is_known ? room_used(room) : FIGURES_UNKNOWN;
    figures->store_limit = is_known ? limit : FIGURES_UNKNOWN;
    figures->store_limit_or_unknown = is_known && limit > 0 ? limit : FIGURES_UNKNOWN;
    figures->disk_free = is_known ? room_free(room) : FIGURES_UNKNOWN;
    figures->disk_reserve = is_known ? room_reserve(room) : FIGURES_UNKNOWN;
}

void figures_collect_health(const struct figures_sources *sources, struct figures *figures)
{
    figures_collect_nats(sources->store, figures);
    figures_collect_room(sources->store, figures);
}

void figures_collect(const struct figures_sources *sources, struct figures *figures)
{
    metrics_settle(sources->metrics, uv_hrtime());
    figures_collect_process(sources, figures);
    figures_collect_clients(sources, figures);
    figures_collect_group_commit(sources->store, figures);
    figures_collect_increments(sources->store, figures);
    figures_collect_follow(sources->store, figures);
    figures_collect_leases(sources->store, figures);
    figures_collect_health(sources, figures);
}
