#include "daemon/rpc/arguments.h"

#include "proto/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

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

bool value_pairs(struct call *call, const msgpack_object *value, const char *what, struct argument_pair **pairs,
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

/* --- Positional arguments -------------------------------------------------------------------------- */

bool argument_name(struct call *call, uint32_t position, const char *what,
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
