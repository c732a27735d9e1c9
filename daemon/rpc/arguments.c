#include "daemon/rpc/arguments.h"

#include "proto/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* The longest text that an error quotes as a whole, in bytes. */
#define QUOTED_BYTES 40

/* From here on two integers have the same double. */
#define DOUBLE_EXACT_END 9007199254740992.0

/* --- Values ---------------------------------------------------------------------------------------- */

bool value_is_string(const msgpack_object *value)
{
    return value->type == MSGPACK_OBJECT_STR || value->type == MSGPACK_OBJECT_BIN;
}

bool argument_is_word(const msgpack_object *value, const char *word)
{
    return value_is_string(value) && value->via.str.size == strlen(word) &&
           memcmp(value->via.str.ptr, word, value->via.str.size) == 0;
}

bool argument_is_nothing(const msgpack_object *value)
{
    return value->type == MSGPACK_OBJECT_NIL || (value->type == MSGPACK_OBJECT_ARRAY && value->via.array.size == 0) ||
           (value->type == MSGPACK_OBJECT_MAP && value->via.map.size == 0);
}

static bool argument_is_whole_float(const msgpack_object *value)
{
    if (value->type != MSGPACK_OBJECT_FLOAT32 && value->type != MSGPACK_OBJECT_FLOAT64)
        return false;
    /* False also for NaN. */
    return fabs(value->via.f64) < DOUBLE_EXACT_END && floor(value->via.f64) == value->via.f64;
}

bool argument_to_int64(const msgpack_object *value, int64_t *number)
{
    if (value->type == MSGPACK_OBJECT_POSITIVE_INTEGER && value->via.u64 <= INT64_MAX)
        *number = (int64_t)value->via.u64;
    else if (value->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        *number = value->via.i64;
    else if (argument_is_whole_float(value))
        *number = (int64_t)value->via.f64;
    else
        return false;
    return true;
}

bool argument_to_uint64(const msgpack_object *value, uint64_t *number)
{
    if (value->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        *number = value->via.u64;
    else if (argument_is_whole_float(value) && value->via.f64 >= 0)
        *number = (uint64_t)value->via.f64;
    else
        return false;
    return true;
}

const msgpack_object_array *argument_to_array(const msgpack_object *value)
{
    static const msgpack_object_array empty = {0, NULL};

    if (value->type == MSGPACK_OBJECT_ARRAY)
        return &value->via.array;
    return value->type == MSGPACK_OBJECT_MAP && value->via.map.size == 0 ? &empty : NULL;
}

const msgpack_object_map *argument_to_map(const msgpack_object *value)
{
    static const msgpack_object_map empty = {0, NULL};

    if (value->type == MSGPACK_OBJECT_MAP)
        return &value->via.map;
    return value->type == MSGPACK_OBJECT_ARRAY && value->via.array.size == 0 ? &empty : NULL;
}

/* Quote a text, or its beginning. A NUL would end the message. */
static void argument_describe_text(const msgpack_object *value, char text[ARGUMENT_DESCRIPTION_BYTES])
{
    const char *bytes = value->via.str.ptr;
    size_t size = value->via.str.size;

    if (memchr(bytes, '\0', size) != NULL || !utf8_is_valid(bytes, size))
        snprintf(text, ARGUMENT_DESCRIPTION_BYTES, "a %s of %zu bytes",
                 value->type == MSGPACK_OBJECT_STR ? "str" : "bin", size);
    else if (size <= QUOTED_BYTES)
        snprintf(text, ARGUMENT_DESCRIPTION_BYTES, "\"%.*s\"", (int)size, bytes);
    else
        snprintf(text, ARGUMENT_DESCRIPTION_BYTES, "\"%.*s...\"", QUOTED_BYTES, bytes);
}

const char *argument_describe(const msgpack_object *value, char text[ARGUMENT_DESCRIPTION_BYTES])
{
    switch (value->type) {
    case MSGPACK_OBJECT_NIL:
        return "nil";
    case MSGPACK_OBJECT_BOOLEAN:
        return value->via.boolean ? "true" : "false";
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        snprintf(text, ARGUMENT_DESCRIPTION_BYTES, "the integer %" PRIu64, value->via.u64);
        break;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        snprintf(text, ARGUMENT_DESCRIPTION_BYTES, "the integer %" PRId64, value->via.i64);
        break;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        snprintf(text, ARGUMENT_DESCRIPTION_BYTES, "the float %.15g", value->via.f64);
        break;
    case MSGPACK_OBJECT_STR:
    case MSGPACK_OBJECT_BIN:
        argument_describe_text(value, text);
        break;
    case MSGPACK_OBJECT_ARRAY:
        snprintf(text, ARGUMENT_DESCRIPTION_BYTES, "an array of %u", value->via.array.size);
        break;
    case MSGPACK_OBJECT_MAP:
        snprintf(text, ARGUMENT_DESCRIPTION_BYTES, "a map of %u", value->via.map.size);
        break;
    default:
        return "an ext";
    }
    return text;
}

bool argument_refuse(struct call *call, const char *what, const char *expected, const msgpack_object *value)
{
    char description[ARGUMENT_DESCRIPTION_BYTES];

    call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s must be %s, not %s", what, expected,
                   argument_describe(value, description));
    return false;
}

bool value_string(struct call *call, const msgpack_object *value, const char *what, const char **text)
{
    if (!value_is_string(value))
        return argument_refuse(call, what, "a text (str or bin)", value);
    if (memchr(value->via.str.ptr, '\0', value->via.str.size) != NULL)
        return argument_refuse(call, what, "a text without a NUL", value);
    if (!utf8_is_valid(value->via.str.ptr, value->via.str.size))
        return argument_refuse(call, what, "UTF-8", value);
    *text = arena_strndup(&call->arena, value->via.str.ptr, value->via.str.size);
    if (*text == NULL)
        call_fail_out_of_memory(call);
    return *text != NULL;
}

bool value_pairs(struct call *call, const msgpack_object *value, const char *what, struct argument_pair **pairs,
                 size_t *count)
{
    const msgpack_object_map *map = argument_to_map(value);
    char part[64];

    if (map == NULL)
        return argument_refuse(call, what, "a map of text to text", value);
    *pairs = arena_alloc(&call->arena, (map->size + 1) * sizeof(**pairs));
    if (*pairs == NULL) {
        call_fail_out_of_memory(call);
        return false;
    }
    *count = map->size;
    for (uint32_t i = 0; i < map->size; i++) {
        snprintf(part, sizeof(part), "name %u of %s", i + 1, what);
        if (!value_string(call, &map->ptr[i].key, part, &(*pairs)[i].name))
            return false;
        snprintf(part, sizeof(part), "value %u of %s", i + 1, what);
        if (!value_string(call, &map->ptr[i].val, part, &(*pairs)[i].value))
            return false;
    }
    return true;
}

/* --- Maps with known names ------------------------------------------------------------------------- */

const msgpack_object *map_find(const msgpack_object_map *map, const char *name)
{
    for (uint32_t i = 0; i < map->size; i++) {
        const msgpack_object *value = &map->ptr[i].val;
        if (argument_is_word(&map->ptr[i].key, name))
            return value->type == MSGPACK_OBJECT_NIL ? NULL : value;
    }
    return NULL;
}

/* Return the number of a name among names; -1 if it is none of them. */
static int argument_find_name(const char *names, const char *name, size_t length)
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
    char description[ARGUMENT_DESCRIPTION_BYTES];
    uint64_t seen = 0;

    for (uint32_t i = 0; i < map->size; i++) {
        const msgpack_object *key = &map->ptr[i].key;
        if (!value_is_string(key)) {
            call_fail_with(call, ERROR_INVALID_ARGUMENT,
                           "the names of the options of %s must be texts, not %s; it has: %s", what,
                           argument_describe(key, description), names);
            return false;
        }
        int number = argument_find_name(names, key->via.str.ptr, key->via.str.size);
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

/* --- Positional arguments -------------------------------------------------------------------------- */

/* Name an argument in errors. Return text. */
static const char *argument_label(uint32_t position, char text[32])
{
    snprintf(text, 32, "argument %u", position + 1);
    return text;
}

bool argument_name(struct call *call, uint32_t position, const char *what, argument_check_fn *check, const char **name)
{
    const msgpack_object *argument = &call->arguments[position];
    char label[32], expected[64], description[ARGUMENT_DESCRIPTION_BYTES];

    if (!value_is_string(argument)) {
        snprintf(expected, sizeof(expected), "%s, a text", what);
        return argument_refuse(call, argument_label(position, label), expected, argument);
    }
    const char *wrong = check(argument->via.str.ptr, argument->via.str.size);
    if (wrong != NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s: %s", argument_describe(argument, description), wrong);
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
    char label[32];

    return argument_to_uint64(argument, revision) ||
           argument_refuse(call, argument_label(position, label), "a revision, an integer of at least 0", argument);
}

/* --- Options --------------------------------------------------------------------------------------- */

const msgpack_object *option_find(const struct call *call, const char *name)
{
    return call->options != NULL ? map_find(call->options, name) : NULL;
}

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
