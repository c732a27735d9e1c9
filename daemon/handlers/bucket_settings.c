#include "daemon/handlers/bucket_settings.h"

#include "daemon/handlers/entry.h"
#include "daemon/handlers/service.h"
#include "daemon/nats/kv.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/options.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/*
 * The limits of nats-server, which knows them only after the daemon has made JSON of the texts. Metadata leaves room
 * for what the server and the daemon add.
 */
#define DESCRIPTION_BYTES_MAX 4096u
#define METADATA_BYTES_MAX    (127u * 1024u)
/* The server has no limits of its own for these. A subject of this length fits into its control line. */
#define SUBJECT_BYTES_MAX 1024u
#define NAME_BYTES_MAX    255u
#define DOMAIN_BYTES_MAX  100u

/* --- Settings from options ------------------------------------------------------------------------- */

static bool settings_read_integer(struct call *call, struct bucket_config *config, const char *name, unsigned bit,
                                  int64_t min, int64_t max, int64_t *number)
{
    if (option_find(call, name) == NULL)
        return true;
    config->set |= bit;
    return option_integer(call, name, min, max, 0, number);
}

static bool settings_read_storage(struct call *call, struct bucket_config *config)
{
    const msgpack_object *storage = option_find(call, "storage");

    if (storage == NULL)
        return true;
    config->set |= BUCKET_STORAGE;
    config->in_memory = argument_is_word(storage, "memory");
    return config->in_memory || argument_is_word(storage, "file") ||
           argument_refuse(call, "storage", "\"file\" or \"memory\"", storage);
}

/* Read a map whose members are among names. NULL: the call is answered. */
static const msgpack_object_map *settings_read_map(struct call *call, const msgpack_object *value, const char *what,
                                                   const char *names)
{
    const msgpack_object_map *map = argument_to_map(value);
    char expected[64];

    if (map != NULL)
        return option_check_names(call, map, what, names) ? map : NULL;
    snprintf(expected, sizeof(expected), "a map of: %s", names);
    argument_refuse(call, what, expected, value);
    return NULL;
}

/* Of sources, each of which is looked up, and of tags. */
#define SETTINGS_LIST_MAX 256u

static bool settings_check_count(struct call *call, const char *what, uint32_t count)
{
    if (count <= SETTINGS_LIST_MAX)
        return true;
    call_fail_with(call, ERROR_TOO_LARGE, "%s can have up to %u elements, not %" PRIu32, what, SETTINGS_LIST_MAX,
                   count);
    return false;
}

static bool bucket_settings_read_placement(struct call *call, struct bucket_config *config)
{
    const msgpack_object *placement = option_find(call, "placement");

    if (placement == NULL)
        return true;
    config->set |= BUCKET_PLACEMENT;
    const msgpack_object_map *map = settings_read_map(call, placement, "placement", "cluster tags");
    if (map == NULL)
        return false;
    const msgpack_object *cluster = option_find_member(map, "cluster"), *tags = option_find_member(map, "tags");
    if (cluster != NULL &&
        !argument_read_text(call, cluster, "placement's cluster", NAME_BYTES_MAX, &config->placement_cluster))
        return false;
    if (tags == NULL)
        return true;
    const msgpack_object_array *array = argument_to_array(tags);
    if (array == NULL)
        return argument_refuse(call, "placement's tags", "an array of texts", tags);
    if (!settings_check_count(call, "placement's tags", array->size))
        return false;
    config->placement_tag_count = array->size;
    config->placement_tags = arena_alloc(&call->arena, (array->size + 1) * sizeof(*config->placement_tags));
    if (config->placement_tags == NULL) {
        call_fail_out_of_memory(call);
        return false;
    }
    for (uint32_t i = 0; i < array->size; i++) {
        if (!argument_read_text(call, &array->ptr[i], "a placement tag", NAME_BYTES_MAX, &config->placement_tags[i]))
            return false;
    }
    return true;
}

static bool bucket_settings_read_republish(struct call *call, struct bucket_config *config)
{
    const msgpack_object *republish = option_find(call, "republish");

    if (republish == NULL)
        return true;
    config->set |= BUCKET_REPUBLISH;
    const msgpack_object_map *map = settings_read_map(call, republish, "republish", "source destination headers_only");
    if (map == NULL)
        return false;
    const msgpack_object *source = option_find_member(map, "source"),
                         *destination = option_find_member(map, "destination");
    const msgpack_object *headers_only = option_find_member(map, "headers_only");
    config->republish_source = ">";
    if (destination == NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "republish needs a destination, a subject");
        return false;
    }
    if (headers_only != NULL && headers_only->type != MSGPACK_OBJECT_BOOLEAN)
        return argument_refuse(call, "republish's headers_only", "true or false", headers_only);
    config->republish_headers_only = headers_only != NULL && headers_only->via.boolean;
    if ((source != NULL &&
         !argument_read_text(call, source, "republish's source", SUBJECT_BYTES_MAX, &config->republish_source)) ||
        !argument_read_text(call, destination, "republish's destination", SUBJECT_BYTES_MAX,
                            &config->republish_destination))
        return false;
    if (config->republish_destination[0] == '\0') {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "republish's destination must not be empty");
        return false;
    }
    /* Subjects that begin with _ are the inboxes of clients, this daemon's among them: it would take such messages for
     * answers. A leading wildcard could become one. */
    if (strchr("_*>{", config->republish_destination[0]) != NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "republish's destination must not begin with _ or a wildcard");
        return false;
    }
    /* $KV. subjects are other buckets, and $JS. subjects the server's API. */
    if (call->dispatcher->access.count > 0 && config->republish_destination[0] == '$') {
        call_fail_with(call, ERROR_PERMISSION_DENIED,
                       "where access rules are in force, republish's destination must not begin with $");
        return false;
    }
    return true;
}

/* Read a source or a mirror: the name of a bucket, or a map that has it. */
static bool bucket_settings_read_source(struct call *call, const msgpack_object *value, const char *what,
                                        struct bucket_source *source)
{
    memset(source, 0, sizeof(*source));
    if (value->type != MSGPACK_OBJECT_MAP) {
        if (!argument_read_text(call, value, what, NAME_BYTES_MAX, &source->bucket))
            return false;
    } else {
        const msgpack_object_map *map = settings_read_map(call, value, what, "bucket domain filter");
        if (map == NULL)
            return false;
        const msgpack_object *bucket = option_find_member(map, "bucket"), *domain = option_find_member(map, "domain");
        const msgpack_object *filter = option_find_member(map, "filter");
        if (bucket == NULL) {
            call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s needs a bucket", what);
            return false;
        }
        if (!argument_read_text(call, bucket, what, NAME_BYTES_MAX, &source->bucket) ||
            (domain != NULL && !argument_read_text(call, domain, "a domain", DOMAIN_BYTES_MAX, &source->domain)) ||
            (filter != NULL && !argument_read_text(call, filter, "a filter", KV_KEY_LENGTH_MAX, &source->filter)))
            return false;
    }
    const char *wrong = kv_check_bucket(source->bucket, strlen(source->bucket));
    if (wrong == NULL && source->filter != NULL)
        wrong = kv_check_filter(source->filter, strlen(source->filter));
    if (wrong != NULL)
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s: %s", what, wrong);
    return wrong == NULL;
}

/* Check the caller's right on a bucket that another one would be connected with. */
static bool settings_check_right(struct call *call, const struct bucket_source *source, enum conf_access needed,
                                 const char *action, const char *reason)
{
    if (call_access(call, source->bucket) >= needed)
        return true;
    call_fail_with(call, ERROR_PERMISSION_DENIED, "uid %u may not %s the bucket \"%s\", %s",
                   (unsigned)call->session->uid, action, source->bucket, reason);
    return false;
}

static bool settings_read_origins(struct call *call, struct bucket_config *config)
{
    const msgpack_object *mirror = option_find(call, "mirror"), *sources = option_find(call, "sources");

    if (mirror != NULL) {
        config->set |= BUCKET_MIRROR;
        if (!bucket_settings_read_source(call, mirror, "mirror", &config->mirror) ||
            !settings_check_right(call, &config->mirror, CONF_ACCESS_WRITE, "write to",
                                  "to which the writes of its mirror would go"))
            return false;
        if (config->mirror.filter != NULL) {
            call_fail_with(call, ERROR_INVALID_ARGUMENT, "a mirror has the whole bucket: only sources have filters");
            return false;
        }
    }
    if (sources == NULL)
        return true;
    config->set |= BUCKET_SOURCES;
    const msgpack_object_array *array = argument_to_array(sources);
    if (array == NULL)
        return argument_refuse(call, "sources", "an array of buckets' names or maps", sources);
    if (!settings_check_count(call, "sources", array->size))
        return false;
    config->source_count = array->size;
    config->sources = arena_alloc(&call->arena, (config->source_count + 1) * sizeof(*config->sources));
    if (config->sources == NULL) {
        call_fail_out_of_memory(call);
        return false;
    }
    for (size_t i = 0; i < config->source_count; i++) {
        if (!bucket_settings_read_source(call, &array->ptr[i], "a source", &config->sources[i]) ||
            !settings_check_right(call, &config->sources[i], CONF_ACCESS_READ, "read",
                                  "which this one would be fed from"))
            return false;
    }
    return true;
}

static bool bucket_settings_read_metadata(struct call *call, struct bucket_config *config)
{
    const msgpack_object *metadata = option_find(call, "metadata");

    if (metadata == NULL)
        return true;
    config->set |= BUCKET_METADATA;
    struct argument_pair *pairs;
    size_t count;
    if (!argument_read_pairs(call, metadata, "metadata", METADATA_BYTES_MAX, &pairs, &count))
        return false;
    config->metadata = arena_alloc(&call->arena, (count + 1) * sizeof(*config->metadata));
    if (config->metadata == NULL) {
        call_fail_out_of_memory(call);
        return false;
    }
    config->metadata_count = count;
    for (size_t i = 0; i < count; i++) {
        if (strncmp(pairs[i].name, "_nats.", 6) == 0 || strncmp(pairs[i].name, "kvstored.", 9) == 0) {
            call_fail_with(call, ERROR_INVALID_ARGUMENT,
                           "metadata that begins with _nats. or kvstored. is not yours to set");
            return false;
        }
        config->metadata[i] = (struct bucket_pair){pairs[i].name, pairs[i].value};
    }
    return true;
}

/* The outcome of a delete whose answer was lost is read from its marker, which must stay as long as a call may last. */
static bool settings_read_marker_ttl(struct call *call, struct bucket_config *config)
{
    int64_t min_s = (2 * (int64_t)call_store(call)->conf->calls.max_timeout_ms + 999) / 1000;

    if (!settings_read_integer(call, config, "marker_ttl", BUCKET_MARKER_TTL, 0, BUCKET_TTL_MAX_S,
                               &config->marker_ttl_s))
        return false;
    if (config->marker_ttl_s == 0 || config->marker_ttl_s >= min_s)
        return true;
    call_fail_with(call, ERROR_INVALID_ARGUMENT,
                   "marker_ttl must be 0 or at least %" PRId64
                   " seconds, twice the longest timeout of a call, not %" PRId64,
                   min_s, config->marker_ttl_s);
    return false;
}

struct bucket_config *bucket_settings_read(struct call *call)
{
    struct bucket_config *config = arena_zalloc(&call->arena, sizeof(*config));

    if (config == NULL) {
        call_fail_out_of_memory(call);
        return NULL;
    }
    if (option_find(call, "description") != NULL)
        config->set |= BUCKET_DESCRIPTION;
    if (option_find(call, "compression") != NULL)
        config->set |= BUCKET_COMPRESSION;
    if (!option_string(call, "description", DESCRIPTION_BYTES_MAX, &config->description) ||
        !option_bool(call, "compression", &config->compression) ||
        !settings_read_integer(call, config, "history", BUCKET_HISTORY, 1, KV_HISTORY_MAX, &config->history) ||
        !settings_read_integer(call, config, "ttl", BUCKET_TTL, 0, BUCKET_TTL_MAX_S, &config->ttl_s) ||
        !settings_read_integer(call, config, "max_value_size", BUCKET_MAX_VALUE_SIZE, -1,
                               INT32_MAX - KV_HEADER_ROOM_BYTES, &config->max_value_size) ||
        !settings_read_integer(call, config, "max_bytes", BUCKET_MAX_BYTES, -1, INT64_MAX, &config->max_bytes) ||
        !settings_read_integer(call, config, "replicas", BUCKET_REPLICAS, 1, 5, &config->replicas) ||
        !settings_read_integer(call, config, "limit_marker_ttl", BUCKET_LIMIT_MARKER_TTL, 0, BUCKET_TTL_MAX_S,
                               &config->limit_marker_ttl_s) ||
        !settings_read_marker_ttl(call, config) || !settings_read_storage(call, config) ||
        !bucket_settings_read_placement(call, config) || !bucket_settings_read_republish(call, config) ||
        !settings_read_origins(call, config) || !bucket_settings_read_metadata(call, config))
        return NULL;
    /* 0 is no limit, as in NATS and its clients. */
    if (config->max_value_size == 0)
        config->max_value_size = -1;
    return config;
}

/* --- Info to a map --------------------------------------------------------------------------------- */

static void settings_pack_source(msgpack_packer *packer, const struct bucket_source *source)
{
    msgpack_pack_map(packer, 1u + (source->domain != NULL) + (source->filter != NULL));
    pack_named_str(packer, "bucket", source->bucket);
    if (source->domain != NULL)
        pack_named_str(packer, "domain", source->domain);
    if (source->filter != NULL)
        pack_named_str(packer, "filter", source->filter);
}

static void settings_pack_placement(msgpack_packer *packer, const struct bucket_config *config)
{
    pack_str(packer, "placement");
    msgpack_pack_map(packer, 1u + (config->placement_cluster != NULL));
    if (config->placement_cluster != NULL)
        pack_named_str(packer, "cluster", config->placement_cluster);
    pack_str(packer, "tags");
    msgpack_pack_array(packer, config->placement_tag_count);
    for (size_t i = 0; i < config->placement_tag_count; i++)
        pack_str(packer, config->placement_tags[i]);
}

static void settings_pack_republish(msgpack_packer *packer, const struct bucket_config *config)
{
    pack_str(packer, "republish");
    msgpack_pack_map(packer, 3);
    pack_named_str(packer, "source", config->republish_source != NULL ? config->republish_source : "");
    pack_named_str(packer, "destination", config->republish_destination != NULL ? config->republish_destination : "");
    pack_named_bool(packer, "headers_only", config->republish_headers_only);
}

void bucket_settings_pack_info(msgpack_packer *packer, const struct bucket_info *info)
{
    const struct bucket_config *config = &info->config;
    /* Settings that not every bucket has. */
    unsigned optional = config->set & (BUCKET_DESCRIPTION | BUCKET_PLACEMENT | BUCKET_REPUBLISH | BUCKET_MIRROR |
                                       BUCKET_SOURCES | BUCKET_METADATA);

    msgpack_pack_map(packer, 15u + (unsigned)__builtin_popcount(optional));
    pack_named_str(packer, "bucket", info->name);
    pack_named_integer(packer, "history", config->history);
    pack_named_integer(packer, "ttl", config->ttl_s);
    pack_named_integer(packer, "max_value_size", config->max_value_size);
    pack_named_integer(packer, "max_bytes", config->max_bytes);
    pack_named_str(packer, "storage", config->in_memory ? "memory" : "file");
    pack_named_integer(packer, "replicas", config->replicas);
    pack_named_bool(packer, "compression", config->compression);
    pack_named_integer(packer, "limit_marker_ttl", config->limit_marker_ttl_s);
    pack_named_integer(packer, "marker_ttl", config->marker_ttl_s);
    pack_named_bool(packer, "allows_ttl", info->allows_ttl);
    pack_named_bool(packer, "allows_atomic", info->allows_atomic);
    pack_named_integer(packer, "values", (int64_t)info->values);
    pack_named_integer(packer, "bytes", (int64_t)info->bytes);
    pack_named_integer(packer, "last_revision", (int64_t)info->last_revision);
    if (optional & BUCKET_DESCRIPTION)
        pack_named_str(packer, "description", config->description);
    if (optional & BUCKET_PLACEMENT)
        settings_pack_placement(packer, config);
    if (optional & BUCKET_REPUBLISH)
        settings_pack_republish(packer, config);
    if (optional & BUCKET_MIRROR) {
        pack_str(packer, "mirror");
        settings_pack_source(packer, &config->mirror);
    }
    if (optional & BUCKET_SOURCES) {
        pack_str(packer, "sources");
        msgpack_pack_array(packer, config->source_count);
        for (size_t i = 0; i < config->source_count; i++)
            settings_pack_source(packer, &config->sources[i]);
    }
    if (optional & BUCKET_METADATA) {
        pack_str(packer, "metadata");
        msgpack_pack_map(packer, config->metadata_count);
        for (size_t i = 0; i < config->metadata_count; i++)
            pack_named_str(packer, config->metadata[i].name, config->metadata[i].value);
    }
}
