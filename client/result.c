#include "client/result.h"

#include <stdlib.h>
#include <string.h>

/* --- Text that is copied behind the structs of one block -------------------------------------- */

/* The bytes that value's text takes behind the structs, with its NUL. */
static size_t text_space(const struct kvs_value *value)
{
    size_t size;

    kvs_value_bytes(value, &size);
    return size + 1;
}

/* Copies value's text to *place, which moves on. */
static char *copy_text(char **place, const struct kvs_value *value)
{
    size_t size;
    const char *bytes = kvs_value_bytes(value, &size);
    char *copy = *place;

    if (size > 0)
        memcpy(copy, bytes, size);
    copy[size] = '\0';
    *place += size + 1;
    return copy;
}

static bool is_text(const struct kvs_value *value)
{
    return kvs_value_bytes(value, NULL) != NULL;
}

/* A map of str to str. */
static bool is_header_map(const struct kvs_value *value)
{
    if (kvs_value_type(value) != KVS_MAP)
        return false;
    for (size_t i = 0; i < kvs_value_count(value); i++) {
        if (!is_text(kvs_value_key(value, i)) || !is_text(kvs_value_item(value, i)))
            return false;
    }
    return true;
}

/* --- Entries ------------------------------------------------------------------------------------ */

/* Where the parts of the entries being read go, all in one block. */
struct entry_places {
    struct kvs_header *headers;
    char *text;
};

static bool read_operation(const struct kvs_value *name, enum kvs_operation *operation)
{
    static const char *const names[] = {
        [KVS_OPERATION_PUT] = "put", [KVS_OPERATION_DELETE] = "delete", [KVS_OPERATION_PURGE] = "purge"};
    size_t size;
    const char *bytes = kvs_value_bytes(name, &size);

    for (size_t i = 0; bytes != NULL && i < sizeof(names) / sizeof(*names); i++) {
        if (size == strlen(names[i]) && memcmp(bytes, names[i], size) == 0) {
            *operation = (enum kvs_operation)i;
            return true;
        }
    }
    return false;
}

static bool is_entry(const struct kvs_value *value)
{
    const struct kvs_value *headers = kvs_value_member(value, "headers");
    enum kvs_operation operation;

    return is_text(kvs_value_member(value, "key")) && is_text(kvs_value_member(value, "value")) &&
           kvs_value_unsigned(kvs_value_member(value, "revision")) > 0 &&
           kvs_value_type(kvs_value_member(value, "created")) == KVS_INTEGER &&
           read_operation(kvs_value_member(value, "operation"), &operation) &&
           (kvs_value_type(headers) == KVS_NIL || is_header_map(headers));
}

static void fill_headers(struct kvs_entry *entry, const struct kvs_value *headers, struct entry_places *places)
{
    entry->header_count = kvs_value_count(headers);
    if (entry->header_count == 0)
        return;
    entry->headers = places->headers;
    for (size_t i = 0; i < entry->header_count; i++) {
        places->headers->name = copy_text(&places->text, kvs_value_key(headers, i));
        places->headers->value = copy_text(&places->text, kvs_value_item(headers, i));
        places->headers++;
    }
}

static void fill_entry(struct kvs_entry *entry, const struct kvs_value *value, struct entry_places *places)
{
    const struct kvs_value *content = kvs_value_member(value, "value");

    memset(entry, 0, sizeof(*entry));
    kvs_value_bytes(content, &entry->value_size);
    entry->key = copy_text(&places->text, kvs_value_member(value, "key"));
    entry->value = copy_text(&places->text, content);
    entry->revision = kvs_value_unsigned(kvs_value_member(value, "revision"));
    entry->created_us = kvs_value_integer(kvs_value_member(value, "created"));
    read_operation(kvs_value_member(value, "operation"), &entry->operation);
    fill_headers(entry, kvs_value_member(value, "headers"), places);
}

/* Reads count entries, the one that value is or those that it contains, into one block. */
static enum kvs_code read_entries(const struct kvs_value *value, bool is_array, struct kvs_entry **entries,
                                  size_t *count)
{
    size_t entry_count = is_array ? kvs_value_count(value) : 1, header_count = 0, text = 0;

    for (size_t i = 0; i < entry_count; i++) {
        const struct kvs_value *item = is_array ? kvs_value_item(value, i) : value;
        if (!is_entry(item))
            return KVS_PROTOCOL;
        const struct kvs_value *headers = kvs_value_member(item, "headers");
        text += text_space(kvs_value_member(item, "key")) + text_space(kvs_value_member(item, "value"));
        header_count += kvs_value_count(headers);
        for (size_t j = 0; j < kvs_value_count(headers); j++)
            text += text_space(kvs_value_key(headers, j)) + text_space(kvs_value_item(headers, j));
    }

    size_t header_bytes = header_count * sizeof(struct kvs_header);
    struct kvs_entry *block = malloc((entry_count + 1) * sizeof(*block) + header_bytes + text);
    if (block == NULL)
        return KVS_NO_MEMORY;
    struct entry_places places = {.headers = (struct kvs_header *)(void *)(block + entry_count),
                                  .text = (char *)(block + entry_count) + header_bytes};
    for (size_t i = 0; i < entry_count; i++)
        fill_entry(&block[i], is_array ? kvs_value_item(value, i) : value, &places);
    *entries = block;
    if (count != NULL)
        *count = entry_count;
    return KVS_OK;
}

struct kvs_entry *kvs_value_entry(const struct kvs_value *value)
{
    struct kvs_entry *entry = NULL;

    return read_entries(value, false, &entry, NULL) == KVS_OK ? entry : NULL;
}

enum kvs_code result_read_entry(const struct kvs_value *result, void *out)
{
    if (kvs_value_type(result) == KVS_NIL)
        return KVS_OK;
    return read_entries(result, false, out, NULL);
}

enum kvs_code result_read_entries(const struct kvs_value *result, void *out)
{
    struct result_entries *wanted = out;

    if (kvs_value_type(result) != KVS_ARRAY)
        return KVS_PROTOCOL;
    return read_entries(result, true, wanted->entries, wanted->count);
}

/* --- Other results -------------------------------------------------------------------------------- */

enum kvs_code result_read_revision(const struct kvs_value *result, void *out)
{
    uint64_t revision = kvs_value_unsigned(result);

    if (revision == 0)
        return KVS_PROTOCOL;
    if (out != NULL)
        *(uint64_t *)out = revision;
    return KVS_OK;
}

enum kvs_code result_read_strings(const struct kvs_value *result, void *out)
{
    struct result_strings *wanted = out;
    size_t count = kvs_value_count(result), text = 0;

    if (kvs_value_type(result) != KVS_ARRAY)
        return KVS_PROTOCOL;
    for (size_t i = 0; i < count; i++) {
        if (!is_text(kvs_value_item(result, i)))
            return KVS_PROTOCOL;
        text += text_space(kvs_value_item(result, i));
    }
    char **block = malloc((count + 1) * sizeof(*block) + text);
    if (block == NULL)
        return KVS_NO_MEMORY;
    char *place = (char *)(block + count + 1);
    for (size_t i = 0; i < count; i++)
        block[i] = copy_text(&place, kvs_value_item(result, i));
    block[count] = NULL;
    *wanted->strings = block;
    *wanted->count = count;
    return KVS_OK;
}

enum kvs_code result_read_json(const struct kvs_value *result, void *out)
{
    if (kvs_value_type(result) == KVS_NIL)
        return KVS_OK;
    return (*(char **)out = kvs_value_json(result)) != NULL ? KVS_OK : KVS_NO_MEMORY;
}

enum kvs_code result_read_tree(const struct kvs_value *result, void *out)
{
    if (kvs_value_type(result) != KVS_MAP)
        return KVS_PROTOCOL;
    return (*(struct kvs_value **)out = kvs_value_copy(result)) != NULL ? KVS_OK : KVS_NO_MEMORY;
}

/* A setting that the map may lack, or that says 'no limit' with a number below 0. */
static int64_t setting(const struct kvs_value *info, const char *name)
{
    int64_t value = kvs_value_integer(kvs_value_member(info, name));

    return value > 0 ? value : 0;
}

static bool says(const struct kvs_value *value, const char *word)
{
    size_t size;
    const char *bytes = kvs_value_bytes(value, &size);

    return bytes != NULL && size == strlen(word) && memcmp(bytes, word, size) == 0;
}

enum kvs_code result_read_bucket_info(const struct kvs_value *result, void *out)
{
    const struct kvs_value *bucket = kvs_value_member(result, "bucket");
    const struct kvs_value *description = kvs_value_member(result, "description");

    if (kvs_value_type(result) != KVS_MAP)
        return KVS_PROTOCOL;
    if (out == NULL)
        return KVS_OK;
    struct kvs_bucket_info *info = calloc(1, sizeof(*info) + text_space(bucket) + text_space(description));
    if (info == NULL)
        return KVS_NO_MEMORY;
    char *place = (char *)(info + 1);
    info->bucket = copy_text(&place, bucket);
    info->description = copy_text(&place, description);
    info->values = kvs_value_unsigned(kvs_value_member(result, "values"));
    info->bytes = kvs_value_unsigned(kvs_value_member(result, "bytes"));
    info->last_revision = kvs_value_unsigned(kvs_value_member(result, "last_revision"));
    info->history = (unsigned)setting(result, "history");
    info->replicas = (unsigned)setting(result, "replicas");
    info->ttl_s = setting(result, "ttl");
    info->max_value_size = setting(result, "max_value_size");
    info->max_bytes = setting(result, "max_bytes");
    info->limit_marker_ttl_s = setting(result, "limit_marker_ttl");
    info->storage = says(kvs_value_member(result, "storage"), "memory") ? KVS_STORAGE_MEMORY : KVS_STORAGE_FILE;
    info->compression = kvs_value_boolean(kvs_value_member(result, "compression"));
    *(struct kvs_bucket_info **)out = info;
    return KVS_OK;
}
