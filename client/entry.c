#include "client/entry.h"

#include "client/result.h"
#include "client/text.h"

#include <stdlib.h>
#include <string.h>

static const char *const operation_names[] = {
    [KVS_OPERATION_PUT] = "put", [KVS_OPERATION_DELETE] = "delete", [KVS_OPERATION_PURGE] = "purge"};

const char *entry_operation_name(enum kvs_operation operation)
{
    return operation_names[operation];
}

static bool read_operation(const struct kvs_value *name, enum kvs_operation *operation)
{
    size_t size;
    const char *bytes = kvs_value_bytes(name, &size);

    for (size_t i = 0; bytes != NULL && i < sizeof(operation_names) / sizeof(*operation_names); i++) {
        if (size == strlen(operation_names[i]) && memcmp(bytes, operation_names[i], size) == 0) {
            *operation = (enum kvs_operation)i;
            return true;
        }
    }
    return false;
}

static bool has_value(const struct kvs_value *value, bool of_watch)
{
    return text_is(kvs_value_member(value, "value")) ||
           (of_watch && kvs_value_type(kvs_value_member(value, "size")) == KVS_INTEGER);
}

static bool has_revision(const struct kvs_value *value, bool of_watch)
{
    const struct kvs_value *revision = kvs_value_member(value, "revision");

    return kvs_value_unsigned(revision) > 0 ||
           (of_watch && kvs_value_type(revision) == KVS_INTEGER && kvs_value_integer(revision) == 0);
}

static bool is_entry(const struct kvs_value *value, bool of_watch)
{
    const struct kvs_value *headers = kvs_value_member(value, "headers");
    enum kvs_operation operation;

    return text_is(kvs_value_member(value, "key")) && has_value(value, of_watch) && has_revision(value, of_watch) &&
           kvs_value_type(kvs_value_member(value, "created")) == KVS_INTEGER &&
           read_operation(kvs_value_member(value, "operation"), &operation) &&
           (kvs_value_type(headers) == KVS_NIL || text_is_map(headers));
}

bool entry_measure(const struct kvs_value *value, struct entry_space *space)
{
    if (!is_entry(value, space->of_watch))
        return false;
    const struct kvs_value *headers = kvs_value_member(value, "headers");
    space->entries++;
    space->headers += kvs_value_count(headers);
    space->text_bytes += text_space(kvs_value_member(value, "key")) + text_space(kvs_value_member(value, "value"));
    for (size_t i = 0; i < kvs_value_count(headers); i++)
        space->text_bytes += text_space(kvs_value_key(headers, i)) + text_space(kvs_value_item(headers, i));
    return true;
}

size_t entry_space_bytes(const struct entry_space *space)
{
    return space->entries * sizeof(struct kvs_entry) + space->headers * sizeof(struct kvs_header) + space->text_bytes;
}

struct entry_places entry_lay_out(void *block, const struct entry_space *space)
{
    struct entry_places places = {.entries = block};

    places.headers = (struct kvs_header *)(void *)(places.entries + space->entries);
    places.text = (char *)(places.headers + space->headers);
    return places;
}

static void read_headers(struct kvs_entry *entry, const struct kvs_value *headers, struct entry_places *places)
{
    entry->header_count = kvs_value_count(headers);
    if (entry->header_count == 0)
        return;
    entry->headers = places->headers;
    for (size_t i = 0; i < entry->header_count; i++) {
        places->headers->name = text_copy(&places->text, kvs_value_key(headers, i));
        places->headers->value = text_copy(&places->text, kvs_value_item(headers, i));
        places->headers++;
    }
}

struct kvs_entry *entry_read(const struct kvs_value *value, struct entry_places *places)
{
    const struct kvs_value *content = kvs_value_member(value, "value");
    struct kvs_entry *entry = places->entries++;

    memset(entry, 0, sizeof(*entry));
    entry->key = text_copy(&places->text, kvs_value_member(value, "key"));
    if (text_is(content)) {
        kvs_value_bytes(content, &entry->value_size);
        entry->value = text_copy(&places->text, content);
    } else {
        entry->value_size = (size_t)kvs_value_unsigned(kvs_value_member(value, "size"));
    }
    entry->revision = kvs_value_unsigned(kvs_value_member(value, "revision"));
    entry->created_us = kvs_value_integer(kvs_value_member(value, "created"));
    read_operation(kvs_value_member(value, "operation"), &entry->operation);
    read_headers(entry, kvs_value_member(value, "headers"), places);
    return entry;
}

/* --- One, and an array -------------------------------------------------------------------------- */

struct kvs_entry *kvs_value_entry(const struct kvs_value *value)
{
    struct kvs_entry *entry = NULL;

    return kvs_value_type(value) == KVS_MAP && result_read_entry(value, &entry) == KVS_OK ? entry : NULL;
}

enum kvs_code result_read_entry(const struct kvs_value *result, void *out)
{
    struct entry_space space = {0};

    if (kvs_value_type(result) == KVS_NIL)
        return KVS_OK;
    if (!entry_measure(result, &space))
        return KVS_PROTOCOL;
    void *block = malloc(entry_space_bytes(&space));
    if (block == NULL)
        return KVS_NO_MEMORY;
    struct entry_places places = entry_lay_out(block, &space);
    *(struct kvs_entry **)out = entry_read(result, &places);
    return KVS_OK;
}

enum kvs_code result_read_entries(const struct kvs_value *result, void *out)
{
    struct result_entries *wanted = out;
    struct entry_space space = {0};

    if (kvs_value_type(result) != KVS_ARRAY)
        return KVS_PROTOCOL;
    for (size_t i = 0; i < kvs_value_count(result); i++) {
        if (!entry_measure(kvs_value_item(result, i), &space))
            return KVS_PROTOCOL;
    }
    void *block = malloc(entry_space_bytes(&space) + 1); /* an empty array is a block, too */
    if (block == NULL)
        return KVS_NO_MEMORY;
    struct entry_places places = entry_lay_out(block, &space);
    *wanted->entries = block;
    *wanted->count = space.entries;
    for (size_t i = 0; i < space.entries; i++)
        entry_read(kvs_value_item(result, i), &places);
    return KVS_OK;
}
