#include "client/kvctl/kvctl.h"

#include <ctype.h>
#include <string.h>

#define DEPTH_MAX 100

static bool json_fail(struct json *json, const char *wrong)
{
    json->wrong = wrong;
    return false;
}

static void json_skip_blanks(struct json *json)
{
    json->at += strspn(json->at, " \t\r\n");
}

/* --- Strings ----------------------------------------------------------------------------------- */

/* Read digits hexadecimal digits at text. False if there are fewer. */
static bool json_read_hex(const char *text, int digits, unsigned *number)
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
static char *json_write_character(char *to, unsigned character)
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
static bool json_read_character(struct json *json, unsigned *character)
{
    unsigned low;

    if (!json_read_hex(json->at, 4, character))
        return json_fail(json, "\\u needs four hexadecimal digits");
    json->at += 4;
    if (*character < 0xd800 || *character > 0xdfff)
        return true;
    if (*character > 0xdbff || json->at[0] != '\\' || json->at[1] != 'u' || !json_read_hex(json->at + 2, 4, &low) ||
        low < 0xdc00 || low > 0xdfff)
        return json_fail(json, "the second half of a \\u surrogate pair is missing");
    json->at += 6;
    *character = 0x10000 + ((*character & 0x3ff) << 10) + (low & 0x3ff);
    return true;
}

/* Read what follows a backslash. NULL, with the reason, if it is not an escape. */
static char *json_read_escape(struct json *json, char *to)
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
        return json_read_character(json, &character) ? json_write_character(to, character) : NULL;
    if (letter == 'x' && json_read_hex(json->at, 2, &character)) {
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
            if ((to = json_read_escape(json, to)) == NULL)
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

static bool json_skip_string(struct json *json)
{
    for (json->at++; *json->at != '"'; json->at++) {
        if (*json->at == '\\')
            json->at++;
        if ((unsigned char)*json->at < 0x20)
            return json_fail(json, "a string has no closing quote, or contains a control character");
    }
    json->at++;
    return true;
}

static bool json_skip_digits(struct json *json)
{
    size_t digits = strspn(json->at, "0123456789");

    json->at += digits;
    return digits > 0;
}

static bool json_skip_number(struct json *json)
{
    json->at += *json->at == '-';
    bool leading_zero = json->at[0] == '0' && isdigit((unsigned char)json->at[1]);
    bool is_number = !leading_zero && json_skip_digits(json);
    if (is_number && *json->at == '.') {
        json->at++;
        is_number = json_skip_digits(json);
    }
    if (is_number && (*json->at == 'e' || *json->at == 'E')) {
        json->at++;
        json->at += *json->at == '+' || *json->at == '-';
        is_number = json_skip_digits(json);
    }
    return is_number || json_fail(json, "this is not a JSON value");
}

static bool json_skip_word(struct json *json)
{
    static const char *const words[] = {"true", "false", "null"};

    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        size_t length = strlen(words[i]);
        if (strncmp(json->at, words[i], length) == 0 && !isalnum((unsigned char)json->at[length])) {
            json->at += length;
            return true;
        }
    }
    return json_fail(json, "this is not a JSON value");
}

static bool json_skip_value(struct json *json, int depth);

/* The recursion is limited by depth. */
static bool json_skip_container(struct json *json, char closing, int depth)
{
    if (depth == DEPTH_MAX)
        return json_fail(json, "it is nested too deeply");
    json->at++;
    json_skip_blanks(json);
    if (*json->at == closing) {
        json->at++;
        return true;
    }
    for (;;) {
        json_skip_blanks(json);
        if (closing == '}') {
            if (*json->at != '"' || !json_skip_string(json))
                return json_fail(json, "a member's name in quotes is missing");
            json_skip_blanks(json);
            if (*json->at++ != ':')
                return json_fail(json, "a colon is missing after a member's name");
        }
        if (!json_skip_value(json, depth + 1))
            return false;
        json_skip_blanks(json);
        char next = *json->at;
        if (next != ',' && next != closing)
            return json_fail(json, "a comma or the closing bracket is missing");
        json->at++;
        if (next == closing)
            return true;
    }
}

static bool json_skip_value(struct json *json, int depth)
{
    json_skip_blanks(json);
    switch (*json->at) {
    case '"':
        return json_skip_string(json);
    case '{':
        return json_skip_container(json, '}', depth);
    case '[':
        return json_skip_container(json, ']', depth);
    case 't':
    case 'f':
    case 'n':
        return json_skip_word(json);
    default:
        return json_skip_number(json);
    }
}

/* --- Objects ----------------------------------------------------------------------------------- */

bool json_begin_object(struct json *json)
{
    json_skip_blanks(json);
    if (*json->at != '{')
        return json_fail(json, "a JSON object must begin with {");
    json->at++;
    json->is_inside = false;
    return true;
}

bool json_next_member(struct json *json, char **name, size_t *name_size)
{
    json_skip_blanks(json);
    if (*json->at == '}') {
        json->at++;
        return false;
    }
    if (json->is_inside && *json->at++ != ',')
        return json_fail(json, "a comma or } is missing after a value");
    json->is_inside = true;
    json_skip_blanks(json);
    if ((*name = json_read_string(json, name_size)) == NULL)
        return false;
    json_skip_blanks(json);
    if (*json->at != ':')
        return json_fail(json, "a colon is missing after a member's name");
    json->at++;
    return true;
}

bool json_read_member(struct json *json, const char **bytes, size_t *size)
{
    json_skip_blanks(json);
    if (*json->at == '"')
        return (*bytes = json_read_string(json, size)) != NULL;
    *bytes = json->at;
    if (!json_skip_value(json, 0))
        return false;
    *size = (size_t)(json->at - *bytes);
    return true;
}

bool json_end(struct json *json)
{
    json_skip_blanks(json);
    return *json->at == '\0' || json_fail(json, "there is text after the end of the object");
}
