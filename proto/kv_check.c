#include "proto/kv_check.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* --- Names ----------------------------------------------------------------------------------------- */

/* The classes of a character. A table, because each call's bucket and key are checked. */
enum { IN_KEY = 1, IN_BUCKET = 3 };
#define FIVE(c)                                                                                                        \
    [c] = IN_BUCKET, [(c) + 1] = IN_BUCKET, [(c) + 2] = IN_BUCKET, [(c) + 3] = IN_BUCKET, [(c) + 4] = IN_BUCKET
static const unsigned char character_kinds[256] = {
    FIVE('0'),         FIVE('5'),         FIVE('A'),         FIVE('F'),         FIVE('K'),      FIVE('P'),
    FIVE('U'),         FIVE('a'),         FIVE('f'),         FIVE('k'),         FIVE('p'),      FIVE('u'),
    ['Z'] = IN_BUCKET, ['z'] = IN_BUCKET, ['_'] = IN_BUCKET, ['-'] = IN_BUCKET, ['/'] = IN_KEY, ['='] = IN_KEY,
};

const char *kv_check_bucket(const char *name, size_t length)
{
    if (length == 0)
        return "a bucket's name must not be empty";
    if (length > KV_BUCKET_LENGTH_MAX)
        return "a bucket's name has at most 251 characters";
    for (size_t i = 0; i < length; i++) {
        if (character_kinds[(unsigned char)name[i]] != IN_BUCKET)
            return "a bucket's name consists of letters, digits, '_' and '-'";
    }
    return NULL;
}

static const char *check_tokens(const char *key, size_t length, bool is_filter)
{
    size_t token = 0; /* where the present one begins */
    unsigned tokens = 0;
    bool has_wildcard = false;

    if (length == 0)
        return is_filter ? "a filter must not be empty" : "a key must not be empty";
    if (length > KV_KEY_LENGTH_MAX)
        return is_filter ? "a filter has at most 1024 characters" : "a key has at most 1024 characters";
    for (size_t i = 0; i <= length; i++) {
        char c = i < length ? key[i] : '.';
        if (character_kinds[(unsigned char)c] & IN_KEY)
            continue;
        if (c == '.') {
            if (i == token)
                return "there must be a token before, after and between the dots";
            token = i + 1;
            tokens++;
        } else if (c == '*' || c == '>') {
            bool alone = i == token && (i + 1 == length || key[i + 1] == '.');
            if (!is_filter)
                return "a key consists of letters, digits and any of -/_=.";
            if (!alone || (c == '>' && i + 1 != length))
                return "in a filter, * stands for one whole token and > for the rest, at the end";
            has_wildcard = true;
        } else if (c == '\0') {
            return "a key has no NUL";
        } else {
            return is_filter ? "a filter consists of letters, digits, any of -/_=. and the tokens * and >"
                             : "a key consists of letters, digits and any of -/_=.";
        }
    }
    if (has_wildcard && tokens > KV_FILTER_TOKENS_MAX)
        return "a filter with * or > has at most 32 tokens";
    return NULL;
}

const char *kv_check_key(const char *key, size_t length)
{
    static const char reserved[] = KV_RESERVED_PREFIX;

    if (length >= sizeof(reserved) - 1 && memcmp(key, reserved, sizeof(reserved) - 1) == 0)
        return "keys that begin with _kvstored. are the daemon's own";
    return check_tokens(key, length, false);
}

bool kv_is_reserved(const char *key)
{
    return key[0] == KV_RESERVED_PREFIX[0] && strncmp(key, KV_RESERVED_PREFIX, strlen(KV_RESERVED_PREFIX)) == 0;
}

const char *kv_check_filter(const char *filter, size_t length)
{
    return check_tokens(filter, length, true);
}

bool kv_is_internal_header(const char *name)
{
    return strncasecmp(name, "Nats-", 5) == 0 || strncasecmp(name, "KV-", 3) == 0 ||
           strncasecmp(name, "Kvstored-", 9) == 0;
}

const char *kv_check_header(const char *name, const char *value)
{
    if (name[0] == '\0')
        return "a header's name must not be empty";
    if (kv_is_internal_header(name))
        return "headers that begin with Nats-, KV- or Kvstored- are reserved";
    if (strcasecmp(name, "Status") == 0 || strcasecmp(name, "Description") == 0)
        return "the headers Status and Description are the server's";
    for (const char *c = name; *c != '\0'; c++) {
        if (*c <= ' ' || *c >= 0x7f || *c == ':')
            return "a header's name consists of visible ASCII characters without a colon";
    }
    if (strpbrk(value, "\r\n") != NULL)
        return "a header's value has no line breaks";
    /* NATS clients skip blanks; the C library takes the line after an empty value for the value. */
    if (value[0] == '\0' || strchr(" \t", value[0]) != NULL || strchr(" \t", value[strlen(value) - 1]) != NULL)
        return "a header's value is not empty, and has no blanks at its ends";
    return NULL;
}
