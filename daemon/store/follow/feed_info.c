#include "daemon/store/follow/feed_info.h"

#include "daemon/nats/kv.h"
#include "daemon/store/bucket/settings.h"

void feed_read_info(json_t *answer, struct feed_info *info)
{
    json_t *config = json_object_get(answer, "config");
    json_t *state = json_object_get(answer, "state");
    bool can_expire = json_integer_value(json_object_get(config, "max_age")) > 0 ||
                      json_is_true(json_object_get(config, "allow_msg_ttl"));

    info->first_sequence = (uint64_t)json_integer_value(json_object_get(state, "first_seq"));
    info->last_sequence = (uint64_t)json_integer_value(json_object_get(state, "last_seq"));
    const char *last = json_string_value(json_object_get(state, "last_ts"));
    info->last_us = last != NULL ? kv_parse_time_us(last) : 0;
    info->subjects = (uint64_t)json_integer_value(json_object_get(state, "num_subjects"));
    info->bytes = (uint64_t)json_integer_value(json_object_get(state, "bytes"));
    info->replicas = (unsigned)json_integer_value(json_object_get(config, "num_replicas"));
    info->max_age_us = json_integer_value(json_object_get(config, "max_age")) / 1000;
    info->has_origin = bucket_config_has_origin(config);
    info->expires_silently =
        can_expire && json_integer_value(json_object_get(config, "subject_delete_marker_ttl")) == 0;
}
