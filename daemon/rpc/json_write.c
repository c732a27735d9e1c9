#include "daemon/rpc/json.h"

#include "proto/utf8.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct json_writer {
    struct arena *arena;
    char *text;
    size_t length; /* of the whole text, which is kept only up to max_bytes; beyond that, a lower bound */
    size_t capacity, max_bytes;
    const char *wrong; /* NULL: nothing is wrong so far */
};

#define TEXT_BYTES_FIRST 256u

/* Of a number that is not an integer: "0.5". */
#define REAL_BYTES_MIN 3u

/* Return room for count bytes, which must be within max_bytes. NULL: out of memory. */
static char *json_reserve(struct json_writer *writer, size_t count)
{
    if (writer->length + count > writer->capacity) {
        size_t capacity = writer->capacity > 0 ? writer->capacity * 2 : TEXT_BYTES_FIRST;
        while (capacity < writer->length + count)
            capacity *= 2;
        char *grown = arena_alloc(writer->arena, capacity);
        if (grown == NULL) {
            writer->wrong = "out of memory";
            return NULL;
        }
        if (writer->length > 0)
            memcpy(grown, writer->text, writer->length);
        writer->text = grown;
        writer->capacity = capacity;
    }
    return writer->text + writer->length;
}

static void json_write_bytes(struct json_writer *writer, const char *bytes, size_t count)
{
    bool is_full = writer->length + count > writer->max_bytes;
    char *at = count > 0 && !is_full ? json_reserve(writer, count) : NULL;

    if (at != NULL)
        memcpy(at, bytes, count);
    writer->length += count;
}

#define JSON_WRITE_LITERAL(writer, literal) json_write_bytes((writer), (literal), sizeof(literal) - 1)

/* Return what follows the backslash in the short escape of a character (RFC 8259, section 7); 0: it has none. */
static char json_short_escape(char c)
{
    switch (c) {
    case '"':
    case '\\':
        return c;
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return 0;
    }
}

/* Return the number of bytes that represent a byte of a string: more than one if it must be escaped. */
static size_t json_escaped_size(char c)
{
    return json_short_escape(c) != 0 ? 2 : (unsigned char)c < 0x20 ? 6 : 1;
}

static void json_write_escape(struct json_writer *writer, char c)
{
    static const char digits[] = "0123456789ABCDEF";
    const char named[] = {'\\', json_short_escape(c)};
    const char coded[] = {'\\', 'u', '0', '0', digits[(unsigned char)c >> 4], digits[c & 0xf]};

    json_write_bytes(writer, named[1] != 0 ? named : coded, json_escaped_size(c));
}

static size_t json_escaped_length(const char *bytes, size_t length)
{
    size_t escaped = 0;

    for (size_t i = 0; i < length; i++)
        escaped += json_escaped_size(bytes[i]);
    return escaped;
}

static void json_write_string(struct json_writer *writer, const char *bytes, size_t length)
{
    size_t plain = 0;

    if (writer->length + length > writer->max_bytes) { /* reading megabytes takes long, and the text is not kept */
        writer->length += length + 2;
        return;
    }
    if (!utf8_is_valid(bytes, length)) {
        writer->wrong = "a text is not UTF-8";
        return;
    }
    size_t escaped = json_escaped_length(bytes, length);
    if (writer->length + escaped > writer->max_bytes) {
        writer->length += escaped + 2;
        return;
    }
    JSON_WRITE_LITERAL(writer, "\"");
    for (size_t i = 0; i < length && writer->wrong == NULL; i++) {
        if (json_escaped_size(bytes[i]) == 1)
            continue;
        json_write_bytes(writer, bytes + plain, i - plain);
        json_write_escape(writer, bytes[i]);
        plain = i + 1;
    }
    json_write_bytes(writer, bytes + plain, length - plain);
    JSON_WRITE_LITERAL(writer, "\"");
}

static void json_write_unsigned(struct json_writer *writer, uint64_t number)
{
    char digits[20];
    size_t at = sizeof(digits);

    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    json_write_bytes(writer, digits + at, sizeof(digits) - at);
}

/* Return whether the number looks as if it had few decimals. Such a test is cheap beside printing the number. */
static bool json_has_few_decimals(double number)
{
    double scaled = number * 1e6;

    return fabs(scaled) < 1e12 && fabs(scaled - floor(scaled + 0.5)) < 1e-3;
}

/*
 * Write digits that are read as the same double, and something that tells it from an integer. 17 digits are always
 * enough, but make 0.10000000000000001 of 0.1. 15 digits are enough for most numbers with few decimals.
 */
static void json_write_real(struct json_writer *writer, double number)
{
    char text[40] = "";

    if (!isfinite(number)) {
        writer->wrong = "JSON has no infinite numbers and no NaN";
        return;
    }
    if (writer->length > writer->max_bytes) { /* printing takes long, and the text is not kept */
        writer->length += REAL_BYTES_MIN;
        return;
    }
    size_t length = 0;
    if (json_has_few_decimals(number))
        length = (size_t)snprintf(text, sizeof(text), "%.15g", number);
    if (length == 0 || strtod(text, NULL) != number)
        length = (size_t)snprintf(text, sizeof(text), "%.17g", number);
    if (strpbrk(text, ".e") == NULL) {
        memcpy(text + length, ".0", 3);
        length += 2;
    }
    json_write_bytes(writer, text, length);
}

static void json_write_value(struct json_writer *writer, const msgpack_object *value);

static void json_write_array(struct json_writer *writer, const msgpack_object_array *array)
{
    JSON_WRITE_LITERAL(writer, "[");
    for (uint32_t i = 0; i < array->size && writer->wrong == NULL; i++) {
        if (i > 0)
            JSON_WRITE_LITERAL(writer, ",");
        json_write_value(writer, &array->ptr[i]);
    }
    JSON_WRITE_LITERAL(writer, "]");
}

static void json_write_map(struct json_writer *writer, const msgpack_object_map *map)
{
    JSON_WRITE_LITERAL(writer, "{");
    for (uint32_t i = 0; i < map->size && writer->wrong == NULL; i++) {
        const msgpack_object *key = &map->ptr[i].key;
        if (key->type != MSGPACK_OBJECT_STR && key->type != MSGPACK_OBJECT_BIN) {
            writer->wrong = "the keys of a map must be texts (str or bin)";
            return;
        }
        if (memchr(key->via.str.ptr, '\0', key->via.str.size) != NULL) {
            writer->wrong = "a map's key has a NUL in it";
            return;
        }
        if (i > 0)
            JSON_WRITE_LITERAL(writer, ",");
        json_write_string(writer, key->via.str.ptr, key->via.str.size);
        JSON_WRITE_LITERAL(writer, ":");
        if (writer->wrong == NULL)
            json_write_value(writer, &map->ptr[i].val);
    }
    JSON_WRITE_LITERAL(writer, "}");
}

/* The recursion is bounded: frame_scan limits the depth of messages. */
static void json_write_value(struct json_writer *writer, const msgpack_object *value)
{
    switch (value->type) {
    case MSGPACK_OBJECT_NIL:
        JSON_WRITE_LITERAL(writer, "null");
        break;
    case MSGPACK_OBJECT_BOOLEAN:
        if (value->via.boolean)
            JSON_WRITE_LITERAL(writer, "true");
        else
            JSON_WRITE_LITERAL(writer, "false");
        break;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        if (value->via.u64 > INT64_MAX)
            writer->wrong = "an integer is over 2^63 - 1";
        else
            json_write_unsigned(writer, value->via.u64);
        break;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        JSON_WRITE_LITERAL(writer, "-");
        json_write_unsigned(writer, (uint64_t) - (value->via.i64 + 1) + 1);
        break;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        json_write_real(writer, value->via.f64);
        break;
    case MSGPACK_OBJECT_STR:
        json_write_string(writer, value->via.str.ptr, value->via.str.size);
        break;
    case MSGPACK_OBJECT_ARRAY:
        json_write_array(writer, &value->via.array);
        break;
    case MSGPACK_OBJECT_MAP:
        json_write_map(writer, &value->via.map);
        break;
    default:
        writer->wrong = "JSON has no bin and no ext; send a text as str";
        break;
    }
}

const char *json_from_msgpack(struct arena *arena, const msgpack_object *value, size_t max_bytes, const char **text,
                              size_t *bytes)
{
    struct json_writer writer = {.arena = arena, .max_bytes = max_bytes};

    json_write_value(&writer, value);
    *text = writer.length <= max_bytes ? writer.text : NULL;
    *bytes = writer.length;
    return writer.wrong;
}
