#include "client/lib/entry.h"

#include "client/lib/reply.h"
#include "client/lib/text.h"

#include <stdlib.h>
#include <string.h>

static const char *const operation_names[] = {
    [KVS_OPERATION_PUT] = "put", [KVS_OPERATION_DELETE] = "delete", [KVS_OPERATION_PURGE] = "purge"};

const char *entry_operation_name(enum kvs_operation operation)
{
    return operation_names[operation];
}

/* The members of an entry's map; NULL if missing. */
struct members {
    const struct kvs_value *key, *value, *size, *revision, *created, *operation, *headers, *ttl, *expires, *lease,
        *previous, *previous_value;
};

static bool entry_is_named(const char *name, size_t length, const char *wanted)
{
    return memcmp(name, wanted, length) == 0;
}

/* Return the member with this name, or NULL. */
static const struct kvs_value **entry_find_member(struct members *members, const char *name, size_t length)
{
    switch (length) {
    case 3:
        if (entry_is_named(name, length, "key"))
            return &members->key;
        return entry_is_named(name, length, "ttl") ? &members->ttl : NULL;
    case 4:
        return entry_is_named(name, length, "size") ? &members->size : NULL;
    case 5:
        if (entry_is_named(name, length, "value"))
            return &members->value;
        return entry_is_named(name, length, "lease") ? &members->lease : NULL;
    case 7:
        if (entry_is_named(name, length, "created"))
            return &members->created;
        if (entry_is_named(name, length, "expires"))
            return &members->expires;
        return entry_is_named(name, length, "headers") ? &members->headers : NULL;
    case 8:
        if (entry_is_named(name, length, "revision"))
            return &members->revision;
        return entry_is_named(name, length, "previous") ? &members->previous : NULL;
    case 9:
        return entry_is_named(name, length, "operation") ? &members->operation : NULL;
    case 14:
        return entry_is_named(name, length, "previous_value") ? &members->previous_value : NULL;
    default:
        return NULL;
    }
}

static void entry_read_members(const struct kvs_value *map, struct members *members)
{
    *members = (struct members){0};
    for (size_t i = 0; i < kvs_value_count(map); i++) {
        size_t length;
        const char *name = kvs_value_bytes(kvs_value_key(map, i), &length);
        const struct kvs_value **member = name != NULL ? entry_find_member(members, name, length) : NULL;
        if (member != NULL && *member == NULL)
            *member = kvs_value_item(map, i);
    }
}

static bool entry_read_operation(const struct kvs_value *name, enum kvs_operation *operation)
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

static bool entry_has_value(const struct members *members, bool of_watch)
{
    return text_is(members->value) || (of_watch && kvs_value_type(members->size) == KVS_INTEGER);
}

/* A marker has no revision if its key vanished with its bucket. */
static bool entry_has_revision(const struct members *members, enum kvs_operation operation)
{
    return kvs_value_unsigned(members->revision) > 0 ||
           (operation != KVS_OPERATION_PUT && kvs_value_type(members->revision) == KVS_INTEGER &&
            kvs_value_integer(members->revision) == 0);
}

static bool entry_is_valid(const struct members *members, bool of_watch)
{
    enum kvs_operation operation;

    return text_is(members->key) && entry_has_value(members, of_watch) &&
           entry_read_operation(members->operation, &operation) && entry_has_revision(members, operation) &&
           kvs_value_type(members->created) == KVS_INTEGER &&
           (kvs_value_type(members->lease) == KVS_NIL || text_is(members->lease)) &&
           (kvs_value_type(members->headers) == KVS_NIL || text_is_map(members->headers));
}

bool entry_measure(const struct kvs_value *value, struct entry_space *space)
{
    struct members members;

    entry_read_members(value, &members);
    if (!entry_is_valid(&members, space->of_watch))
        return false;
    space->entries++;
    space->headers += kvs_value_count(members.headers);
    space->text_bytes += text_space(members.key) + text_space(members.value);
    if (text_is(members.lease))
        space->text_bytes += text_space(members.lease);
    if (text_is(members.previous_value))
        space->text_bytes += text_space(members.previous_value);
    for (size_t i = 0; i < kvs_value_count(members.headers); i++)
        space->text_bytes +=
            text_space(kvs_value_key(members.headers, i)) + text_space(kvs_value_item(members.headers, i));
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

static void entry_read_headers(struct kvs_entry *entry, const struct kvs_value *headers, struct entry_places *places)
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
    struct kvs_entry *entry = places->entries++;
    struct members members;

    memset(entry, 0, sizeof(*entry));
    entry_read_members(value, &members);
    entry->key = text_copy(&places->text, members.key);
    if (text_is(members.value)) {
        kvs_value_bytes(members.value, &entry->value_size);
        entry->value = text_copy(&places->text, members.value);
    } else {
        entry->value_size = (size_t)kvs_value_unsigned(members.size);
    }
    entry->revision = kvs_value_unsigned(members.revision);
    entry->created_us = kvs_value_integer(members.created);
    entry_read_operation(members.operation, &entry->operation);
    entry->ttl_s = kvs_value_integer(members.ttl);
    entry->expires_us = kvs_value_integer(members.expires);
    if (text_is(members.lease))
        entry->lease = text_copy(&places->text, members.lease);
    entry->has_previous = kvs_value_type(members.previous) == KVS_INTEGER;
    entry->previous = kvs_value_unsigned(members.previous);
    if (text_is(members.previous_value)) {
        kvs_value_bytes(members.previous_value, &entry->previous_size);
        entry->previous_value = text_copy(&places->text, members.previous_value);
    }
    entry_read_headers(entry, members.headers, places);
    return entry;
}

/* --- One, and an array -------------------------------------------------------------------------- */

static enum kvs_code entry_read_value(const struct kvs_value *result, bool of_watch, void *out)
{
    struct entry_space space = {.of_watch = of_watch};

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

struct kvs_entry *kvs_value_entry(const struct kvs_value *value)
{
    struct kvs_entry *entry = NULL;

    return kvs_value_type(value) == KVS_MAP && entry_read_value(value, true, &entry) == KVS_OK ? entry : NULL;
}

enum kvs_code reply_read_entry(const struct kvs_value *result, void *out)
{
    return entry_read_value(result, false, out);
}

enum kvs_code reply_read_entries(const struct kvs_value *result, void *out)
{
    struct reply_entries *wanted = out;
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
