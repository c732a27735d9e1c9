#include "client/kvctl/import.h"

#include <stdlib.h>
#include <string.h>

/* Read the next item of an array of strings. False at the end, or with the reason in json->wrong. */
static bool import_next_item(struct json *json, const char **text)
{
    size_t size;

    json->at += strspn(json->at, " \t[,");
    return *json->at != ']' && (*text = json_read_string(json, &size)) != NULL;
}

static bool import_read_tags(struct import_settings *settings, char *text)
{
    struct json json = {.at = text};
    const char *tag;

    while (import_next_item(&json, &tag)) {
        size_t count = settings->options.placement_tag_count;
        const char **larger = realloc((void *)settings->tags, (count + 1) * sizeof(*larger));
        if (larger == NULL)
            return false;
        settings->tags = larger;
        settings->tags[settings->options.placement_tag_count++] = tag;
    }
    settings->options.placement_tags = settings->tags;
    return json.wrong == NULL;
}

/* Members of nested objects are read with the object's name before theirs. */
static bool import_read_setting(struct import_settings *settings, const char *object, const char *name, char *text);

static bool import_read_object(struct import_settings *settings, const char *object, char *text)
{
    struct json json = {.at = text};
    const char *bytes;
    size_t size;
    char *name;

    if (!json_begin_object(&json))
        return false;
    while (json_next_member(&json, &name, &size) && json_read_member(&json, &bytes, &size)) {
        if (!import_read_setting(settings, object, name, (char *)bytes))
            return false;
    }
    return json.wrong == NULL;
}

static bool import_add_metadata(struct import_settings *settings, const char *name, const char *value)
{
    size_t count = settings->options.metadata_count;
    struct kvs_header *larger = realloc(settings->metadata, (count + 1) * sizeof(*larger));

    if (larger == NULL)
        return false;
    settings->metadata = larger;
    settings->metadata[count] = (struct kvs_header){.name = name, .value = value};
    settings->options.metadata = settings->metadata;
    settings->options.metadata_count++;
    return true;
}

/* A limit of 0 means none, which is -1 in the options. */
static int64_t import_read_limit(const char *text)
{
    int64_t limit = strtoll(text, NULL, 10);

    return limit > 0 ? limit : -1;
}

static bool import_read_number(struct kvs_bucket_options *options, const char *name, const char *text)
{
    if (strcmp(name, "history") == 0)
        options->history = (unsigned)strtoul(text, NULL, 10);
    else if (strcmp(name, "replicas") == 0)
        options->replicas = (unsigned)strtoul(text, NULL, 10);
    else if (strcmp(name, "ttl") == 0)
        options->ttl_s = import_read_limit(text);
    else if (strcmp(name, "max_value_size") == 0)
        options->max_value_size = import_read_limit(text);
    else if (strcmp(name, "max_bytes") == 0)
        options->max_bytes = import_read_limit(text);
    else if (strcmp(name, "limit_marker_ttl") == 0)
        options->limit_marker_ttl_s = import_read_limit(text);
    else if (strcmp(name, "marker_ttl") == 0)
        options->marker_ttl_s = import_read_limit(text);
    else
        return false;
    return true;
}

static bool import_read_setting(struct import_settings *settings, const char *object, const char *name, char *text)
{
    struct kvs_bucket_options *options = &settings->options;

    if (strcmp(object, "metadata") == 0)
        return import_add_metadata(settings, name, text);
    if (strcmp(object, "placement") == 0) {
        if (strcmp(name, "cluster") == 0)
            options->placement_cluster = text;
        return strcmp(name, "tags") != 0 || import_read_tags(settings, text);
    }
    if (strcmp(object, "republish") == 0) {
        if (strcmp(name, "destination") == 0)
            options->republish_destination = text;
        else if (strcmp(name, "source") == 0)
            options->republish_source = text;
        else
            options->republish_headers_only |= *text == 't';
        return true;
    }
    if (import_read_number(options, name, text))
        return true;
    if (strcmp(name, "description") == 0)
        options->description = text;
    else if (strcmp(name, "storage") == 0)
        options->storage = strcmp(text, "memory") == 0 ? KVS_STORAGE_MEMORY : KVS_STORAGE_FILE;
    else if (strcmp(name, "compression") == 0)
        options->compression = *text == 't' ? KVS_SWITCH_ON : KVS_SWITCH_OFF;
    else if (strcmp(name, "last_revision") == 0)
        settings->last_revision = strtoull(text, NULL, 10);
    else if (strcmp(name, "mirror") == 0 || strcmp(name, "sources") == 0)
        settings->has_origin = true;
    else if (strcmp(name, "metadata") == 0 || strcmp(name, "placement") == 0 || strcmp(name, "republish") == 0)
        return import_read_object(settings, name, text);
    return true;
}

bool import_settings_read(struct import_settings *settings, const struct export_header *header)
{
    *settings =
        (struct import_settings){.options = KVS_BUCKET_OPTIONS(.timeout_s = 0), .has_history = header->has_history};
    return import_read_object(settings, "", (char *)header->settings) ||
           report("the settings in the first line of the export cannot be read") == STATUS_OK;
}

void import_settings_free(struct import_settings *settings)
{
    free((void *)settings->tags);
    free(settings->metadata);
    *settings = (struct import_settings){0};
}
