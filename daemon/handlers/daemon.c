#include "daemon/base/redact.h"
#include "daemon/handlers/entry.h"
#include "daemon/handlers/methods.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/store/bucket/admin.h"
#include "daemon/store/follow/follow.h"
#include "daemon/store/follow/state.h"
#include "daemon/store/write/group_commit.h"

#include <inttypes.h>
#include <nats/version.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

static void daemon_pack_number(msgpack_packer *packer, const char *name, uint64_t number)
{
    pack_str(packer, name);
    msgpack_pack_uint64(packer, number);
}

static void daemon_pack_flag(msgpack_packer *packer, const char *name, bool flag)
{
    pack_str(packer, name);
    if (flag)
        msgpack_pack_true(packer);
    else
        msgpack_pack_false(packer);
}

static void daemon_pack_text(msgpack_packer *packer, const char *name, const char *text)
{
    pack_str(packer, name);
    pack_str(packer, text);
}

/* --- health.check ---------------------------------------------------------------------------------- */

static void health_pack_nats(msgpack_packer *packer, const struct store *store)
{
    const struct connection_status *status = connection_get_status(store->connection);

    pack_str(packer, "nats");
    msgpack_pack_map(packer, 5);
    daemon_pack_flag(packer, "connected", status->connected);
    daemon_pack_text(packer, "url", status->url);
    daemon_pack_text(packer, "version", store->jetstream.server_version);
    daemon_pack_number(packer, "rtt_us", status->rtt_us);
    daemon_pack_number(packer, "reconnects", status->reconnects);
}

/* Of the embedded server, once it is known. */
static void health_pack_room(msgpack_packer *packer, const struct store *store)
{
    const struct room *room = &store->room;

    if (!room_is_known(room))
        return;
    pack_str(packer, "store");
    msgpack_pack_map(packer, 4);
    daemon_pack_number(packer, "used", room_used(room));
    daemon_pack_number(packer, "limit", store->conf->nats.max_store_bytes);
    daemon_pack_number(packer, "disk_free", room_free(room));
    daemon_pack_number(packer, "disk_reserve", room_reserve(room));
}

/* Health is an answer, not an error: what is wrong is in it. */
static void health_answer(struct call *call, const struct bucket_info *info, const char *wrong)
{
    bool healthy = wrong == NULL;
    msgpack_packer *packer = call_begin_result(call);

    msgpack_pack_map(packer, 2u + room_is_known(&call_store(call)->room) + (call->bucket != NULL) +
                                 (info != NULL ? 5u : 0u) + !healthy);
    daemon_pack_flag(packer, "healthy", healthy);
    health_pack_nats(packer, call_store(call));
    health_pack_room(packer, call_store(call));
    if (call->bucket != NULL)
        daemon_pack_text(packer, "bucket", call->bucket);
    if (info != NULL) {
        daemon_pack_number(packer, "values", info->values);
        daemon_pack_number(packer, "history", (uint64_t)info->config.history);
        daemon_pack_number(packer, "ttl", (uint64_t)info->config.ttl_s);
        pack_str(packer, "max_value_size");
        msgpack_pack_int64(packer, info->config.max_value_size);
        daemon_pack_number(packer, "replicas", (uint64_t)info->config.replicas);
    }
    if (!healthy)
        daemon_pack_text(packer, "error", wrong);
    call_end_result(call);
}

static void health_on_bucket_info(void *arg, const struct bucket_info *info, const struct error *error)
{
    char wrong[ERROR_MESSAGE_BYTES] = "";

    if (error != NULL)
        snprintf(wrong, sizeof(wrong), "%s", error->message);
    else if (info->is_sealed)
        snprintf(wrong, sizeof(wrong), "the bucket is sealed: it no longer accepts writes");
    else if (info->is_full)
        snprintf(wrong, sizeof(wrong),
                 "the bucket is full: %" PRIu64 " bytes are used of %" PRId64
                 " (max_bytes); delete or purge, or raise it with bucket.update",
                 info->bytes, info->config.max_bytes);
    health_answer(arg, info, wrong[0] != '\0' ? wrong : NULL);
}

void handle_health_check(struct call *call)
{
    const struct connection_status *status = connection_get_status(call_store(call)->connection);
    char wrong[ERROR_MESSAGE_BYTES], reason[sizeof(status->last_error)];

    /* What is known of our own server says more than why the connection failed. */
    const char *why = status->trouble[0] != '\0' ? status->trouble : status->last_error;
    if (!status->connected || status->trouble[0] != '\0') {
        redact_paths(reason, sizeof(reason), why);
        snprintf(wrong, sizeof(wrong), "%s%s%s", status->connected ? "" : "no connection to NATS",
                 !status->connected && reason[0] != '\0' ? ": " : "", reason);
        health_answer(call, NULL, wrong);
        return;
    }
    const char *trouble = room_trouble(&call_store(call)->room);
    if (trouble != NULL || call->bucket == NULL) {
        health_answer(call, NULL, trouble);
        return;
    }
    struct admin *admin = arena_zalloc(&call->arena, sizeof(*admin));
    if (admin == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    admin->bucket_name = call->bucket;
    admin->deadline_ms = call->deadline_ms;
    admin->done = health_on_bucket_info;
    admin->arg = call;
    admin_info(call_store(call), &call->arena, admin);
}

/* --- daemon.info ----------------------------------------------------------------------------------- */

static void daemon_pack_limits(msgpack_packer *packer, const struct conf *conf)
{
    pack_str(packer, "limits");
    msgpack_pack_map(packer, 15);
    daemon_pack_number(packer, "out_bytes", conf->limits.out_bytes);
    daemon_pack_number(packer, "user_percent", conf->limits.user_percent);
    pack_str(packer, "message_timeout");
    msgpack_pack_double(packer, conf->limits.message_timeout_ms / 1000.0);
    daemon_pack_number(packer, "frame_bytes", conf->limits.frame_bytes);
    daemon_pack_number(packer, "frame_elements", conf->limits.frame_elements);
    daemon_pack_number(packer, "frame_depth", conf->limits.frame_depth);
    daemon_pack_number(packer, "sessions", conf->limits.sessions);
    daemon_pack_number(packer, "calls", conf->limits.calls);
    daemon_pack_number(packer, "calls_per_session", conf->limits.calls_per_session);
    daemon_pack_number(packer, "call_bytes", conf->limits.call_bytes);
    daemon_pack_number(packer, "call_bytes_per_session", conf->limits.call_bytes_per_session);
    daemon_pack_number(packer, "out_buffer_bytes", conf->limits.out_buffer_bytes);
    pack_str(packer, "stall_timeout");
    msgpack_pack_double(packer, conf->limits.stall_timeout_ms / 1000.0);
    pack_str(packer, "timeout");
    msgpack_pack_double(packer, conf->calls.timeout_ms / 1000.0);
    pack_str(packer, "max_timeout");
    msgpack_pack_double(packer, conf->calls.max_timeout_ms / 1000.0);
}

static void daemon_pack_server(msgpack_packer *packer, const struct store *store)
{
    const struct connection_status *status = connection_get_status(store->connection);
    const struct jetstream *jetstream = &store->jetstream;

    pack_str(packer, "nats");
    msgpack_pack_map(packer, 7);
    daemon_pack_text(packer, "mode", store->conf->nats.mode == CONF_NATS_EMBEDDED ? "embedded" : "external");
    daemon_pack_flag(packer, "connected", status->connected);
    daemon_pack_text(packer, "url", status->url);
    daemon_pack_text(packer, "version", jetstream->server_version);
    daemon_pack_text(packer, "cluster", jetstream->cluster);
    daemon_pack_number(packer, "max_payload", status->max_payload_bytes);
    pack_str(packer, "features");
    msgpack_pack_map(packer, 3);
    daemon_pack_number(packer, "api_level", jetstream->level);
    daemon_pack_flag(packer, "ttl", jetstream->level >= JETSTREAM_LEVEL_TTL);
    daemon_pack_flag(packer, "atomic_batches", jetstream->level >= JETSTREAM_LEVEL_ATOMIC);
}

void handle_daemon_info(struct call *call)
{
    msgpack_packer *packer = call_begin_result(call);

    msgpack_pack_map(packer, 5);
    daemon_pack_text(packer, "version", KVSTORED_VERSION);
    daemon_pack_number(packer, "pid", (uint64_t)uv_os_getpid());
    daemon_pack_limits(packer, call->dispatcher->conf);
    daemon_pack_server(packer, call_store(call));
    pack_str(packer, "methods");
    msgpack_pack_array(packer, METHOD_COUNT);
    for (size_t row = 0; row < METHOD_COUNT; row++)
        pack_str(packer, methods_ops.methods[row].name);
    call_end_result(call);
}

/* --- daemon.stats ---------------------------------------------------------------------------------- */

static void stats_pack_methods(msgpack_packer *packer, const struct metrics *metrics)
{
    uint32_t used = 0;

    for (size_t row = 0; row < METHOD_COUNT; row++)
        used += metrics->methods[row].calls > 0;
    pack_str(packer, "methods");
    msgpack_pack_map(packer, used);
    for (size_t row = 0; row < METHOD_COUNT; row++) {
        const struct metrics_method *method = &metrics->methods[row];
        if (method->calls == 0)
            continue;
        pack_str(packer, methods_ops.methods[row].name);
        msgpack_pack_map(packer, 6);
        daemon_pack_number(packer, "calls", method->calls);
        daemon_pack_number(packer, "errors", metrics_count_errors(method));
        daemon_pack_number(packer, "p50_us", metrics_quantile(&method->latency, 0.5));
        daemon_pack_number(packer, "p99_us", metrics_quantile(&method->latency, 0.99));
        daemon_pack_number(packer, "p999_us", metrics_quantile(&method->latency, 0.999));
        daemon_pack_number(packer, "max_us", method->latency.max);
    }
}

static void stats_pack_errors(msgpack_packer *packer, const struct metrics *metrics)
{
    uint32_t used = 0;

    for (unsigned code = 1; code < ERROR_CODE_COUNT; code++)
        used += metrics->errors[code] > 0;
    pack_str(packer, "errors");
    msgpack_pack_map(packer, used);
    for (unsigned code = 1; code < ERROR_CODE_COUNT; code++) {
        if (metrics->errors[code] > 0)
            daemon_pack_number(packer, error_code_name((enum error_code)code), metrics->errors[code]);
    }
}

static void stats_pack_watches(msgpack_packer *packer, const struct store *store, const struct follow_totals *totals)
{
    pack_str(packer, "watches");
    msgpack_pack_map(packer, 7);
    daemon_pack_number(packer, "open", store->follow->watch_stats.open);
    daemon_pack_number(packer, "total", store->follow->watch_stats.total);
    daemon_pack_number(packer, "ended", store->follow->watch_stats.ended);
    daemon_pack_number(packer, "buckets", totals->buckets);
    daemon_pack_number(packer, "entries", store->follow->watch_stats.entries);
    daemon_pack_number(packer, "resyncs", store->follow->watch_stats.resyncs);
    daemon_pack_number(packer, "vanished", store->follow->watch_stats.vanished);
}

static void stats_pack_cache(msgpack_packer *packer, const struct store *store, const struct follow_totals *totals)
{
    pack_str(packer, "cache");
    msgpack_pack_map(packer, 6);
    daemon_pack_number(packer, "buckets", totals->cached_buckets);
    daemon_pack_number(packer, "keys", totals->keys);
    daemon_pack_number(packer, "bytes", store->follow->cache_budget.bytes);
    daemon_pack_number(packer, "hits", store->follow->cache_stats.hits);
    daemon_pack_number(packer, "misses", store->follow->cache_stats.misses);
    daemon_pack_number(packer, "evicted", store->follow->cache_budget.evicted);
}

static void stats_pack_group_commit(msgpack_packer *packer, const struct store *store)
{
    const struct group_commit_stats *stats = group_commit_statistics(store);
    const struct metrics_histogram *sizes = &stats->sizes;

    pack_str(packer, "group_commit");
    msgpack_pack_map(packer, 6);
    daemon_pack_number(packer, "batches", stats->batches);
    daemon_pack_number(packer, "writes", stats->grouped);
    daemon_pack_number(packer, "failed", stats->failed);
    daemon_pack_number(packer, "size_p50", metrics_quantile(sizes, 0.5));
    daemon_pack_number(packer, "size_p99", metrics_quantile(sizes, 0.99));
    daemon_pack_number(packer, "size_max", sizes->max);
}

static void stats_pack_sessions(msgpack_packer *packer, const struct metrics *metrics)
{
    pack_str(packer, "sessions");
    msgpack_pack_map(packer, 4);
    daemon_pack_number(packer, "open", metrics->sessions);
    daemon_pack_number(packer, "total", metrics->sessions_total);
    daemon_pack_number(packer, "refused", metrics->sessions_refused);
    daemon_pack_number(packer, "ended", metrics->sessions_ended);
}

void handle_daemon_stats(struct call *call)
{
    struct metrics *metrics = call->dispatcher->metrics;
    struct store *store = call_store(call);
    struct follow_totals totals;

    metrics_settle(metrics, uv_hrtime());
    msgpack_packer *packer = call_begin_result(call);

    follow_total(store, &totals);
    msgpack_pack_map(packer, 15u + room_is_known(&store->room));
    pack_str(packer, "uptime");
    msgpack_pack_double(packer, (double)(uv_now(store->loop) - call_service(call)->started_ms) / 1000.0);
    daemon_pack_number(packer, "longest_turn_us", store->jobs->longest_turn_ns / 1000);
    daemon_pack_number(packer, "calls_in_flight", metrics->calls);
    daemon_pack_number(packer, "call_bytes", call->dispatcher->usage->taken[USAGE_CALL_BYTES]);
    daemon_pack_number(packer, "bytes_in", metrics->bytes_in);
    daemon_pack_number(packer, "bytes_out", metrics->bytes_out);
    daemon_pack_number(packer, "retries", store->requests.retries);
    daemon_pack_number(packer, "requests_in_flight", requests_in_flight(&store->requests));
    stats_pack_group_commit(packer, store);
    stats_pack_sessions(packer, metrics);
    stats_pack_watches(packer, store, &totals);
    stats_pack_cache(packer, store, &totals);
    health_pack_nats(packer, store);
    health_pack_room(packer, store);
    stats_pack_methods(packer, metrics);
    stats_pack_errors(packer, metrics);
    call_end_result(call);
}
