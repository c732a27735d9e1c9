/* A bucket's info, from the daemon's map into one block. */
#include "client/lib/reply.h"
#include "client/lib/text.h"
#include "client/lib/value.h"

#include <stdlib.h>
#include <string.h>

/*
 * Where the info's arrays and text are placed. The same functions read the map twice: first with NULL, to measure the
 * sizes, then with the parts of the block.
 */
struct bucket_info_places {
    char *arrays;
    size_t array_bytes;
    char *texts;
    size_t text_bytes;
};

static void *bucket_info_place_array(struct bucket_info_places *places, size_t count, size_t item_bytes)
{
    void *place = places->arrays != NULL ? places->arrays + places->array_bytes : NULL;

    places->array_bytes += count * item_bytes;
    return place;
}

/* NULL if value is not text. */
static const char *bucket_info_place_text(struct bucket_info_places *places, const struct kvs_value *value)
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

/* Return a setting; 0 if the map lacks it or has a negative number for "no limit". */
static int64_t bucket_info_setting(const struct kvs_value *map, const char *name)
{
    int64_t value = kvs_value_integer(kvs_value_member(map, name));

    return value > 0 ? value : 0;
}

static bool bucket_info_is_word(const struct kvs_value *value, const char *word)
{
    size_t size;
    const char *bytes = kvs_value_bytes(value, &size);

    return bytes != NULL && size == strlen(word) && memcmp(bytes, word, size) == 0;
}

static void bucket_info_read_plain(const struct kvs_value *map, struct kvs_bucket_info *info)
{
    info->values = kvs_value_unsigned(kvs_value_member(map, "values"));
    info->bytes = kvs_value_unsigned(kvs_value_member(map, "bytes"));
    info->last_revision = kvs_value_unsigned(kvs_value_member(map, "last_revision"));
    info->history = (unsigned)bucket_info_setting(map, "history");
    info->replicas = (unsigned)bucket_info_setting(map, "replicas");
    info->ttl_s = bucket_info_setting(map, "ttl");
    info->max_value_size = bucket_info_setting(map, "max_value_size");
    info->max_bytes = bucket_info_setting(map, "max_bytes");
    info->limit_marker_ttl_s = bucket_info_setting(map, "limit_marker_ttl");
    info->marker_ttl_s = bucket_info_setting(map, "marker_ttl");
    info->storage =
        bucket_info_is_word(kvs_value_member(map, "storage"), "memory") ? KVS_STORAGE_MEMORY : KVS_STORAGE_FILE;
    info->compression = kvs_value_boolean(kvs_value_member(map, "compression"));
    info->allows_ttl = kvs_value_boolean(kvs_value_member(map, "allows_ttl"));
    info->allows_atomic = kvs_value_boolean(kvs_value_member(map, "allows_atomic"));
}

static void bucket_info_read_placement(const struct kvs_value *placement, struct kvs_bucket_info *info,
                                       struct bucket_info_places *places)
{
    const struct kvs_value *value = kvs_value_member(placement, "tags");
    size_t count = kvs_value_type(value) == KVS_ARRAY ? kvs_value_count(value) : 0;
    const char **tags = bucket_info_place_array(places, count, sizeof(*tags));

    info->placement_cluster = bucket_info_place_text(places, kvs_value_member(placement, "cluster"));
    info->placement_tags = tags;
    info->placement_tag_count = count;
    for (size_t i = 0; i < count; i++) {
        const char *tag = bucket_info_place_text(places, kvs_value_item(value, i));
        if (tags != NULL)
            tags[i] = tag != NULL ? tag : "";
    }
}

static void bucket_info_read_republish(const struct kvs_value *republish, struct kvs_bucket_info *info,
                                       struct bucket_info_places *places)
{
    info->republish_destination = bucket_info_place_text(places, kvs_value_member(republish, "destination"));
    info->republish_source = bucket_info_place_text(places, kvs_value_member(republish, "source"));
    info->republish_headers_only = kvs_value_boolean(kvs_value_member(republish, "headers_only"));
}

static struct kvs_bucket_source bucket_info_read_source(const struct kvs_value *value,
                                                        struct bucket_info_places *places)
{
    struct kvs_bucket_source source = {.bucket = bucket_info_place_text(places, kvs_value_member(value, "bucket"))};

    source.domain = bucket_info_place_text(places, kvs_value_member(value, "domain"));
    source.filter = bucket_info_place_text(places, kvs_value_member(value, "filter"));
    return source;
}

static void bucket_info_read_sources(const struct kvs_value *value, struct kvs_bucket_info *info,
                                     struct bucket_info_places *places)
{
    size_t count = kvs_value_type(value) == KVS_ARRAY ? kvs_value_count(value) : 0;
    struct kvs_bucket_source *sources = bucket_info_place_array(places, count, sizeof(*sources));

    info->sources = sources;
    info->source_count = count;
    for (size_t i = 0; i < count; i++) {
        struct kvs_bucket_source source = bucket_info_read_source(kvs_value_item(value, i), places);
        if (sources != NULL)
            sources[i] = source;
    }
}

static void bucket_info_read_metadata(const struct kvs_value *value, struct kvs_bucket_info *info,
                                      struct bucket_info_places *places)
{
    size_t count = text_is_map(value) ? kvs_value_count(value) : 0;
    struct kvs_header *pairs = bucket_info_place_array(places, count, sizeof(*pairs));

    info->metadata = pairs;
    info->metadata_count = count;
    for (size_t i = 0; i < count; i++) {
        struct kvs_header pair = {.name = bucket_info_place_text(places, kvs_value_key(value, i))};
        pair.value = bucket_info_place_text(places, kvs_value_item(value, i));
        if (pairs != NULL)
            pairs[i] = pair;
    }
}

static void bucket_info_read_info(const struct kvs_value *map, struct kvs_bucket_info *info,
                                  struct bucket_info_places *places)
{
    bucket_info_read_plain(map, info);
    info->bucket = bucket_info_place_text(places, kvs_value_member(map, "bucket"));
    info->description = bucket_info_place_text(places, kvs_value_member(map, "description"));
    if (info->description == NULL)
        info->description = "";
    bucket_info_read_placement(kvs_value_member(map, "placement"), info, places);
    bucket_info_read_republish(kvs_value_member(map, "republish"), info, places);
    info->mirror = bucket_info_read_source(kvs_value_member(map, "mirror"), places);
    bucket_info_read_sources(kvs_value_member(map, "sources"), info, places);
    bucket_info_read_metadata(kvs_value_member(map, "metadata"), info, places);
}

enum kvs_code reply_read_bucket_info(const struct kvs_value *result, void *out)
{
    struct kvs_bucket_info measured = {0};
    struct bucket_info_places places = {0};

    if (kvs_value_type(result) != KVS_MAP || !text_is(kvs_value_member(result, "bucket")))
        return KVS_PROTOCOL;
    if (out == NULL)
        return KVS_OK;
    bucket_info_read_info(result, &measured, &places);
    size_t array_bytes = places.array_bytes, raw_bytes = value_copy_bytes(result);
    struct kvs_bucket_info *info = calloc(1, sizeof(*info) + array_bytes + raw_bytes + places.text_bytes);
    if (info == NULL)
        return KVS_NO_MEMORY;
    char *rest = (char *)(info + 1);
    places = (struct bucket_info_places){.arrays = rest, .texts = rest + array_bytes + raw_bytes};
    bucket_info_read_info(result, info, &places);
    info->raw = value_copy_to(rest + array_bytes, result);
    *(struct kvs_bucket_info **)out = info;
    return KVS_OK;
}
