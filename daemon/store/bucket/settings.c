#include "daemon/store/bucket/settings.h"

#include "daemon/nats/jetstream.h"
#include "daemon/nats/kv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S  1000000000LL
#define NS_PER_MS 1000000LL

static void settings_set(json_t *object, const char *name, json_t *value)
{
    json_object_set_new(object, name, value);
}

static void settings_set_integer(json_t *object, const char *name, int64_t value)
{
    settings_set(object, name, json_integer((json_int_t)value));
}

/* --- Settings into a stream ------------------------------------------------------------------------ */

static json_t *settings_external_of(const char *domain)
{
    char api[256];

    snprintf(api, sizeof(api), "$JS.%s.API", domain);
    return json_pack("{s:s}", "api", api);
}

/* Return the stream of a mirror or source, without subject transforms. */
static json_t *settings_source_stream(const struct bucket_source *source)
{
    char name[KV_STREAM_BYTES];

    snprintf(name, sizeof(name), "KV_%s", source->bucket);
    json_t *stream = json_pack("{s:s}", "name", name);
    if (source->domain != NULL)
        settings_set(stream, "external", settings_external_of(source->domain));
    return stream;
}

/* Map the subjects of a source's keys to subjects of this bucket. */
static json_t *settings_source_of(const char *bucket, const struct bucket_source *source)
{
    json_t *stream = settings_source_stream(source);
    char from[KV_SUBJECT_BYTES], to[KV_SUBJECT_BYTES + KV_FILTER_TOKENS_MAX * sizeof("{{wildcard(32)}}")];
    const char *filter = source->filter != NULL ? source->filter : ">";

    snprintf(from, sizeof(from), "$KV.%s.%s", source->bucket, filter);
    snprintf(to, sizeof(to), "$KV.%s.%s", bucket, filter);
    /* A destination refers to the wildcards of the source by number. */
    if (strchr(filter, '*') != NULL) {
        size_t length = (size_t)snprintf(to, sizeof(to), "$KV.%s.", bucket);
        unsigned number = 1;
        for (const char *c = filter; *c != '\0'; c++) {
            if (*c == '*')
                length += (size_t)snprintf(to + length, sizeof(to) - length, "{{wildcard(%u)}}", number++);
            else
                to[length++] = *c;
        }
        to[length] = '\0';
    }
    settings_set(stream, "subject_transforms", json_pack("[{s:s, s:s}]", "src", from, "dest", to));
    return stream;
}

static json_t *settings_placement_of(const struct bucket_config *config)
{
    json_t *placement = json_object(), *tags = json_array();

    if (config->placement_cluster != NULL)
        settings_set(placement, "cluster", json_string(config->placement_cluster));
    for (size_t i = 0; i < config->placement_tag_count; i++)
        json_array_append_new(tags, json_string(config->placement_tags[i]));
    settings_set(placement, "tags", tags);
    return placement;
}

/* Replace the metadata of callers. That of the server and of kvstored stays. */
static void settings_set_metadata(json_t *stream, const struct bucket_config *config)
{
    json_t *metadata = json_object_get(stream, "metadata");
    const char *name;
    json_t *value;
    void *next;

    if (metadata == NULL) {
        metadata = json_object();
        settings_set(stream, "metadata", metadata);
    }
    json_object_foreach_safe(metadata, next, name, value)
    {
        if (strncmp(name, "_nats.", 6) != 0 && strncmp(name, "kvstored.", 9) != 0)
            json_object_del(metadata, name);
    }
    for (size_t i = 0; i < config->metadata_count; i++)
        settings_set(metadata, config->metadata[i].name, json_string(config->metadata[i].value));
}

/* Set a setting that NATS does not know, in the metadata; a negative number removes it. */
static void settings_set_own(json_t *stream, const char *name, int64_t number)
{
    json_t *metadata = json_object_get(stream, "metadata");
    char text[24];

    if (metadata == NULL) {
        metadata = json_object();
        settings_set(stream, "metadata", metadata);
    }
    snprintf(text, sizeof(text), "%" PRId64, number);
    if (number >= 0)
        settings_set(metadata, name, json_string(text));
    else
        json_object_del(metadata, name);
}

/* Return a setting that NATS does not know; -1: there is none. */
static int64_t settings_get_own(json_t *stream, const char *name)
{
    const char *text = json_string_value(json_object_get(json_object_get(stream, "metadata"), name));
    char *end;

    if (text == NULL)
        return -1;
    long long number = strtoll(text, &end, 10);
    return end != text && *end == '\0' && number >= 0 ? number : -1;
}

static void settings_set_max_value_size(json_t *stream, int64_t size)
{
    settings_set_integer(stream, "max_msg_size", size < 0 ? -1 : size + KV_HEADER_ROOM_BYTES);
    settings_set_own(stream, KV_METADATA_MAX_VALUE_SIZE, size);
}

int64_t bucket_config_marker_ttl(json_t *stream)
{
    int64_t ttl_s = settings_get_own(stream, KV_METADATA_MARKER_TTL);

    return ttl_s > 0 && ttl_s <= BUCKET_TTL_MAX_S ? ttl_s : 0;
}

int64_t bucket_config_max_value_size(json_t *stream)
{
    json_t *limit = json_object_get(stream, "max_msg_size");
    int64_t asked = settings_get_own(stream, KV_METADATA_MAX_VALUE_SIZE);
    int64_t size = limit != NULL ? (int64_t)json_integer_value(limit) : -1;

    /* If another client has changed max_msg_size since, that limit counts. */
    if (size > 0 && asked >= 0 && asked + KV_HEADER_ROOM_BYTES == size)
        return asked;
    return size > 0 ? size : -1;
}

/* The window exceeds the longest deadline of a call, so that no id is forgotten before its retry. max_age limits it. */
static void settings_set_duplicate_window(json_t *stream, uint64_t window_ms)
{
    json_int_t max_age_ns = json_integer_value(json_object_get(stream, "max_age"));
    json_int_t window_ns = (json_int_t)window_ms * NS_PER_MS;
    json_int_t present_ns = json_integer_value(json_object_get(stream, "duplicate_window"));

    if (present_ns > window_ns)
        window_ns = present_ns;
    if (max_age_ns > 0 && window_ns > max_age_ns)
        window_ns = max_age_ns;
    settings_set(stream, "duplicate_window", json_integer(window_ns));
}

static bool settings_is_mirror(json_t *stream)
{
    return json_is_object(json_object_get(stream, "mirror"));
}

bool bucket_config_has_origin(json_t *config)
{
    return settings_is_mirror(config) || json_array_size(json_object_get(config, "sources")) > 0;
}

static void settings_set_features(json_t *stream, unsigned level, uint64_t window_ms)
{
    if (level >= JETSTREAM_LEVEL_TTL)
        settings_set(stream, "allow_msg_ttl", json_true());
    if (settings_is_mirror(stream))
        return;
    if (level >= JETSTREAM_LEVEL_ATOMIC)
        settings_set(stream, "allow_atomic", json_true());
    settings_set_duplicate_window(stream, window_ms);
}

static bool settings_set_limit_marker(json_t *stream, const struct bucket_config *config, unsigned level,
                                      struct error *error)
{
    if (level < JETSTREAM_LEVEL_TTL) {
        error_set(error, ERROR_UNSUPPORTED, "limit_marker_ttl needs nats-server 2.11 or later");
        return false;
    }
    settings_set_integer(stream, "subject_delete_marker_ttl", config->limit_marker_ttl_s * NS_PER_S);
    return true;
}

/* Return whether the bucket has an origin: it is a mirror, or has sources, or the settings give it one. */
static bool settings_have_origin(json_t *stream, const struct bucket_config *config)
{
    return bucket_config_has_origin(stream) || (config->set & BUCKET_MIRROR) ||
           ((config->set & BUCKET_SOURCES) && config->source_count > 0);
}

/* The settings that may change during a bucket's life. */
static bool settings_set_given(json_t *stream, const char *bucket, const struct bucket_config *config, unsigned level,
                               struct error *error)
{
    unsigned given = config->set;

    if ((given & BUCKET_MARKER_TTL) && config->marker_ttl_s > 0 && settings_have_origin(stream, config)) {
        error_set(error, ERROR_UNSUPPORTED,
                  "marker_ttl: a bucket with mirror or sources is not compacted; set it for the buckets of its origin");
        return false;
    }
    if (given & BUCKET_DESCRIPTION)
        settings_set(stream, "description", json_string(config->description));
    if (given & BUCKET_HISTORY)
        settings_set_integer(stream, "max_msgs_per_subject", config->history);
    if (given & BUCKET_TTL)
        settings_set_integer(stream, "max_age", config->ttl_s * NS_PER_S);
    if (given & BUCKET_METADATA)
        settings_set_metadata(stream, config);
    if (given & BUCKET_MAX_VALUE_SIZE)
        settings_set_max_value_size(stream, config->max_value_size);
    if (given & BUCKET_MAX_BYTES)
        settings_set_integer(stream, "max_bytes", config->max_bytes);
    if (given & BUCKET_REPLICAS)
        settings_set_integer(stream, "num_replicas", config->replicas);
    if (given & BUCKET_COMPRESSION)
        settings_set(stream, "compression", json_string(config->compression ? "s2" : "none"));
    if (given & BUCKET_PLACEMENT)
        settings_set(stream, "placement", settings_placement_of(config));
    if (given & BUCKET_MARKER_TTL)
        settings_set_own(stream, KV_METADATA_MARKER_TTL, config->marker_ttl_s > 0 ? config->marker_ttl_s : -1);
    if (given & BUCKET_REPUBLISH)
        settings_set(stream, "republish",
                     json_pack("{s:s, s:s, s:b}", "src", config->republish_source, "dest",
                               config->republish_destination, "headers_only", config->republish_headers_only));
    if (given & BUCKET_SOURCES) {
        json_t *sources = json_array();
        for (size_t i = 0; i < config->source_count; i++)
            json_array_append_new(sources, settings_source_of(bucket, &config->sources[i]));
        settings_set(stream, "sources", sources);
    }
    if (given & BUCKET_LIMIT_MARKER_TTL)
        return settings_set_limit_marker(stream, config, level, error);
    return true;
}

json_t *bucket_config_to_stream(const char *name, const struct bucket_config *config, unsigned level,
                                uint64_t window_ms, struct error *error)
{
    char stream_name[KV_STREAM_BYTES], subject[KV_PREFIX_BYTES + 1];

    if ((config->set & BUCKET_MIRROR) && (config->set & BUCKET_SOURCES)) {
        error_set(error, ERROR_INVALID_ARGUMENT, "a bucket can have a mirror or sources, not both");
        return NULL;
    }
    snprintf(stream_name, sizeof(stream_name), "KV_%s", name);
    snprintf(subject, sizeof(subject), "$KV.%s.>", name);
    json_t *stream = json_pack("{s:s, s:s, s:s, s:b, s:b, s:b, s:i, s:i, s:i, s:i, s:i, s:s}", "name", stream_name,
                               "retention", "limits", "discard", "new", "allow_rollup_hdrs", 1, "deny_delete", 1,
                               "allow_direct", 1, "max_msgs_per_subject", 1, "max_msgs", -1, "max_consumers", -1,
                               "max_bytes", -1, "num_replicas", 1, "storage", config->in_memory ? "memory" : "file");
    if (stream == NULL) {
        error_set(error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return NULL;
    }
    if (config->set & BUCKET_MIRROR) {
        settings_set(stream, "mirror", settings_source_stream(&config->mirror));
        settings_set(stream, "mirror_direct", json_true());
    } else {
        settings_set(stream, "subjects", json_pack("[s]", subject));
    }
    if (!settings_set_given(stream, name, config, level, error)) {
        json_decref(stream);
        return NULL;
    }
    settings_set_features(stream, level, window_ms);
    return stream;
}

bool bucket_config_update_stream(json_t *stream, const struct bucket_config *config, unsigned level, uint64_t window_ms,
                                 struct error *error)
{
    const char *name = json_string_value(json_object_get(stream, "name"));
    const char *storage = json_string_value(json_object_get(stream, "storage"));

    if ((config->set & BUCKET_STORAGE) && storage != NULL && (strcmp(storage, "memory") == 0) != config->in_memory) {
        error_set(error, ERROR_UNSUPPORTED, "the storage of a bucket cannot be changed; create another bucket");
        return false;
    }
    if (config->set & BUCKET_MIRROR) {
        error_set(error, ERROR_UNSUPPORTED, "the mirror of a bucket cannot be changed; create another bucket");
        return false;
    }
    if (!settings_set_given(stream, name != NULL && strlen(name) > 3 ? name + 3 : "", config, level, error))
        return false;
    settings_set_features(stream, level, window_ms);
    /* The server refuses roll-ups where purging is denied. */
    if (!settings_is_mirror(stream) && !json_is_true(json_object_get(stream, "deny_purge")))
        settings_set(stream, "allow_rollup_hdrs", json_true());
    return true;
}

/* --- A stream into settings ------------------------------------------------------------------------ */

static const char *settings_string_in(json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text != NULL && text[0] != '\0' ? text : NULL;
}

/* "$JS.<domain>.API" */
static const char *settings_domain_in(struct arena *arena, json_t *source)
{
    const char *api = settings_string_in(json_object_get(source, "external"), "api");
    size_t length = api != NULL ? strlen(api) : 0;

    if (length <= 8 || strncmp(api, "$JS.", 4) != 0 || strcmp(api + length - 4, ".API") != 0)
        return NULL;
    return arena_strndup(arena, api + 4, length - 8);
}

static void settings_read_source(struct arena *arena, json_t *from, struct bucket_source *source)
{
    const char *name = settings_string_in(from, "name");
    const char *transform = settings_string_in(json_array_get(json_object_get(from, "subject_transforms"), 0), "src");

    memset(source, 0, sizeof(*source));
    source->bucket = name == NULL ? "" : strncmp(name, "KV_", 3) == 0 ? name + 3 : name;
    source->domain = settings_domain_in(arena, from);
    /* "$KV.<bucket>.<filter>" */
    if (transform != NULL && strncmp(transform, "$KV.", 4) == 0) {
        const char *filter = strchr(transform + 4, '.');
        if (filter != NULL && strcmp(filter, ".>") != 0)
            source->filter = filter + 1;
    }
}

static bool settings_read_sources(struct arena *arena, json_t *stream, struct bucket_config *config)
{
    json_t *sources = json_object_get(stream, "sources");

    if (json_is_object(json_object_get(stream, "mirror"))) {
        config->set |= BUCKET_MIRROR;
        settings_read_source(arena, json_object_get(stream, "mirror"), &config->mirror);
    }
    if (json_array_size(sources) == 0)
        return true;
    config->set |= BUCKET_SOURCES;
    config->source_count = json_array_size(sources);
    config->sources = arena_alloc(arena, config->source_count * sizeof(*config->sources));
    if (config->sources == NULL)
        return false;
    for (size_t i = 0; i < config->source_count; i++)
        settings_read_source(arena, json_array_get(sources, i), &config->sources[i]);
    return true;
}

static bool settings_read_placement(struct arena *arena, json_t *stream, struct bucket_config *config)
{
    json_t *placement = json_object_get(stream, "placement");
    json_t *tags = json_object_get(placement, "tags");

    if (!json_is_object(placement))
        return true;
    config->set |= BUCKET_PLACEMENT;
    config->placement_cluster = settings_string_in(placement, "cluster");
    config->placement_tag_count = json_array_size(tags);
    config->placement_tags = arena_alloc(arena, (config->placement_tag_count + 1) * sizeof(*config->placement_tags));
    if (config->placement_tags == NULL)
        return false;
    for (size_t i = 0; i < config->placement_tag_count; i++) {
        const char *tag = json_string_value(json_array_get(tags, i));
        config->placement_tags[i] = tag != NULL ? tag : "";
    }
    return true;
}

static bool settings_read_metadata(struct arena *arena, json_t *stream, struct bucket_config *config)
{
    json_t *metadata = json_object_get(stream, "metadata");
    const char *name;
    json_t *value;

    config->metadata = arena_alloc(arena, (json_object_size(metadata) + 1) * sizeof(*config->metadata));
    if (config->metadata == NULL)
        return false;
    json_object_foreach(metadata, name, value)
    {
        /* Leave out the metadata of the server and of kvstored. */
        if (strncmp(name, "_nats.", 6) == 0 || strncmp(name, "kvstored.", 9) == 0 || !json_is_string(value))
            continue;
        config->metadata[config->metadata_count++] = (struct bucket_pair){name, json_string_value(value)};
    }
    if (config->metadata_count > 0)
        config->set |= BUCKET_METADATA;
    return true;
}

static void settings_read_republish(json_t *stream, struct bucket_config *config)
{
    json_t *republish = json_object_get(stream, "republish");

    if (!json_is_object(republish))
        return;
    config->set |= BUCKET_REPUBLISH;
    config->republish_source = settings_string_in(republish, "src");
    config->republish_destination = settings_string_in(republish, "dest");
    config->republish_headers_only = json_is_true(json_object_get(republish, "headers_only"));
}

/* A stream of another client with discard "old" is never full: new messages replace the oldest ones. */
static bool settings_is_full(json_t *stream, uint64_t bytes)
{
    json_int_t max_bytes = json_integer_value(json_object_get(stream, "max_bytes"));
    const char *discard = settings_string_in(stream, "discard");

    if (max_bytes <= 0 || discard == NULL || strcmp(discard, "new") != 0)
        return false;
    uint64_t max = (uint64_t)max_bytes, spare = max / 10 < KV_HEADER_ROOM_BYTES ? max / 10 : KV_HEADER_ROOM_BYTES;
    return bytes + spare > max;
}

bool bucket_config_read_info(struct arena *arena, const char *name, json_t *answer, struct bucket_info *info)
{
    json_t *stream = json_object_get(answer, "config"), *state = json_object_get(answer, "state");
    struct bucket_config *config = &info->config;
    const char *compression = settings_string_in(stream, "compression");
    const char *storage = settings_string_in(stream, "storage");

    memset(info, 0, sizeof(*info));
    info->name = name;
    info->values = (uint64_t)json_integer_value(json_object_get(state, "messages"));
    info->bytes = (uint64_t)json_integer_value(json_object_get(state, "bytes"));
    info->last_revision = (uint64_t)json_integer_value(json_object_get(state, "last_seq"));
    info->allows_ttl = json_is_true(json_object_get(stream, "allow_msg_ttl"));
    info->allows_atomic = json_is_true(json_object_get(stream, "allow_atomic"));
    info->is_full = settings_is_full(stream, info->bytes);
    info->is_sealed = json_is_true(json_object_get(stream, "sealed"));

    config->set = BUCKET_HISTORY | BUCKET_TTL | BUCKET_MAX_VALUE_SIZE | BUCKET_MAX_BYTES | BUCKET_STORAGE |
                  BUCKET_REPLICAS | BUCKET_COMPRESSION | BUCKET_LIMIT_MARKER_TTL | BUCKET_MARKER_TTL;
    config->description = settings_string_in(stream, "description");
    if (config->description != NULL)
        config->set |= BUCKET_DESCRIPTION;
    config->history = json_integer_value(json_object_get(stream, "max_msgs_per_subject"));
    config->ttl_s = json_integer_value(json_object_get(stream, "max_age")) / NS_PER_S;
    config->max_value_size = bucket_config_max_value_size(stream);
    config->max_bytes = json_integer_value(json_object_get(stream, "max_bytes"));
    if (config->max_bytes <= 0)
        config->max_bytes = -1;
    config->in_memory = storage != NULL && strcmp(storage, "memory") == 0;
    config->replicas = json_integer_value(json_object_get(stream, "num_replicas"));
    config->compression = compression != NULL && strcmp(compression, "s2") == 0;
    config->limit_marker_ttl_s = json_integer_value(json_object_get(stream, "subject_delete_marker_ttl")) / NS_PER_S;
    config->marker_ttl_s = bucket_config_marker_ttl(stream);
    settings_read_republish(stream, config);
    return settings_read_placement(arena, stream, config) && settings_read_sources(arena, stream, config) &&
           settings_read_metadata(arena, stream, config);
}
