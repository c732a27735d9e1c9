#include "daemon/rpc/json.h"

#include "proto/utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- MessagePack into JSON ------------------------------------------------------------------------- */

struct writer {
    struct arena *arena;
    char *text;
    size_t length; /* of the whole; text is complete if that is at most max_bytes */
    size_t capacity, max_bytes;
    const char *wrong; /* NULL: nothing, so far */
};

#define TEXT_BYTES_FIRST 256u

/* Return where count bytes may be written, or NULL. There must be room for them below max_bytes. */
static char *writer_reserve(struct writer *writer, size_t count)
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

static void write_bytes(struct writer *writer, const char *bytes, size_t count)
{
    bool is_full = writer->length + count > writer->max_bytes;
    char *at = count > 0 && !is_full ? writer_reserve(writer, count) : NULL;

    if (at != NULL)
        memcpy(at, bytes, count);
    writer->length += count;
}

#define WRITE_LITERAL(writer, literal) write_bytes((writer), (literal), sizeof(literal) - 1)

/* What follows the backslash in the short escape of a character; 0: it has none (RFC 8259, section 7). */
static char short_escape(char c)
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

/* Bytes that stand for a byte of a string: more than one where it must be escaped. */
static size_t escaped_size(char c)
{
    return short_escape(c) != 0 ? 2 : (unsigned char)c < 0x20 ? 6 : 1;
}

static void write_escape(struct writer *writer, char c)
{
    static const char digits[] = "0123456789ABCDEF";
    const char named[] = {'\\', short_escape(c)};
    const char coded[] = {'\\', 'u', '0', '0', digits[(unsigned char)c >> 4], digits[c & 0xf]};

    write_bytes(writer, named[1] != 0 ? named : coded, escaped_size(c));
}

static size_t escaped_length(const char *bytes, size_t length)
{
    size_t escaped = 0;

    for (size_t i = 0; i < length; i++)
        escaped += escaped_size(bytes[i]);
    return escaped;
}

static void write_string(struct writer *writer, const char *bytes, size_t length)
{
    size_t plain = 0;

    if (!utf8_is_valid(bytes, length)) {
        writer->wrong = "a text is not UTF-8";
        return;
    }
    size_t escaped = escaped_length(bytes, length);
    if (writer->length + escaped > writer->max_bytes) { /* which is only counted */
        writer->length += escaped + 2;
        return;
    }
    WRITE_LITERAL(writer, "\"");
    for (size_t i = 0; i < length && writer->wrong == NULL; i++) {
        if (escaped_size(bytes[i]) == 1)
            continue;
        write_bytes(writer, bytes + plain, i - plain);
        write_escape(writer, bytes[i]);
        plain = i + 1;
    }
    write_bytes(writer, bytes + plain, length - plain);
    WRITE_LITERAL(writer, "\"");
}

static void write_unsigned(struct writer *writer, uint64_t number)
{
    char digits[20];
    size_t at = sizeof(digits);

    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    write_bytes(writer, digits + at, sizeof(digits) - at);
}

/* Return whether the number looks as if it had few decimals. Such a test is cheap beside printing the number. */
static bool has_few_decimals(double number)
{
    double scaled = number * 1e6;

    return fabs(scaled) < 1e12 && fabs(scaled - floor(scaled + 0.5)) < 1e-3;
}

/*
 * Write digits that are read as the same double, and something that tells it from an integer. 17 digits are always
 * enough, but make 0.10000000000000001 of 0.1. 15 digits are enough for most numbers with few decimals.
 */
static void write_real(struct writer *writer, double number)
{
    char text[40] = "";

    if (!isfinite(number)) {
        writer->wrong = "JSON has no infinite numbers and no NaN";
        return;
    }
    size_t length = 0;
    if (has_few_decimals(number))
        length = (size_t)snprintf(text, sizeof(text), "%.15g", number);
    if (length == 0 || strtod(text, NULL) != number)
        length = (size_t)snprintf(text, sizeof(text), "%.17g", number);
    if (strpbrk(text, ".e") == NULL) {
        memcpy(text + length, ".0", 3);
        length += 2;
    }
    write_bytes(writer, text, length);
}

static void write_value(struct writer *writer, const msgpack_object *value);

static void write_array(struct writer *writer, const msgpack_object_array *array)
{
    WRITE_LITERAL(writer, "[");
    for (uint32_t i = 0; i < array->size && writer->wrong == NULL; i++) {
        if (i > 0)
            WRITE_LITERAL(writer, ",");
        write_value(writer, &array->ptr[i]);
    }
    WRITE_LITERAL(writer, "]");
}

static void write_map(struct writer *writer, const msgpack_object_map *map)
{
    WRITE_LITERAL(writer, "{");
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
            WRITE_LITERAL(writer, ",");
        write_string(writer, key->via.str.ptr, key->via.str.size);
        WRITE_LITERAL(writer, ":");
        if (writer->wrong == NULL)
            write_value(writer, &map->ptr[i].val);
    }
    WRITE_LITERAL(writer, "}");
}

/* The depth is bounded: frame_scan has let the message through. */
static void write_value(struct writer *writer, const msgpack_object *value)
{
    switch (value->type) {
    case MSGPACK_OBJECT_NIL:
        WRITE_LITERAL(writer, "null");
        break;
    case MSGPACK_OBJECT_BOOLEAN:
        if (value->via.boolean)
            WRITE_LITERAL(writer, "true");
        else
            WRITE_LITERAL(writer, "false");
        break;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        if (value->via.u64 > INT64_MAX)
            writer->wrong = "an integer is over 2^63 - 1";
        else
            write_unsigned(writer, value->via.u64);
        break;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        WRITE_LITERAL(writer, "-");
        write_unsigned(writer, (uint64_t) - (value->via.i64 + 1) + 1);
        break;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        write_real(writer, value->via.f64);
        break;
    case MSGPACK_OBJECT_STR:
        write_string(writer, value->via.str.ptr, value->via.str.size);
        break;
    case MSGPACK_OBJECT_ARRAY:
        write_array(writer, &value->via.array);
        break;
    case MSGPACK_OBJECT_MAP:
        write_map(writer, &value->via.map);
        break;
    default:
        writer->wrong = "JSON has no bin and no ext; send a text as str";
        break;
    }
}

const char *json_from_msgpack(struct arena *arena, const msgpack_object *value, size_t max_bytes, const char **text,
                              size_t *bytes)
{
    struct writer writer = {.arena = arena, .max_bytes = max_bytes};

    write_value(&writer, value);
    *text = writer.length <= max_bytes ? writer.text : NULL;
    *bytes = writer.length;
    return writer.wrong;
}

/* --- JSON into MessagePack ------------------------------------------------------------------------- */

struct parser {
    struct arena *arena;
    const char *begin, *at, *end;
    const struct json_limits *limits;
    msgpack_sbuffer *out;
    msgpack_packer packer;
    uint32_t elements;
    unsigned depth;
    const char *wrong;
};

static bool fail(struct parser *parser, const char *wrong)
{
    if (parser->wrong == NULL)
        parser->wrong = wrong;
    return false;
}

/* The next character that is no blank; 0 at the end (which no valid text has in that place). */
static char next_character(struct parser *parser)
{
    while (parser->at < parser->end &&
           (*parser->at == ' ' || *parser->at == '\n' || *parser->at == '\t' || *parser->at == '\r'))
        parser->at++;
    return parser->at < parser->end ? *parser->at : '\0';
}

static bool take_literal(struct parser *parser, const char *literal)
{
    size_t length = strlen(literal);

    if ((size_t)(parser->end - parser->at) < length || memcmp(parser->at, literal, length) != 0)
        return fail(parser, "a value is expected");
    parser->at += length;
    return true;
}

static bool take_hex(const char **at, const char *end, unsigned *number)
{
    *number = 0;
    if (end - *at < 4)
        return false;
    for (unsigned i = 0; i < 4; i++, ++*at) {
        char c = **at;
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                : 16;
        if (digit == 16)
            return false;
        *number = *number << 4 | digit;
    }
    return true;
}

static char *put_utf8(char *to, unsigned character)
{
    if (character < 0x80) {
        *to++ = (char)character;
    } else if (character < 0x800) {
        *to++ = (char)(0xc0 | character >> 6);
        *to++ = (char)(0x80 | (character & 0x3f));
    } else if (character < 0x10000) {
        *to++ = (char)(0xe0 | character >> 12);
        *to++ = (char)(0x80 | (character >> 6 & 0x3f));
        *to++ = (char)(0x80 | (character & 0x3f));
    } else {
        *to++ = (char)(0xf0 | character >> 18);
        *to++ = (char)(0x80 | (character >> 12 & 0x3f));
        *to++ = (char)(0x80 | (character >> 6 & 0x3f));
        *to++ = (char)(0x80 | (character & 0x3f));
    }
    return to;
}

/* A \u escape, or two that are a surrogate pair (RFC 8259, section 7). *at is behind the 'u'. */
static char *take_unicode(const char **at, const char *end, char *to)
{
    unsigned first, second;

    if (!take_hex(at, end, &first) || (first >= 0xdc00 && first < 0xe000))
        return NULL;
    if (first < 0xd800 || first >= 0xe000)
        return put_utf8(to, first);
    if (end - *at < 2 || (*at)[0] != '\\' || (*at)[1] != 'u')
        return NULL;
    *at += 2;
    if (!take_hex(at, end, &second) || second < 0xdc00 || second >= 0xe000)
        return NULL;
    return put_utf8(to, 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
}

/* The text of a string with escapes: no longer than what stands for it. */
static char *unescape(const char *at, const char *end, char *to)
{
    static const char named[] = "\"\"\\\\//b\bf\fn\nr\rt\t";

    while (at < end) {
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        char c = *++at; /* a backslash is never the last one before the quote that ends the string */
        at++;
        if (c == 'u') {
            to = take_unicode(&at, end, to);
            if (to == NULL)
                return NULL;
            continue;
        }
        const char *name = named;
        while (name[0] != '\0' && name[0] != c)
            name += 2;
        if (name[0] == '\0')
            return NULL;
        *to++ = name[1];
    }
    return to;
}

/* The string at the quote. is_key: it has no NUL. */
static bool take_string(struct parser *parser, bool is_key)
{
    const char *begin = ++parser->at, *at = begin;
    bool has_escapes = false;

    while (at < parser->end && *at != '"') {
        if ((unsigned char)*at < 0x20)
            return fail(parser, "a control character in a string");
        if (*at == '\\') {
            has_escapes = true;
            at++;
        }
        at++;
    }
    if (at >= parser->end)
        return fail(parser, "a string does not end");
    if (!utf8_is_valid(begin, (size_t)(at - begin)))
        return fail(parser, "a string is not UTF-8");
    const char *text = begin;
    size_t length = (size_t)(at - begin);
    if (has_escapes) {
        char *scratch = arena_alloc(parser->arena, length);
        char *end = scratch != NULL ? unescape(begin, at, scratch) : NULL;
        if (end == NULL)
            return fail(parser, scratch != NULL ? "a wrong escape in a string" : "out of memory");
        text = scratch;
        length = (size_t)(end - scratch);
        if (is_key && memchr(text, '\0', length) != NULL)
            return fail(parser, "a name has a NUL in it");
    }
    parser->at = at + 1;
    msgpack_pack_str_with_body(&parser->packer, text, length);
    return true;
}

static bool is_digit(const struct parser *parser, const char *at)
{
    return at < parser->end && *at >= '0' && *at <= '9';
}

static const char *skip_digits(const struct parser *parser, const char *at)
{
    while (is_digit(parser, at))
        at++;
    return at;
}

/* strtod needs a NUL behind the number, which JSON text has not. */
static bool take_real(struct parser *parser, const char *end)
{
    char text[64], *copy = text;
    size_t length = (size_t)(end - parser->at);

    if (length >= sizeof(text)) {
        copy = arena_alloc(parser->arena, length + 1);
        if (copy == NULL)
            return fail(parser, "out of memory");
    }
    memcpy(copy, parser->at, length);
    copy[length] = '\0';
    double number = strtod(copy, NULL);
    if (!isfinite(number))
        return fail(parser, "a number is too large");
    msgpack_pack_double(&parser->packer, number);
    parser->at = end;
    return true;
}

static bool take_integer(struct parser *parser, const char *end)
{
    bool is_negative = *parser->at == '-';
    uint64_t number = 0, most = is_negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX;

    for (const char *at = parser->at + is_negative; at < end; at++) {
        unsigned digit = (unsigned)(*at - '0');
        if (number > (most - digit) / 10)
            return fail(parser, "an integer has more than 64 bits");
        number = number * 10 + digit;
    }
    if (is_negative)
        msgpack_pack_int64(&parser->packer, (int64_t)(0 - number));
    else
        msgpack_pack_uint64(&parser->packer, number);
    parser->at = end;
    return true;
}

static bool take_number(struct parser *parser)
{
    const char *at = parser->at + (*parser->at == '-');
    bool is_real = false;

    if (!is_digit(parser, at) || (*at == '0' && is_digit(parser, at + 1)))
        return fail(parser, "a value is expected");
    at = skip_digits(parser, at);
    if (at < parser->end && *at == '.') {
        if (!is_digit(parser, ++at))
            return fail(parser, "a digit is expected");
        at = skip_digits(parser, at);
        is_real = true;
    }
    if (at < parser->end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < parser->end && (*at == '+' || *at == '-'))
            at++;
        if (!is_digit(parser, at))
            return fail(parser, "a digit is expected");
        at = skip_digits(parser, at);
        is_real = true;
    }
    return is_real ? take_real(parser, at) : take_integer(parser, at);
}

/* The header of a container (array 32 or map 32), whose size is set at its end. Return where it is. */
static size_t begin_container(struct parser *parser, unsigned char type)
{
    char header[5] = {(char)type};

    msgpack_sbuffer_write(parser->out, header, sizeof(header));
    parser->at++;
    parser->depth++;
    return parser->out->size - sizeof(header);
}

static void end_container(struct parser *parser, size_t header, uint32_t size)
{
    char *at = parser->out->data + header;

    for (unsigned i = 1; i <= 4; i++)
        at[i] = (char)(size >> (32 - 8 * i));
    parser->at++;
    parser->depth--;
}

static bool count_element(struct parser *parser)
{
    return ++parser->elements <= parser->limits->elements || fail(parser, "it has too many values");
}

static bool take_value(struct parser *parser);

static bool take_member(struct parser *parser)
{
    if (next_character(parser) != '"')
        return fail(parser, "a name in quotes is expected");
    if (!count_element(parser) || !take_string(parser, true))
        return false;
    if (next_character(parser) != ':')
        return fail(parser, "a colon is expected");
    parser->at++;
    return take_value(parser);
}

/* An array or an object: take_one takes what is between two commas. */
static bool take_container(struct parser *parser, unsigned char type, char close,
                           bool (*take_one)(struct parser *parser))
{
    uint32_t size = 0;

    if (parser->depth == parser->limits->depth)
        return fail(parser, "it is nested too deeply");
    size_t header = begin_container(parser, type);
    if (next_character(parser) == close) {
        end_container(parser, header, 0);
        return true;
    }
    for (;;) {
        if (!take_one(parser))
            return false;
        size++;
        char c = next_character(parser);
        if (c == close)
            break;
        if (c != ',')
            return fail(parser, "a comma is expected");
        parser->at++;
    }
    end_container(parser, header, size);
    return true;
}

static bool take_value(struct parser *parser)
{
    char c = next_character(parser);

    if (!count_element(parser))
        return false;
    switch (c) {
    case '{':
        return take_container(parser, 0xdf, '}', take_member);
    case '[':
        return take_container(parser, 0xdd, ']', take_value);
    case '"':
        return take_string(parser, false);
    case 't':
        return take_literal(parser, "true") && msgpack_pack_true(&parser->packer) == 0;
    case 'f':
        return take_literal(parser, "false") && msgpack_pack_false(&parser->packer) == 0;
    case 'n':
        return take_literal(parser, "null") && msgpack_pack_nil(&parser->packer) == 0;
    default:
        return parser->at < parser->end ? take_number(parser) : fail(parser, "a value is expected");
    }
}

const char *json_to_msgpack(struct arena *arena, const char *text, size_t bytes, const struct json_limits *limits,
                            msgpack_sbuffer *out, char reason[JSON_REASON_BYTES])
{
    struct parser parser = {
        .arena = arena, .begin = text, .at = text, .end = text + bytes, .limits = limits, .out = out};

    msgpack_packer_init(&parser.packer, out, msgpack_sbuffer_write);
    if (take_value(&parser)) {
        next_character(&parser);
        if (parser.at < parser.end)
            fail(&parser, "something follows the value");
    }
    if (parser.wrong == NULL)
        return NULL;
    snprintf(reason, JSON_REASON_BYTES, "byte %zu: %s", (size_t)(parser.at - parser.begin), parser.wrong);
    return reason;
}
