#include "daemon/rpc/arguments.h"

#include "daemon/nats/kv.h"
#include "daemon/rpc/json.h"
#include "proto/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of an entry. What NATS answers about it has some of its own. */
#define HEADERS_MAX 1000u

const msgpack_object *map_find(const msgpack_object_map *map, const char *name)
{
    size_t length = strlen(name);

    for (uint32_t i = 0; i < map->size; i++) {
        const msgpack_object *key = &map->ptr[i].key, *value = &map->ptr[i].val;
        if (key->type == MSGPACK_OBJECT_STR && key->via.str.size == length &&
            memcmp(key->via.str.ptr, name, length) == 0)
            return value->type == MSGPACK_OBJECT_NIL ? NULL : value;
    }
    return NULL;
}

/* The number of a name among names, -1: it is none of them. */
static int find_name(const char *names, const char *name, size_t length)
{
    const char *at = names;

    for (int number = 0; *at != '\0'; number++) {
        size_t size = strcspn(at, " ");
        if (size == length && memcmp(at, name, length) == 0)
            return number;
        at += size + (at[size] == ' ');
    }
    return -1;
}

bool map_check_names(struct call *call, const msgpack_object_map *map, const char *what, const char *names)
{
    uint64_t seen = 0;

    for (uint32_t i = 0; i < map->size; i++) {
        const msgpack_object *key = &map->ptr[i].key;
        if (key->type != MSGPACK_OBJECT_STR) {
            call_fail_with(call, ERROR_INVALID_ARGUMENT, "the names in the map of %s must be str; it has: %s", what,
                           names);
            return false;
        }
        int shown = (int)(key->via.str.size < 64 ? key->via.str.size : 64);
        int number = find_name(names, key->via.str.ptr, key->via.str.size);
        if (number < 0) {
            call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s has no option \"%.*s\"; it has: %s", what, shown,
                           key->via.str.ptr, names);
            return false;
        }
        if (seen & (uint64_t)1 << number) {
            call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s has the option \"%.*s\" twice", what, shown,
                           key->via.str.ptr);
            return false;
        }
        seen |= (uint64_t)1 << number;
    }
    return true;
}

const msgpack_object *option_find(const struct call *call, const char *name)
{
    return call->options != NULL ? map_find(call->options, name) : NULL;
}

/* --- Values ---------------------------------------------------------------------------------------- */

bool value_is_string(const msgpack_object *value)
{
    return value->type == MSGPACK_OBJECT_STR || value->type == MSGPACK_OBJECT_BIN;
}

bool value_string(struct call *call, const msgpack_object *value, const char *what, const char **text)
{
    if (!value_is_string(value)) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s must be a str", what);
        return false;
    }
    if (memchr(value->via.str.ptr, '\0', value->via.str.size) != NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s has a NUL in it", what);
        return false;
    }
    if (!utf8_is_valid(value->via.str.ptr, value->via.str.size)) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s is not UTF-8", what);
        return false;
    }
    *text = arena_strndup(&call->arena, value->via.str.ptr, value->via.str.size);
    if (*text == NULL)
        call_fail_out_of_memory(call);
    return *text != NULL;
}

bool value_pairs(struct call *call, const msgpack_object *value, const char *what, struct bucket_pair **pairs,
                 size_t *count)
{
    if (value->type != MSGPACK_OBJECT_MAP) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s must be a map of str to str", what);
        return false;
    }
    const msgpack_object_map *map = &value->via.map;
    *pairs = arena_alloc(&call->arena, (map->size + 1) * sizeof(**pairs));
    if (*pairs == NULL) {
        call_fail_out_of_memory(call);
        return false;
    }
    *count = map->size;
    for (uint32_t i = 0; i < map->size; i++) {
        if (!value_string(call, &map->ptr[i].key, what, &(*pairs)[i].name) ||
            !value_string(call, &map->ptr[i].val, what, &(*pairs)[i].value))
            return false;
    }
    return true;
}

const char *value_bytes(struct call *call, const msgpack_object *value, const char **bytes, size_t *count)
{
    if (value_is_string(value)) {
        *bytes = value->via.str.ptr;
        *count = value->via.str.size;
        return NULL;
    }
    if (value->type != MSGPACK_OBJECT_MAP && value->type != MSGPACK_OBJECT_ARRAY)
        return "a value must be a str, a bin, or a map or array that is stored as JSON";
    /* A value that is larger than the server takes is only measured: operation_check refuses it with its size. */
    size_t max_payload = connection_get_status(call->store->connection)->max_payload_bytes;
    const char *reason = json_from_msgpack(&call->arena, value, max_payload > 0 ? max_payload : SIZE_MAX, bytes, count);
    if (reason == NULL)
        return NULL;
    char *wrong = arena_alloc(&call->arena, JSON_REASON_BYTES);
    if (wrong == NULL)
        return "out of memory";
    snprintf(wrong, JSON_REASON_BYTES, "the value cannot be stored as JSON: %s", reason);
    return wrong;
}

/* --- Positional arguments -------------------------------------------------------------------------- */

/* A name whose form check knows. */
static bool argument_name(struct call *call, uint32_t position, const char *what,
                          const char *(*check)(const char *text, size_t length), const char **name)
{
    const msgpack_object *argument = &call->arguments[position];

    if (!value_is_string(argument)) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "argument %u must be a %s, as a str", position + 1, what);
        return false;
    }
    const char *wrong = check(argument->via.str.ptr, argument->via.str.size);
    if (wrong != NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s", wrong);
        return false;
    }
    *name = arena_strndup(&call->arena, argument->via.str.ptr, argument->via.str.size);
    if (*name == NULL)
        call_fail_out_of_memory(call);
    return *name != NULL;
}

bool argument_bucket(struct call *call, uint32_t position, const char **name)
{
    return argument_name(call, position, "bucket's name", kv_check_bucket, name);
}

bool argument_key(struct call *call, uint32_t position, const char **key)
{
    return argument_name(call, position, "key", kv_check_key, key);
}

bool argument_revision(struct call *call, uint32_t position, uint64_t *revision)
{
    const msgpack_object *argument = &call->arguments[position];

    if (argument->type != MSGPACK_OBJECT_POSITIVE_INTEGER) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "argument %u must be a revision, an integer of at least 0",
                       position + 1);
        return false;
    }
    *revision = argument->via.u64;
    return true;
}

bool argument_value(struct call *call, uint32_t position, const char **value, size_t *bytes)
{
    const char *wrong = value_bytes(call, &call->arguments[position], value, bytes);

    if (wrong != NULL)
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s", wrong);
    return wrong == NULL;
}

/* --- Options --------------------------------------------------------------------------------------- */

bool option_string(struct call *call, const char *name, const char **text)
{
    const msgpack_object *option = option_find(call, name);

    *text = NULL;
    return option == NULL || value_string(call, option, name, text);
}

bool option_bool(struct call *call, const char *name, bool *flag)
{
    const msgpack_object *option = option_find(call, name);

    *flag = false;
    if (option == NULL)
        return true;
    if (option->type != MSGPACK_OBJECT_BOOLEAN) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s must be true or false", name);
        return false;
    }
    *flag = option->via.boolean;
    return true;
}

bool option_number(struct call *call, const char *name, double standard, double *number)
{
    const msgpack_object *option = option_find(call, name);

    *number = standard;
    if (option == NULL)
        return true;
    switch (option->type) {
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        *number = (double)option->via.u64;
        return true;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        *number = (double)option->via.i64;
        return true;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        *number = option->via.f64;
        return true;
    default:
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s must be a number", name);
        return false;
    }
}

bool option_integer(struct call *call, const char *name, int64_t min, int64_t max, int64_t standard, int64_t *number)
{
    const msgpack_object *option = option_find(call, name);
    bool fits = true;

    *number = standard;
    if (option == NULL)
        return true;
    if (option->type == MSGPACK_OBJECT_POSITIVE_INTEGER && option->via.u64 <= INT64_MAX)
        *number = (int64_t)option->via.u64;
    else if (option->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        *number = option->via.i64;
    else
        fits = false;
    if (!fits || *number < min || *number > max) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s must be an integer from %" PRId64 " to %" PRId64, name, min,
                       max);
        return false;
    }
    return true;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct message_header *)a)->name, ((const struct message_header *)b)->name);
}

/* Of a name that stands there twice only one value could be read again. NULL: there is none; else the name. */
static const char *find_twin(struct call *call, const struct message_header *headers, size_t count)
{
    struct message_header *sorted = count > 1 ? arena_alloc(&call->arena, count * sizeof(*sorted)) : NULL;

    if (sorted == NULL)
        return NULL;
    memcpy(sorted, headers, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), compare_names);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(sorted[i - 1].name, sorted[i].name) == 0)
            return sorted[i].name;
    }
    return NULL;
}

bool option_headers(struct call *call, const char *name, const struct message_header **headers, size_t *count)
{
    const msgpack_object *option = option_find(call, name);
    struct bucket_pair *pairs;

    *headers = NULL;
    *count = 0;
    if (option == NULL)
        return true;
    if (!value_pairs(call, option, name, &pairs, count))
        return false;
    if (*count > HEADERS_MAX) {
        call_fail_with(call, ERROR_TOO_LARGE, "%s may have %u members, not %zu", name, HEADERS_MAX, *count);
        return false;
    }
    struct message_header *checked = arena_alloc(&call->arena, (*count + 1) * sizeof(*checked));
    if (checked == NULL) {
        call_fail_out_of_memory(call);
        return false;
    }
    for (size_t i = 0; i < *count; i++) {
        const char *wrong = kv_check_header(pairs[i].name, pairs[i].value);
        if (wrong != NULL) {
            call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s (\"%.64s\")", wrong, pairs[i].name);
            return false;
        }
        checked[i] = (struct message_header){pairs[i].name, pairs[i].value};
    }
    const char *twin = find_twin(call, checked, *count);
    if (twin != NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s has \"%.64s\" twice", name, twin);
        return false;
    }
    *headers = checked;
    return true;
}

bool option_ttl(struct call *call, int64_t *ttl_s)
{
    return option_integer(call, "ttl", 1, TTL_MAX_S, 0, ttl_s);
}

bool option_consistency(struct call *call, enum read_consistency *consistency)
{
    const char *text;

    if (!option_string(call, "consistency", &text))
        return false;
    if (text == NULL || strcmp(text, "direct") == 0) {
        *consistency = READ_DIRECT;
    } else if (strcmp(text, "cached") == 0) {
        *consistency = READ_CACHED;
    } else if (strcmp(text, "leader") == 0) {
        *consistency = READ_LEADER;
    } else {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "consistency must be \"direct\", \"leader\" or \"cached\"");
        return false;
    }
    return true;
}
