#include "client/kvctl/kvctl.h"

#include <ctype.h>
#include <string.h>

#define DEPTH_MAX 100

static bool fail(struct json *json, const char *wrong)
{
    json->wrong = wrong;
    return false;
}

static void skip_blanks(struct json *json)
{
    json->at += strspn(json->at, " \t\r\n");
}

/* --- Strings ----------------------------------------------------------------------------------- */

/* Read digits hexadecimal digits at text. False if there are fewer. */
static bool read_hex(const char *text, int digits, unsigned *number)
{
    *number = 0;
    for (int i = 0; i < digits; i++) {
        unsigned char digit = (unsigned char)text[i];
        if (!isxdigit(digit))
            return false;
        *number = *number * 16 + (unsigned)(isdigit(digit) ? digit - '0' : tolower(digit) - 'a' + 10);
    }
    return true;
}

/* Write a character as UTF-8, which is at most as long as its escape. */
static char *write_character(char *to, unsigned character)
{
    if (character < 0x80) {
        *to++ = (char)character;
        return to;
    }
    if (character < 0x800) {
        *to++ = (char)(0xc0 | character >> 6);
    } else if (character < 0x10000) {
        *to++ = (char)(0xe0 | character >> 12);
        *to++ = (char)(0x80 | (character >> 6 & 63));
    } else {
        *to++ = (char)(0xf0 | character >> 18);
        *to++ = (char)(0x80 | (character >> 12 & 63));
        *to++ = (char)(0x80 | (character >> 6 & 63));
    }
    *to++ = (char)(0x80 | (character & 63));
    return to;
}

/* Read what follows \u: a character, or the first half of a surrogate pair with its second half. */
static bool read_character(struct json *json, unsigned *character)
{
    unsigned low;

    if (!read_hex(json->at, 4, character))
        return fail(json, "\\u needs four hexadecimal digits");
    json->at += 4;
    if (*character < 0xd800 || *character > 0xdfff)
        return true;
    if (*character > 0xdbff || json->at[0] != '\\' || json->at[1] != 'u' || !read_hex(json->at + 2, 4, &low) ||
        low < 0xdc00 || low > 0xdfff)
        return fail(json, "the second half of a \\u surrogate pair is missing");
    json->at += 6;
    *character = 0x10000 + ((*character & 0x3ff) << 10) + (low & 0x3ff);
    return true;
}

/* Read what follows a backslash. NULL, with the reason, if it is not an escape. */
static char *read_escape(struct json *json, char *to)
{
    static const char names[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    char letter = *json->at;
    const char *name = letter != '\0' ? strchr(names, letter) : NULL;
    unsigned character;

    json->at += letter != '\0';
    if (name != NULL) {
        *to++ = meanings[name - names];
        return to;
    }
    if (letter == 'u')
        return read_character(json, &character) ? write_character(to, character) : NULL;
    if (letter == 'x' && read_hex(json->at, 2, &character)) {
        json->at += 2;
        *to++ = (char)character;
        return to;
    }
    json->wrong = letter == 'x' ? "\\x needs two hexadecimal digits"
                                : "a backslash must be followed by one of \" \\ / b f n r t, uXXXX or xXX";
    return NULL;
}

char *json_read_string(struct json *json, size_t *size)
{
    char *begin = json->at + 1, *to = begin;

    if (*json->at != '"') {
        json->wrong = "a string in double quotes is missing";
        return NULL;
    }
    for (json->at = begin; *json->at != '"';) {
        if (*json->at == '\\') {
            json->at++;
            if ((to = read_escape(json, to)) == NULL)
                return NULL;
        } else if ((unsigned char)*json->at < 0x20) {
            json->wrong = *json->at == '\0' || *json->at == '\n'
                              ? "the closing quote is missing"
                              : "a control character in quotes must be written as an escape";
            return NULL;
        } else {
            *to++ = *json->at++;
        }
    }
    json->at++;
    *size = (size_t)(to - begin);
    *to = '\0'; /* at most where the closing quote was */
    return begin;
}

/* --- Other values, which stay as they are --------------------------------------------------------- */

static bool skip_string(struct json *json)
{
    for (json->at++; *json->at != '"'; json->at++) {
        if (*json->at == '\\')
            json->at++;
        if ((unsigned char)*json->at < 0x20)
            return fail(json, "a string has no closing quote, or contains a control character");
    }
    json->at++;
    return true;
}

static bool skip_digits(struct json *json)
{
    size_t digits = strspn(json->at, "0123456789");

    json->at += digits;
    return digits > 0;
}

static bool skip_number(struct json *json)
{
    json->at += *json->at == '-';
    bool leading_zero = json->at[0] == '0' && isdigit((unsigned char)json->at[1]);
    bool is_number = !leading_zero && skip_digits(json);
    if (is_number && *json->at == '.') {
        json->at++;
        is_number = skip_digits(json);
    }
    if (is_number && (*json->at == 'e' || *json->at == 'E')) {
        json->at++;
        json->at += *json->at == '+' || *json->at == '-';
        is_number = skip_digits(json);
    }
    return is_number || fail(json, "this is not a JSON value");
}

static bool skip_word(struct json *json)
{
    static const char *const words[] = {"true", "false", "null"};

    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        size_t length = strlen(words[i]);
        if (strncmp(json->at, words[i], length) == 0 && !isalnum((unsigned char)json->at[length])) {
            json->at += length;
            return true;
        }
    }
    return fail(json, "this is not a JSON value");
}

static bool skip_value(struct json *json, int depth);

/* The recursion is limited by depth. */
static bool skip_container(struct json *json, char closing, int depth)
{
    if (depth == DEPTH_MAX)
        return fail(json, "it is nested too deeply");
    json->at++;
    skip_blanks(json);
    if (*json->at == closing) {
        json->at++;
        return true;
    }
    for (;;) {
        skip_blanks(json);
        if (closing == '}') {
            if (*json->at != '"' || !skip_string(json))
                return fail(json, "a member's name in quotes is missing");
            skip_blanks(json);
            if (*json->at++ != ':')
                return fail(json, "a colon is missing after a member's name");
        }
        if (!skip_value(json, depth + 1))
            return false;
        skip_blanks(json);
        char next = *json->at;
        if (next != ',' && next != closing)
            return fail(json, "a comma or the closing bracket is missing");
        json->at++;
        if (next == closing)
            return true;
    }
}

static bool skip_value(struct json *json, int depth)
{
    skip_blanks(json);
    switch (*json->at) {
    case '"':
        return skip_string(json);
    case '{':
        return skip_container(json, '}', depth);
    case '[':
        return skip_container(json, ']', depth);
    case 't':
    case 'f':
    case 'n':
        return skip_word(json);
    default:
        return skip_number(json);
    }
}

/* --- Objects ----------------------------------------------------------------------------------- */

bool json_begin_object(struct json *json)
{
    skip_blanks(json);
    if (*json->at != '{')
        return fail(json, "a JSON object must begin with {");
    json->at++;
    json->is_inside = false;
    return true;
}

bool json_next_member(struct json *json, char **name, size_t *name_size)
{
    skip_blanks(json);
    if (*json->at == '}') {
        json->at++;
        return false;
    }
    if (json->is_inside && *json->at++ != ',')
        return fail(json, "a comma or } is missing after a value");
    json->is_inside = true;
    skip_blanks(json);
    if ((*name = json_read_string(json, name_size)) == NULL)
        return false;
    skip_blanks(json);
    if (*json->at != ':')
        return fail(json, "a colon is missing after a member's name");
    json->at++;
    return true;
}

bool json_read_member(struct json *json, const char **bytes, size_t *size)
{
    skip_blanks(json);
    if (*json->at == '"')
        return (*bytes = json_read_string(json, size)) != NULL;
    *bytes = json->at;
    if (!skip_value(json, 0))
        return false;
    *size = (size_t)(json->at - *bytes);
    return true;
}

bool json_end(struct json *json)
{
    skip_blanks(json);
    return *json->at == '\0' || fail(json, "there is text after the end of the object");
}
