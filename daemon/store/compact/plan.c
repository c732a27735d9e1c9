#include "daemon/store/compact/plan.h"

#include "daemon/base/clock.h"
#include "daemon/nats/stream_info.h"
#include "daemon/store/bucket/settings.h"

#include <string.h>

bool compact_plan_read(const struct store *store, json_t *answer, int64_t older_than_s, struct compact_plan *plan,
                       struct error *error)
{
    json_t *config = json_object_get(answer, "config");
    const char *storage = json_string_value(json_object_get(config, "storage"));
    struct stream_info info;

    if (bucket_config_has_origin(config)) {
        error_set(error, ERROR_UNSUPPORTED,
                  "a bucket with mirror or sources cannot be compacted; compact the buckets that it is fed from");
        return false;
    }
    plan->marker_ttl_s = bucket_config_marker_ttl(config);
    if (older_than_s < 0)
        older_than_s = plan->marker_ttl_s > 0 ? plan->marker_ttl_s : COMPACT_DEFAULT_AGE_S;
    plan->cutoff_us = clock_epoch_us() - older_than_s * 1000000;
    stream_info_read(&store->jetstream, answer, &info);
    plan->last = info.last_sequence;
    plan->incarnation = info.incarnation;
    plan->is_in_files =
        store->conf->nats.mode == CONF_NATS_EMBEDDED && !(storage != NULL && strcmp(storage, "memory") == 0);
    plan->has_others = json_array_size(json_object_get(config, "subjects")) != 1;
    return true;
}
