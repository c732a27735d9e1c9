#include "daemon/base/redact.h"
#include "daemon/handlers/entry.h"
#include "daemon/handlers/methods.h"
#include "daemon/handlers/stats.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/pack.h"
#include "daemon/store/bucket/admin.h"

#include <inttypes.h>
#include <nats/version.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

/* --- health.check ---------------------------------------------------------------------------------- */

/* Health is an answer, not an error: what is wrong is in it. */
static void health_answer(struct call *call, const struct bucket_info *info, const char *wrong)
{
    bool healthy = wrong == NULL;
    struct figures figures;

    figures_collect_health(&call_service(call)->monitor->sources, &figures);
    msgpack_packer *packer = call_begin_result(call);

    msgpack_pack_map(packer, 2u + room_is_known(&call_store(call)->room) + (call->bucket != NULL) +
                                 (info != NULL ? 5u : 0u) + !healthy);
    pack_named_bool(packer, "healthy", healthy);
    stats_pack_section(packer, &figures, "nats");
    stats_pack_section(packer, &figures, "store");
    if (call->bucket != NULL)
        pack_named_str(packer, "bucket", call->bucket);
    if (info != NULL) {
        pack_named_unsigned(packer, "values", info->values);
        pack_named_unsigned(packer, "history", (uint64_t)info->config.history);
        pack_named_unsigned(packer, "ttl", (uint64_t)info->config.ttl_s);
        pack_named_integer(packer, "max_value_size", info->config.max_value_size);
        pack_named_unsigned(packer, "replicas", (uint64_t)info->config.replicas);
    }
    if (!healthy)
        pack_named_str(packer, "error", wrong);
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

/* Settings of the section limits have their bare names, for clients of versions that had no others here. */
static void daemon_pack_limits(msgpack_packer *packer, const struct conf *conf)
{
    pack_str(packer, "limits");
    msgpack_pack_map(packer, 22);
    pack_named_unsigned(packer, "out_bytes", conf->limits.out_bytes);
    pack_named_unsigned(packer, "user_percent", conf->limits.user_percent);
    pack_str(packer, "message_timeout");
    msgpack_pack_double(packer, conf->limits.message_timeout_ms / 1000.0);
    pack_named_unsigned(packer, "frame_bytes", conf->limits.frame_bytes);
    pack_named_unsigned(packer, "frame_elements", conf->limits.frame_elements);
    pack_named_unsigned(packer, "frame_depth", conf->limits.frame_depth);
    pack_named_unsigned(packer, "sessions", conf->limits.sessions);
    pack_named_unsigned(packer, "calls", conf->limits.calls);
    pack_named_unsigned(packer, "calls_per_session", conf->limits.calls_per_session);
    pack_named_unsigned(packer, "call_bytes", conf->limits.call_bytes);
    pack_named_unsigned(packer, "call_bytes_per_session", conf->limits.call_bytes_per_session);
    pack_named_unsigned(packer, "out_buffer_bytes", conf->limits.out_buffer_bytes);
    pack_str(packer, "stall_timeout");
    msgpack_pack_double(packer, conf->limits.stall_timeout_ms / 1000.0);
    pack_str(packer, "timeout");
    msgpack_pack_double(packer, conf->calls.timeout_ms / 1000.0);
    pack_str(packer, "max_timeout");
    msgpack_pack_double(packer, conf->calls.max_timeout_ms / 1000.0);
    pack_named_unsigned(packer, "watches.max_per_session", conf->watches.max_per_session);
    pack_named_unsigned(packer, "watches.max_filters", conf->watches.max_filters);
    pack_named_unsigned(packer, "watches.max_buckets", conf->watches.max_buckets);
    pack_named_unsigned(packer, "watches.buffer_bytes", conf->watches.buffer_bytes);
    pack_named_unsigned(packer, "locks.max_per_session", conf->locks.max_per_session);
    pack_named_unsigned(packer, "locks.max", conf->locks.max);
    pack_named_unsigned(packer, "cache.max_bytes", conf->cache.max_bytes);
}

static void daemon_pack_server(msgpack_packer *packer, const struct store *store)
{
    const struct connection_status *status = connection_get_status(store->connection);
    const struct jetstream *jetstream = &store->jetstream;

    pack_str(packer, "nats");
    msgpack_pack_map(packer, 7);
    pack_named_str(packer, "mode", store->conf->nats.mode == CONF_NATS_EMBEDDED ? "embedded" : "external");
    pack_named_bool(packer, "connected", status->connected);
    pack_named_str(packer, "url", status->url);
    pack_named_str(packer, "version", jetstream->server_version);
    pack_named_str(packer, "cluster", jetstream->cluster);
    pack_named_unsigned(packer, "max_payload", status->max_payload_bytes);
    pack_str(packer, "features");
    msgpack_pack_map(packer, 3);
    pack_named_unsigned(packer, "api_level", jetstream->level);
    pack_named_bool(packer, "ttl", jetstream->level >= JETSTREAM_LEVEL_TTL);
    pack_named_bool(packer, "atomic_batches", jetstream->level >= JETSTREAM_LEVEL_ATOMIC);
}

void handle_daemon_info(struct call *call)
{
    msgpack_packer *packer = call_begin_result(call);

    msgpack_pack_map(packer, 5);
    pack_named_str(packer, "version", KVSTORED_VERSION);
    pack_named_unsigned(packer, "pid", (uint64_t)uv_os_getpid());
    daemon_pack_limits(packer, call->dispatcher->conf);
    daemon_pack_server(packer, call_store(call));
    pack_str(packer, "methods");
    msgpack_pack_array(packer, METHOD_COUNT);
    for (size_t row = 0; row < METHOD_COUNT; row++)
        pack_str(packer, methods_ops.methods[row].name);
    call_end_result(call);
}
