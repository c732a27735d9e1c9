#include "daemon/rpc/json.h"

#include "proto/utf8.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct json_parser {
    struct arena *arena;
    const char *begin, *at, *end;
    const struct json_limits *limits;
    msgpack_sbuffer *out;
    msgpack_packer packer;
    uint32_t elements;
    unsigned depth;
    const char *wrong;
};

static bool json_fail(struct json_parser *parser, const char *wrong)
{
    if (parser->wrong == NULL)
        parser->wrong = wrong;
    return false;
}

/* Skip blanks and return the next character; 0 at the end of the text, where no valid text has a NUL. */
static char json_next_character(struct json_parser *parser)
{
    while (parser->at < parser->end &&
           (*parser->at == ' ' || *parser->at == '\n' || *parser->at == '\t' || *parser->at == '\r'))
        parser->at++;
    return parser->at < parser->end ? *parser->at : '\0';
}

static bool json_parse_literal(struct json_parser *parser, const char *literal)
{
    size_t length = strlen(literal);

    if ((size_t)(parser->end - parser->at) < length || memcmp(parser->at, literal, length) != 0)
        return json_fail(parser, "a value is expected");
    parser->at += length;
    return true;
}

static bool json_parse_hex(const char **at, const char *end, unsigned *number)
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

static char *json_put_utf8(char *to, unsigned character)
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

/* Parse a \u escape, or a surrogate pair of two (RFC 8259, section 7). *at is after the 'u'. */
static char *json_parse_unicode(const char **at, const char *end, char *to)
{
    unsigned first, second;

    if (!json_parse_hex(at, end, &first) || (first >= 0xdc00 && first < 0xe000))
        return NULL;
    if (first < 0xd800 || first >= 0xe000)
        return json_put_utf8(to, first);
    if (end - *at < 2 || (*at)[0] != '\\' || (*at)[1] != 'u')
        return NULL;
    *at += 2;
    if (!json_parse_hex(at, end, &second) || second < 0xdc00 || second >= 0xe000)
        return NULL;
    return json_put_utf8(to, 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
}

/* Decode a string with escapes. The text is never longer than its escaped form. NULL: an escape is wrong. */
static char *json_unescape(const char *at, const char *end, char *to)
{
    static const char named[] = "\"\"\\\\//b\bf\fn\nr\rt\t";

    while (at < end) {
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        char c = *++at; /* a character follows each backslash: the scan for the closing quote skipped it */
        at++;
        if (c == 'u') {
            to = json_parse_unicode(&at, end, to);
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

/* Parse the string that begins at the quote. is_key: it must have no NUL. */
static bool json_parse_string(struct json_parser *parser, bool is_key)
{
    const char *begin = ++parser->at, *at = begin;
    bool has_escapes = false;

    while (at < parser->end && *at != '"') {
        if ((unsigned char)*at < 0x20)
            return json_fail(parser, "a control character in a string");
        if (*at == '\\') {
            has_escapes = true;
            at++;
        }
        at++;
    }
    if (at >= parser->end)
        return json_fail(parser, "a string does not end");
    if (!utf8_is_valid(begin, (size_t)(at - begin)))
        return json_fail(parser, "a string is not UTF-8");
    const char *text = begin;
    size_t length = (size_t)(at - begin);
    if (has_escapes) {
        char *scratch = arena_alloc(parser->arena, length);
        char *end = scratch != NULL ? json_unescape(begin, at, scratch) : NULL;
        if (end == NULL)
            return json_fail(parser, scratch != NULL ? "a wrong escape in a string" : "out of memory");
        text = scratch;
        length = (size_t)(end - scratch);
        if (is_key && memchr(text, '\0', length) != NULL)
            return json_fail(parser, "a name has a NUL in it");
    }
    parser->at = at + 1;
    msgpack_pack_str_with_body(&parser->packer, text, length);
    return true;
}

static bool json_is_digit(const struct json_parser *parser, const char *at)
{
    return at < parser->end && *at >= '0' && *at <= '9';
}

static const char *json_skip_digits(const struct json_parser *parser, const char *at)
{
    while (json_is_digit(parser, at))
        at++;
    return at;
}

/* Copy the number, because strtod needs a NUL after it. */
static bool json_parse_real(struct json_parser *parser, const char *end)
{
    char text[64], *copy = text;
    size_t length = (size_t)(end - parser->at);

    if (length >= sizeof(text)) {
        copy = arena_alloc(parser->arena, length + 1);
        if (copy == NULL)
            return json_fail(parser, "out of memory");
    }
    memcpy(copy, parser->at, length);
    copy[length] = '\0';
    double number = strtod(copy, NULL);
    if (!isfinite(number))
        return json_fail(parser, "a number is too large");
    msgpack_pack_double(&parser->packer, number);
    parser->at = end;
    return true;
}

static bool json_parse_integer(struct json_parser *parser, const char *end)
{
    bool is_negative = *parser->at == '-';
    uint64_t number = 0, most = is_negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX;

    for (const char *at = parser->at + is_negative; at < end; at++) {
        unsigned digit = (unsigned)(*at - '0');
        if (number > (most - digit) / 10)
            return json_fail(parser, "an integer has more than 64 bits");
        number = number * 10 + digit;
    }
    if (is_negative)
        msgpack_pack_int64(&parser->packer, (int64_t)(0 - number));
    else
        msgpack_pack_uint64(&parser->packer, number);
    parser->at = end;
    return true;
}

static bool json_parse_number(struct json_parser *parser)
{
    const char *at = parser->at + (*parser->at == '-');
    bool is_real = false;

    if (!json_is_digit(parser, at) || (*at == '0' && json_is_digit(parser, at + 1)))
        return json_fail(parser, "a value is expected");
    at = json_skip_digits(parser, at);
    if (at < parser->end && *at == '.') {
        if (!json_is_digit(parser, ++at))
            return json_fail(parser, "a digit is expected");
        at = json_skip_digits(parser, at);
        is_real = true;
    }
    if (at < parser->end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < parser->end && (*at == '+' || *at == '-'))
            at++;
        if (!json_is_digit(parser, at))
            return json_fail(parser, "a digit is expected");
        at = json_skip_digits(parser, at);
        is_real = true;
    }
    return is_real ? json_parse_real(parser, at) : json_parse_integer(parser, at);
}

/* Write the header of an array 32 or a map 32, whose size is set at its end. Return its offset. */
static size_t json_begin_container(struct json_parser *parser, unsigned char type)
{
    char header[5] = {(char)type};

    msgpack_sbuffer_write(parser->out, header, sizeof(header));
    parser->at++;
    parser->depth++;
    return parser->out->size - sizeof(header);
}

static void json_end_container(struct json_parser *parser, size_t header, uint32_t size)
{
    char *at = parser->out->data + header;

    for (unsigned i = 1; i <= 4; i++)
        at[i] = (char)(size >> (32 - 8 * i));
    parser->at++;
    parser->depth--;
}

static bool json_count_element(struct json_parser *parser)
{
    return ++parser->elements <= parser->limits->elements || json_fail(parser, "it has too many values");
}

static bool json_parse_value(struct json_parser *parser);

static bool json_parse_member(struct json_parser *parser)
{
    if (json_next_character(parser) != '"')
        return json_fail(parser, "a name in quotes is expected");
    if (!json_count_element(parser) || !json_parse_string(parser, true))
        return false;
    if (json_next_character(parser) != ':')
        return json_fail(parser, "a colon is expected");
    parser->at++;
    return json_parse_value(parser);
}

/* Parse an array or an object. parse_one parses what is between two commas. */
static bool json_parse_container(struct json_parser *parser, unsigned char type, char close,
                                 bool (*parse_one)(struct json_parser *parser))
{
    uint32_t size = 0;

    if (parser->depth == parser->limits->depth)
        return json_fail(parser, "it is nested too deeply");
    size_t header = json_begin_container(parser, type);
    if (json_next_character(parser) == close) {
        json_end_container(parser, header, 0);
        return true;
    }
    for (;;) {
        if (!parse_one(parser))
            return false;
        size++;
        char c = json_next_character(parser);
        if (c == close)
            break;
        if (c != ',')
            return json_fail(parser, "a comma is expected");
        parser->at++;
    }
    json_end_container(parser, header, size);
    return true;
}

static bool json_parse_value(struct json_parser *parser)
{
    char c = json_next_character(parser);

    if (!json_count_element(parser))
        return false;
    switch (c) {
    case '{':
        return json_parse_container(parser, 0xdf, '}', json_parse_member);
    case '[':
        return json_parse_container(parser, 0xdd, ']', json_parse_value);
    case '"':
        return json_parse_string(parser, false);
    case 't':
        return json_parse_literal(parser, "true") && msgpack_pack_true(&parser->packer) == 0;
    case 'f':
        return json_parse_literal(parser, "false") && msgpack_pack_false(&parser->packer) == 0;
    case 'n':
        return json_parse_literal(parser, "null") && msgpack_pack_nil(&parser->packer) == 0;
    default:
        return parser->at < parser->end ? json_parse_number(parser) : json_fail(parser, "a value is expected");
    }
}

const char *json_to_msgpack(struct arena *arena, const char *text, size_t bytes, const struct json_limits *limits,
                            msgpack_sbuffer *out, char reason[JSON_REASON_BYTES])
{
    struct json_parser parser = {
        .arena = arena, .begin = text, .at = text, .end = text + bytes, .limits = limits, .out = out};

    msgpack_packer_init(&parser.packer, out, msgpack_sbuffer_write);
    if (json_parse_value(&parser)) {
        json_next_character(&parser);
        if (parser.at < parser.end)
            json_fail(&parser, "text follows the value");
    }
    if (parser.wrong == NULL)
        return NULL;
    snprintf(reason, JSON_REASON_BYTES, "byte %zu: %s", (size_t)(parser.at - parser.begin), parser.wrong);
    return reason;
}
