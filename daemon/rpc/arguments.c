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

bool argument_is_text(const msgpack_object *value)
{
    return value->type == MSGPACK_OBJECT_STR || value->type == MSGPACK_OBJECT_BIN;
}

bool argument_is_word(const msgpack_object *value, const char *word)
{
    return argument_is_text(value) && value->via.str.size == strlen(word) &&
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
    size_t size = value->via.str.size, quoted = size;

    /* Only what is quoted is checked, up to the end of a character: the text may have megabytes. */
    if (size > QUOTED_BYTES) {
        for (quoted = QUOTED_BYTES; quoted > 0 && ((unsigned char)bytes[quoted] & 0xc0) == 0x80;)
            quoted--;
    }
    if (memchr(bytes, '\0', quoted) != NULL || !utf8_is_valid(bytes, quoted))
        snprintf(text, ARGUMENT_DESCRIPTION_BYTES, "a %s of %zu bytes",
                 value->type == MSGPACK_OBJECT_STR ? "str" : "bin", size);
    else
        snprintf(text, ARGUMENT_DESCRIPTION_BYTES, "\"%.*s%s\"", (int)quoted, bytes, quoted < size ? "..." : "");
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

/* Check the type and the size, before anything reads the bytes. */
static bool argument_check_size(struct call *call, const msgpack_object *value, const char *what, size_t max_bytes)
{
    if (!argument_is_text(value))
        return argument_refuse(call, what, "a text (str or bin)", value);
    if (value->via.str.size <= max_bytes)
        return true;
    call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s has at most %zu bytes, not %" PRIu32, what, max_bytes,
                   value->via.str.size);
    return false;
}

static bool argument_copy_text(struct call *call, const msgpack_object *value, const char **text)
{
    *text = arena_strndup(&call->arena, value->via.str.ptr, value->via.str.size);
    if (*text == NULL)
        call_fail_out_of_memory(call);
    return *text != NULL;
}

bool argument_read_text(struct call *call, const msgpack_object *value, const char *what, size_t max_bytes,
                        const char **text)
{
    if (!argument_check_size(call, value, what, max_bytes))
        return false;
    if (!utf8_is_valid(value->via.str.ptr, value->via.str.size))
        return argument_refuse(call, what, "UTF-8", value);
    return argument_read_foreign_text(call, value, what, max_bytes, text);
}

bool argument_read_foreign_text(struct call *call, const msgpack_object *value, const char *what, size_t max_bytes,
                                const char **text)
{
    if (!argument_check_size(call, value, what, max_bytes))
        return false;
    if (memchr(value->via.str.ptr, '\0', value->via.str.size) != NULL)
        return argument_refuse(call, what, "a text without a NUL", value);
    return argument_copy_text(call, value, text);
}

/* Of headers, and of metadata. The answers of NATS about an entry have some headers more. */
#define PAIRS_MAX 1000u

/* Check the sum of the sizes before anything reads or copies the bytes. */
static bool argument_check_pairs_size(struct call *call, const msgpack_object_map *map, const char *what,
                                      size_t max_bytes)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < map->size; i++) {
        const msgpack_object_kv *pair = &map->ptr[i];
        bytes += argument_is_text(&pair->key) ? pair->key.via.str.size : 0;
        bytes += argument_is_text(&pair->val) ? pair->val.via.str.size : 0;
    }
    if (bytes <= max_bytes)
        return true;
    call_fail_with(call, ERROR_TOO_LARGE, "%s can have up to %zu bytes in all, not %zu", what, max_bytes, bytes);
    return false;
}

/* Read a half of a pair: "name" or "value". It is named only for an error: a transaction may have 60,000 pairs. */
static bool argument_read_half(struct call *call, const msgpack_object *value, const char *half, uint32_t number,
                               const char *what, size_t max_bytes, const char **text)
{
    char part[64];

    if (argument_is_text(value) && memchr(value->via.str.ptr, '\0', value->via.str.size) == NULL &&
        utf8_is_valid(value->via.str.ptr, value->via.str.size))
        return argument_copy_text(call, value, text);
    snprintf(part, sizeof(part), "%s %" PRIu32 " of %s", half, number, what);
    return argument_read_text(call, value, part, max_bytes, text);
}

static int argument_compare_pairs(const void *a, const void *b)
{
    return strcmp(((const struct argument_pair *)a)->name, ((const struct argument_pair *)b)->name);
}

/* Refuse a name that occurs twice: only one of its values would be kept. */
static bool argument_check_twins(struct call *call, const struct argument_pair *pairs, size_t count, const char *what)
{
    if (count < 2)
        return true;
    struct argument_pair *sorted = arena_alloc(&call->arena, count * sizeof(*sorted));
    if (sorted == NULL) {
        call_fail_out_of_memory(call);
        return false;
    }
    memcpy(sorted, pairs, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), argument_compare_pairs);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(sorted[i - 1].name, sorted[i].name) == 0) {
            call_fail_with(call, ERROR_INVALID_ARGUMENT, "%s has \"%.64s\" twice", what, sorted[i].name);
            return false;
        }
    }
    return true;
}

bool argument_read_pairs(struct call *call, const msgpack_object *value, const char *what, size_t max_bytes,
                         struct argument_pair **pairs, size_t *count)
{
    const msgpack_object_map *map = argument_to_map(value);

    if (map == NULL)
        return argument_refuse(call, what, "a map of text to text", value);
    if (map->size > PAIRS_MAX) {
        call_fail_with(call, ERROR_TOO_LARGE, "%s can have up to %u members, not %" PRIu32, what, PAIRS_MAX, map->size);
        return false;
    }
    if (!argument_check_pairs_size(call, map, what, max_bytes))
        return false;
    *pairs = arena_alloc(&call->arena, (map->size + 1) * sizeof(**pairs));
    if (*pairs == NULL) {
        call_fail_out_of_memory(call);
        return false;
    }
    *count = map->size;
    for (uint32_t i = 0; i < map->size; i++) {
        if (!argument_read_half(call, &map->ptr[i].key, "name", i + 1, what, max_bytes, &(*pairs)[i].name) ||
            !argument_read_half(call, &map->ptr[i].val, "value", i + 1, what, max_bytes, &(*pairs)[i].value))
            return false;
    }
    return argument_check_twins(call, *pairs, *count, what);
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

    if (!argument_is_text(argument)) {
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

bool argument_integer(struct call *call, uint32_t position, int64_t *number)
{
    const msgpack_object *argument = &call->arguments[position];
    char label[32];

    return argument_to_int64(argument, number) ||
           argument_refuse(call, argument_label(position, label), "an integer from -2^63 to 2^63 - 1", argument);
}
