/* The verbs about buckets. */
#include "client/kvctl/kvctl.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Settings ------------------------------------------------------------------------------ */

/* The settings on the command line, and the lists that they point to. */
struct settings {
    struct kvs_bucket_options options;
    const char **tags;
    struct kvs_bucket_source *sources;
    char **source_texts; /* what the mirror and the sources point into; the last is NULL */
    struct kvs_header *metadata;
};

static bool bucket_read_unsigned(const struct invocation *invocation, const char *name, unsigned *number)
{
    uint64_t wide = *number;

    if (!arguments_number(invocation, name, &wide))
        return false;
    if (wide > UINT_MAX)
        return report("--%s is too large", name) == STATUS_OK;
    *number = (unsigned)wide;
    return true;
}

static bool bucket_read_storage(const struct invocation *invocation, enum kvs_storage *storage)
{
    const char *text = arguments_value(invocation, "storage");

    if (text == NULL)
        *storage = KVS_STORAGE_DEFAULT;
    else if (strcmp(text, "file") == 0)
        *storage = KVS_STORAGE_FILE;
    else if (strcmp(text, "memory") == 0)
        *storage = KVS_STORAGE_MEMORY;
    else
        return report("--storage must be file or memory, not '%.100s'", text) == STATUS_OK;
    return true;
}

static bool bucket_read_compression(const struct invocation *invocation, enum kvs_switch *compression)
{
    const char *text = arguments_value(invocation, "compression");

    if (text == NULL)
        *compression = KVS_SWITCH_DEFAULT;
    else if (strcmp(text, "on") == 0)
        *compression = KVS_SWITCH_ON;
    else if (strcmp(text, "off") == 0)
        *compression = KVS_SWITCH_OFF;
    else
        return report("--compression must be on or off, not '%.100s'", text) == STATUS_OK;
    return true;
}

/* Split BUCKET[,domain=NAME][,filter=KEYS] in place. */
static bool bucket_part_source(const char *option, char *text, struct kvs_bucket_source *source)
{
    char *rest = text;

    source->bucket = strsep(&rest, ",");
    while (rest != NULL) {
        const char *part = strsep(&rest, ",");
        if (strncmp(part, "domain=", 7) == 0)
            source->domain = part + 7;
        else if (strncmp(part, "filter=", 7) == 0 && strcmp(option, "source") == 0)
            source->filter = part + 7;
        else
            return report("the bucket of --%s may be followed by ,domain=NAME%s, not by ',%.100s'", option,
                          strcmp(option, "source") == 0 ? " and ,filter=KEYS" : "", part) == STATUS_OK;
    }
    return true;
}

static bool bucket_read_mirror_and_sources(const struct invocation *invocation, struct settings *settings)
{
    const char *mirror = arguments_value(invocation, "mirror");
    const char **values;
    size_t count, copies = 0;
    bool read = false;

    if (!arguments_list(invocation, "source", &values, &count))
        return false;
    settings->sources = calloc(count + 1, sizeof(*settings->sources));
    settings->source_texts = calloc(count + 2, sizeof(*settings->source_texts));
    if (settings->sources == NULL || settings->source_texts == NULL)
        goto no_memory;
    for (size_t i = 0; i < count + (mirror != NULL); i++) {
        bool is_mirror = i == count;
        char *copy = strdup(is_mirror ? mirror : values[i]);
        if (copy == NULL)
            goto no_memory;
        settings->source_texts[copies++] = copy;
        if (!bucket_part_source(is_mirror ? "mirror" : "source", copy,
                                is_mirror ? &settings->options.mirror : &settings->sources[i]))
            goto done;
    }
    settings->options.sources = settings->sources;
    settings->options.source_count = count;
    read = true;
    goto done;

no_memory:
    report("out of memory");
done:
    free(values);
    return read;
}

static bool bucket_settings_read(struct settings *settings, const struct invocation *invocation)
{
    struct kvs_bucket_options *options = &settings->options;

    *settings = (struct settings){.options = KVS_BUCKET_OPTIONS(.timeout_s = invocation->timeout_s)};
    options->description = arguments_value(invocation, "description");
    options->placement_cluster = arguments_value(invocation, "cluster");
    options->republish_source = arguments_value(invocation, "republish-from");
    options->republish_destination = arguments_value(invocation, "republish-to");
    options->force = arguments_flag(invocation, "force");
    options->update = arguments_flag(invocation, "update");
    options->republish_headers_only = arguments_flag(invocation, "republish-headers-only");
    if (!bucket_read_unsigned(invocation, "history", &options->history) ||
        !bucket_read_unsigned(invocation, "replicas", &options->replicas) ||
        !arguments_duration(invocation, "ttl", &options->ttl_s) ||
        !arguments_duration(invocation, "limit-marker-ttl", &options->limit_marker_ttl_s) ||
        !arguments_duration(invocation, "marker-ttl", &options->marker_ttl_s) ||
        !arguments_size(invocation, "max-bytes", &options->max_bytes) ||
        !arguments_size(invocation, "max-value-size", &options->max_value_size) ||
        !bucket_read_storage(invocation, &options->storage) ||
        !bucket_read_compression(invocation, &options->compression) ||
        !arguments_list(invocation, "tag", &settings->tags, &options->placement_tag_count) ||
        !bucket_read_mirror_and_sources(invocation, settings) ||
        !arguments_pairs(invocation, "metadata", &settings->metadata, &options->metadata_count))
        return false;
    options->placement_tags = settings->tags;
    options->metadata = settings->metadata;
    return true;
}

static void bucket_settings_free(struct settings *settings)
{
    free(settings->tags);
    free(settings->sources);
    for (size_t i = 0; settings->source_texts != NULL && settings->source_texts[i] != NULL; i++)
        free(settings->source_texts[i]);
    free(settings->source_texts);
    free(settings->metadata);
}

bool bucket_text_of_setting(const char *name, const struct kvs_value *value, struct short_text *text)
{
    static const struct {
        const char *name;
        bool is_duration;
    } settings[] = {{"ttl", true},    {"limit_marker_ttl", true}, {"marker_ttl", true},
                    {"bytes", false}, {"max_bytes", false},       {"max_value_size", false}};
    int64_t number = kvs_value_integer(value);

    for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++) {
        if (strcmp(name, settings[i].name) != 0 || kvs_value_type(value) != KVS_INTEGER)
            continue;
        if (number <= 0 && strcmp(name, "bytes") != 0)
            *text = (struct short_text){.text = "none"};
        else
            *text = settings[i].is_duration ? text_of_duration(number) : text_of_size((uint64_t)number);
        return true;
    }
    return false;
}

/* A call whose answer is a bucket's info. */
typedef enum kvs_code info_call(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                struct kvs_bucket_info **info);

/* Print what the daemon has answered. */
static enum status bucket_print_tree(const struct invocation *invocation, const struct kvs_value *tree)
{
    if (invocation->json)
        return print_and_free(kvs_value_json(tree));
    print_map(tree, bucket_text_of_setting);
    return STATUS_OK;
}

static enum status bucket_change_settings(struct invocation *invocation, info_call *call)
{
    struct kvs_bucket_info *info = NULL;
    enum status status = STATUS_FAILED;
    struct settings settings;

    if (bucket_settings_read(&settings, invocation))
        status = call(invocation->kvs, invocation->arguments[0], &settings.options, &info) == KVS_OK
                     ? bucket_print_tree(invocation, info->raw)
                     : report_error(kvs_last_error(invocation->kvs));
    kvs_free(info);
    bucket_settings_free(&settings);
    return status;
}

enum status bucket_add(struct invocation *invocation)
{
    return bucket_change_settings(invocation, kvs_bucket_create);
}

enum status bucket_edit(struct invocation *invocation)
{
    return bucket_change_settings(invocation, kvs_bucket_update);
}

/* --- Whole buckets --------------------------------------------------------------------------- */

enum status bucket_compact(struct invocation *invocation)
{
    struct kvs_compact_options options = KVS_COMPACT_OPTIONS(.timeout_s = invocation->timeout_s);
    uint64_t removed = 0;

    if (!arguments_duration(invocation, "older-than", &options.older_than_s))
        return STATUS_FAILED;
    if (kvs_bucket_compact(invocation->kvs, invocation->arguments[0], &options, &removed) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    printf(invocation->json ? "{\"removed\":%" PRIu64 "}\n" : "%" PRIu64 "\n", removed);
    return STATUS_OK;
}

static enum status bucket_print_daemon_info(struct invocation *invocation, const struct kvs_call_options *options)
{
    struct kvs_value *info;

    if (kvs_daemon_info(invocation->kvs, options, &info) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    enum status status = bucket_print_tree(invocation, info);
    kvs_free(info);
    return status;
}

enum status bucket_info(struct invocation *invocation)
{
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = invocation->timeout_s);
    struct kvs_bucket_info *info;

    if (invocation->argument_count == 0)
        return bucket_print_daemon_info(invocation, &options);
    if (kvs_bucket_info(invocation->kvs, invocation->arguments[0], &options, &info) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    enum status status = bucket_print_tree(invocation, info->raw);
    kvs_free(info);
    return status;
}

enum status bucket_rm(struct invocation *invocation)
{
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = invocation->timeout_s);

    if (kvs_bucket_delete(invocation->kvs, invocation->arguments[0], &options) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    if (invocation->json)
        puts("null");
    return STATUS_OK;
}

/* --- Lists ------------------------------------------------------------------------------------ */

/* A limit that is not set is a dash. */
static void bucket_add_limit(struct table *table, bool is_set, struct short_text text)
{
    table_add(table, "%s", is_set ? text.text : "-");
}

/* Add the row of a bucket. If its info cannot be read, the row has the reason. */
static void bucket_add_row(struct table *table, const struct kvs_value *info)
{
    const struct kvs_value *error = kvs_value_member(info, "error");
    int64_t max_bytes = kvs_value_integer(kvs_value_member(info, "max_bytes"));
    int64_t ttl_s = kvs_value_integer(kvs_value_member(info, "ttl"));

    table_add(table, "%s", text_of_value(kvs_value_member(info, "bucket")).text);
    if (error != NULL) {
        for (int column = 1; column < 6; column++)
            table_add(table, "?");
        table_add(table, "%s", text_of_value(kvs_value_member(error, "message")).text);
        return;
    }
    table_add(table, "%" PRIu64, kvs_value_unsigned(kvs_value_member(info, "values")));
    table_add(table, "%s", text_of_size(kvs_value_unsigned(kvs_value_member(info, "bytes"))).text);
    bucket_add_limit(table, max_bytes > 0, text_of_size((uint64_t)max_bytes));
    table_add(table, "%" PRIu64, kvs_value_unsigned(kvs_value_member(info, "history")));
    bucket_add_limit(table, ttl_s > 0, text_of_duration(ttl_s));
    table_add(table, "%s", text_of_value(kvs_value_member(info, "description")).text);
}

static enum status bucket_print_table(struct kvs_value *const *pages, size_t page_count)
{
    static const char *const titles[] = {"BUCKET", "VALUES", "SIZE", "LIMIT", "HISTORY", "TTL", "DESCRIPTION"};
    struct table table;

    table_begin(&table, sizeof(titles) / sizeof(*titles));
    for (size_t i = 0; i < sizeof(titles) / sizeof(*titles); i++)
        table_add(&table, "%s", titles[i]);
    for (size_t page = 0; page < page_count; page++) {
        for (size_t i = 0; i < kvs_value_count(pages[page]); i++)
            bucket_add_row(&table, kvs_value_item(pages[page], i));
    }
    return table_print(&table);
}

static enum status bucket_print_infos_json(struct kvs_value *const *pages, size_t page_count)
{
    const char *before = "[";

    for (size_t page = 0; page < page_count; page++) {
        for (size_t i = 0; i < kvs_value_count(pages[page]); i++) {
            char *json = kvs_value_json(kvs_value_item(pages[page], i));
            if (json == NULL)
                return report("out of memory for the output");
            printf("%s%s", before, json);
            before = ",\n";
            kvs_free(json);
        }
    }
    puts(*before == '[' ? "[]" : "]");
    return STATUS_OK;
}

/* Read all pages of infos. Free the pages and the array. */
static enum status bucket_read_infos(struct invocation *invocation, struct kvs_list_options options,
                                     struct kvs_value ***pages, size_t *page_count)
{
    struct kvs_value *page;
    char last[256]; /* a bucket's name has up to 251 bytes */

    for (;;) {
        if (kvs_bucket_list_infos(invocation->kvs, &options, &page) != KVS_OK)
            return report_error(kvs_last_error(invocation->kvs));
        struct kvs_value **larger = realloc(*pages, (*page_count + 1) * sizeof(struct kvs_value *));
        if (larger == NULL) {
            kvs_free(page);
            return report("out of memory");
        }
        *pages = larger;
        larger[(*page_count)++] = page;
        if (kvs_value_count(page) == 0)
            return STATUS_OK;
        size_t size = 0;
        const struct kvs_value *info = kvs_value_item(page, kvs_value_count(page) - 1);
        const char *name = kvs_value_bytes(kvs_value_member(info, "bucket"), &size);
        snprintf(last, sizeof(last), "%.*s", (int)size, name != NULL ? name : ""); /* its bytes do not end in a NUL */
        options.after = last;
    }
}

static enum status bucket_print_infos(struct invocation *invocation, const struct kvs_list_options *options)
{
    struct kvs_value **pages = NULL;
    size_t page_count = 0;
    enum status status = bucket_read_infos(invocation, *options, &pages, &page_count);

    if (status == STATUS_OK)
        status = invocation->json ? bucket_print_infos_json(pages, page_count) : bucket_print_table(pages, page_count);
    for (size_t i = 0; i < page_count; i++)
        kvs_free(pages[i]);
    free(pages);
    return status;
}

enum status bucket_ls(struct invocation *invocation)
{
    struct kvs_list_options options =
        KVS_LIST_OPTIONS(.filter = invocation->argument_count > 0 ? invocation->arguments[0] : NULL,
                         .timeout_s = invocation->timeout_s);
    char **names;
    size_t count;

    if (arguments_flag(invocation, "long") ||
        (invocation->terminal && !invocation->json && !arguments_flag(invocation, "names")))
        return bucket_print_infos(invocation, &options);
    if (kvs_bucket_list(invocation->kvs, &options, &names, &count) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    if (invocation->json) {
        /* Bucket names have only letters, digits, - and _. */
        putchar('[');
        for (size_t i = 0; i < count; i++)
            printf("%s\"%s\"", i > 0 ? "," : "", names[i]);
        puts("]");
    } else {
        for (size_t i = 0; i < count; i++)
            print_line(invocation, names[i]);
    }
    kvs_free(names);
    return STATUS_OK;
}
