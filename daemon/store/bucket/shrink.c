#include "daemon/store/bucket/shrink.h"

#include "daemon/nats/kv.h"

#include <inttypes.h>
#include <string.h>

#define HOW_TO_FORCE "set force to change it anyway"

static int64_t shrink_integer(json_t *object, const char *name)
{
    return (int64_t)json_integer_value(json_object_get(object, name));
}

/* A smaller history removes a value only if a key has more values than it, and so at least as many older ones. */
static bool shrink_check_history(json_t *stream, json_t *state, int64_t history, struct error *error)
{
    int64_t old = shrink_integer(stream, "max_msgs_per_subject");
    int64_t older_values = shrink_integer(state, "messages") - shrink_integer(state, "num_subjects");

    if ((old > 0 && history >= old) || older_values < history)
        return true;
    error_set(error, ERROR_UNSUPPORTED,
              "history %" PRId64 " would remove older values at once: the bucket has %" PRId64
              " of them, beside the newest of each key; " HOW_TO_FORCE,
              history, older_values);
    return false;
}

static bool shrink_check_ttl(json_t *info, json_t *stream, json_t *state, int64_t ttl_s, struct error *error)
{
    int64_t old_s = shrink_integer(stream, "max_age") / 1000000000;
    const char *now = json_string_value(json_object_get(info, "ts"));
    const char *first = json_string_value(json_object_get(state, "first_ts"));

    if (ttl_s <= 0 || (old_s > 0 && ttl_s >= old_s) || shrink_integer(state, "messages") == 0)
        return true;
    if (now == NULL || first == NULL) {
        error_set(error, ERROR_UNSUPPORTED,
                  "ttl %" PRId64 " may remove values at once: the server does not report their age; " HOW_TO_FORCE,
                  ttl_s);
        return false;
    }
    int64_t age_s = (kv_parse_time_us(now) - kv_parse_time_us(first)) / 1000000;
    if (age_s < ttl_s)
        return true;
    error_set(error, ERROR_UNSUPPORTED,
              "ttl %" PRId64 " would remove all older values at once: the oldest is %" PRId64 " s old; " HOW_TO_FORCE,
              ttl_s, age_s);
    return false;
}

/* A bucket of another client may replace its oldest values when it is full. Others refuse new ones. */
static bool shrink_check_max_bytes(json_t *stream, json_t *state, int64_t max_bytes, struct error *error)
{
    int64_t bytes = shrink_integer(state, "bytes");
    const char *discard = json_string_value(json_object_get(stream, "discard"));

    if (max_bytes <= 0 || bytes <= max_bytes)
        return true;
    error_set(error, ERROR_UNSUPPORTED,
              "max_bytes %" PRId64 " is less than the %" PRId64 " bytes that the bucket has: %s; %s", max_bytes, bytes,
              discard != NULL && strcmp(discard, "old") == 0 ? "the oldest values would be removed at once"
                                                             : "it would refuse every further value",
              HOW_TO_FORCE);
    return false;
}

static bool shrink_check_held(json_t *stream, int64_t ttl_s, unsigned held, struct error *error)
{
    if (held == 0 || ttl_s <= 0 || shrink_integer(stream, "max_age") > 0)
        return true;
    error_set(error, ERROR_UNSUPPORTED,
              "with a ttl the bucket cannot have locks and ephemeral keys, and sessions of this daemon have %u of "
              "them; " HOW_TO_FORCE ": they are lost",
              held);
    return false;
}

bool shrink_check(json_t *info, const struct bucket_config *config, unsigned held, struct error *error)
{
    json_t *stream = json_object_get(info, "config"), *state = json_object_get(info, "state");

    return (!(config->set & BUCKET_TTL) || shrink_check_held(stream, config->ttl_s, held, error)) &&
           (!(config->set & BUCKET_HISTORY) || shrink_check_history(stream, state, config->history, error)) &&
           (!(config->set & BUCKET_TTL) || shrink_check_ttl(info, stream, state, config->ttl_s, error)) &&
           (!(config->set & BUCKET_MAX_BYTES) || shrink_check_max_bytes(stream, state, config->max_bytes, error));
}
