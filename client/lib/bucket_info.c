/* A bucket's info, from the daemon's map into one block. */
#include "client/lib/reply.h"
#include "client/lib/text.h"

#include <stdlib.h>
#include <string.h>

/*
 * Where the arrays and the text go that the info points to. The same functions go over the map twice: first
 * with NULL, to find the sizes, then with the block's parts.
 */
struct places {
    char *arrays;
    size_t array_bytes;
    char *texts;
    size_t text_bytes;
};

static void *place_array(struct places *places, size_t count, size_t item_bytes)
{
    void *place = places->arrays != NULL ? places->arrays + places->array_bytes : NULL;

    places->array_bytes += count * item_bytes;
    return place;
}

/* NULL where value is no text. */
static const char *place_text(struct places *places, const struct kvs_value *value)
{
    const char *copy = NULL;

    if (!text_is(value))
        return NULL;
    if (places->texts != NULL) {
        char *place = places->texts + places->text_bytes;
        copy = text_copy(&place, value);
    }
    places->text_bytes += text_space(value);
    return copy;
}

/* A setting that the map may lack, or that says 'no limit' with a number below 0. */
static int64_t setting(const struct kvs_value *map, const char *name)
{
    int64_t value = kvs_value_integer(kvs_value_member(map, name));

    return value > 0 ? value : 0;
}

static bool says(const struct kvs_value *value, const char *word)
{
    size_t size;
    const char *bytes = kvs_value_bytes(value, &size);

    return bytes != NULL && size == strlen(word) && memcmp(bytes, word, size) == 0;
}

static void read_plain(const struct kvs_value *map, struct kvs_bucket_info *info)
{
    info->values = kvs_value_unsigned(kvs_value_member(map, "values"));
    info->bytes = kvs_value_unsigned(kvs_value_member(map, "bytes"));
    info->last_revision = kvs_value_unsigned(kvs_value_member(map, "last_revision"));
    info->history = (unsigned)setting(map, "history");
    info->replicas = (unsigned)setting(map, "replicas");
    info->ttl_s = setting(map, "ttl");
    info->max_value_size = setting(map, "max_value_size");
    info->max_bytes = setting(map, "max_bytes");
    info->limit_marker_ttl_s = setting(map, "limit_marker_ttl");
    info->marker_ttl_s = setting(map, "marker_ttl");
    info->storage = says(kvs_value_member(map, "storage"), "memory") ? KVS_STORAGE_MEMORY : KVS_STORAGE_FILE;
    info->compression = kvs_value_boolean(kvs_value_member(map, "compression"));
    info->allows_ttl = kvs_value_boolean(kvs_value_member(map, "allows_ttl"));
    info->allows_atomic = kvs_value_boolean(kvs_value_member(map, "allows_atomic"));
}

static void read_placement(const struct kvs_value *placement, struct kvs_bucket_info *info, struct places *places)
{
    const struct kvs_value *value = kvs_value_member(placement, "tags");
    size_t count = kvs_value_type(value) == KVS_ARRAY ? kvs_value_count(value) : 0;
    const char **tags = place_array(places, count, sizeof(*tags));

    info->placement_cluster = place_text(places, kvs_value_member(placement, "cluster"));
    info->placement_tags = tags;
    info->placement_tag_count = count;
    for (size_t i = 0; i < count; i++) {
        const char *tag = place_text(places, kvs_value_item(value, i));
        if (tags != NULL)
            tags[i] = tag != NULL ? tag : "";
    }
}

static void read_republish(const struct kvs_value *republish, struct kvs_bucket_info *info, struct places *places)
{
    info->republish_destination = place_text(places, kvs_value_member(republish, "destination"));
    info->republish_source = place_text(places, kvs_value_member(republish, "source"));
    info->republish_headers_only = kvs_value_boolean(kvs_value_member(republish, "headers_only"));
}

static struct kvs_bucket_source read_source(const struct kvs_value *value, struct places *places)
{
    struct kvs_bucket_source source = {.bucket = place_text(places, kvs_value_member(value, "bucket"))};

    source.domain = place_text(places, kvs_value_member(value, "domain"));
    source.filter = place_text(places, kvs_value_member(value, "filter"));
    return source;
}

static void read_sources(const struct kvs_value *value, struct kvs_bucket_info *info, struct places *places)
{
    size_t count = kvs_value_type(value) == KVS_ARRAY ? kvs_value_count(value) : 0;
    struct kvs_bucket_source *sources = place_array(places, count, sizeof(*sources));

    info->sources = sources;
    info->source_count = count;
    for (size_t i = 0; i < count; i++) {
        struct kvs_bucket_source source = read_source(kvs_value_item(value, i), places);
        if (sources != NULL)
            sources[i] = source;
    }
}

static void read_metadata(const struct kvs_value *value, struct kvs_bucket_info *info, struct places *places)
{
    size_t count = text_is_map(value) ? kvs_value_count(value) : 0;
    struct kvs_header *pairs = place_array(places, count, sizeof(*pairs));

    info->metadata = pairs;
    info->metadata_count = count;
    for (size_t i = 0; i < count; i++) {
        struct kvs_header pair = {.name = place_text(places, kvs_value_key(value, i))};
        pair.value = place_text(places, kvs_value_item(value, i));
        if (pairs != NULL)
            pairs[i] = pair;
    }
}

static void read_info(const struct kvs_value *map, struct kvs_bucket_info *info, struct places *places)
{
    read_plain(map, info);
    info->bucket = place_text(places, kvs_value_member(map, "bucket"));
    info->description = place_text(places, kvs_value_member(map, "description"));
    if (info->description == NULL)
        info->description = "";
    read_placement(kvs_value_member(map, "placement"), info, places);
    read_republish(kvs_value_member(map, "republish"), info, places);
    info->mirror = read_source(kvs_value_member(map, "mirror"), places);
    read_sources(kvs_value_member(map, "sources"), info, places);
    read_metadata(kvs_value_member(map, "metadata"), info, places);
}

enum kvs_code reply_read_bucket_info(const struct kvs_value *result, void *out)
{
    struct kvs_bucket_info measured = {0};
    struct places places = {0};

    if (kvs_value_type(result) != KVS_MAP || !text_is(kvs_value_member(result, "bucket")))
        return KVS_PROTOCOL;
    if (out == NULL)
        return KVS_OK;
    read_info(result, &measured, &places);
    struct kvs_bucket_info *info = calloc(1, sizeof(*info) + places.array_bytes + places.text_bytes);
    if (info == NULL)
        return KVS_NO_MEMORY;
    char *behind = (char *)(info + 1);
    places = (struct places){.arrays = behind, .texts = behind + places.array_bytes};
    read_info(result, info, &places);
    *(struct kvs_bucket_info **)out = info;
    return KVS_OK;
}
