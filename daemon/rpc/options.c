#include "daemon/rpc/options.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const msgpack_object *option_find_member(const msgpack_object_map *map, const char *name)
{
    for (uint32_t i = 0; i < map->size; i++) {
        const msgpack_object *value = &map->ptr[i].val;
        if (argument_is_word(&map->ptr[i].key, name))
            return value->type == MSGPACK_OBJECT_NIL ? NULL : value;
    }
    return NULL;
}

/* Return the number of a name among names; -1 if it is none of them. */
static int option_find_name(const char *names, const char *name, size_t length)
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

bool option_check_names(struct call *call, const msgpack_object_map *map, const char *what, const char *names)
{
    char description[ARGUMENT_DESCRIPTION_BYTES];
    uint64_t seen = 0;

    for (uint32_t i = 0; i < map->size; i++) {
        const msgpack_object *key = &map->ptr[i].key;
        if (!argument_is_text(key)) {
            call_fail_with(call, ERROR_INVALID_ARGUMENT,
                           "the names of the options of %s must be texts, not %s; it has: %s", what,
                           argument_describe(key, description), names);
            return false;
        }
        int number = option_find_name(names, key->via.str.ptr, key->via.str.size);
        if (number < 0) {
            call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s has no option %s; it has: %s", what,
                           argument_describe(key, description), names);
            return false;
        }
        if (seen & (uint64_t)1 << number) {
            call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s has the option %s twice", what,
                           argument_describe(key, description));
            return false;
        }
        seen |= (uint64_t)1 << number;
    }
    return true;
}

const msgpack_object *option_find(const struct call *call, const char *name)
{
    return call->options != NULL ? option_find_member(call->options, name) : NULL;
}

bool option_string(struct call *call, const char *name, size_t max_bytes, const char **text)
{
    const msgpack_object *option = option_find(call, name);

    *text = NULL;
    return option == NULL || argument_read_text(call, option, name, max_bytes, text);
}

bool option_foreign_text(struct call *call, const char *name, size_t max_bytes, const char **text)
{
    const msgpack_object *option = option_find(call, name);

    *text = NULL;
    return option == NULL || argument_read_foreign_text(call, option, name, max_bytes, text);
}

bool option_bool(struct call *call, const char *name, bool *flag)
{
    const msgpack_object *option = option_find(call, name);

    *flag = false;
    if (option == NULL)
        return true;
    if (option->type != MSGPACK_OBJECT_BOOLEAN)
        return argument_refuse(call, name, "true or false", option);
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
        return argument_refuse(call, name, "a number", option);
    }
}

bool option_integer(struct call *call, const char *name, int64_t min, int64_t max, int64_t standard, int64_t *number)
{
    const msgpack_object *option = option_find(call, name);
    char expected[80];

    *number = standard;
    if (option == NULL)
        return true;
    if (argument_to_int64(option, number) && *number >= min && *number <= max)
        return true;
    snprintf(expected, sizeof(expected), "an integer from %" PRId64 " to %" PRId64, min, max);
    return argument_refuse(call, name, expected, option);
}
