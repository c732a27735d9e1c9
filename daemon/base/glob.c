#include "daemon/base/glob.h"

#include <string.h>

/* Match one character against the set after '['. Return the end of the set, NULL if it does not end. */
static const char *match_set(const char *set, char c, bool *is_match)
{
    bool is_negated = *set == '!' || *set == '^', is_in = false;
    const char *at = set + is_negated, *first = at;

    /* A ']' that comes first is a member. */
    while (*at != '\0' && (*at != ']' || at == first)) {
        char low = *at++, high = low;
        if (at[0] == '-' && at[1] != ']' && at[1] != '\0') {
            high = at[1];
            at += 2;
        }
        is_in |= (unsigned char)low <= (unsigned char)c && (unsigned char)c <= (unsigned char)high;
    }
    *is_match = is_in != is_negated;
    return *at == ']' ? at + 1 : NULL;
}

/* Match one character against the next element, which is no '*'. Return the end of that element, NULL: no match. */
static const char *match_one(const char *pattern, char c)
{
    bool is_match;

    if (*pattern == '?')
        return pattern + 1;
    if (*pattern == '[') {
        const char *end = match_set(pattern + 1, c, &is_match);
        if (end != NULL)
            return is_match ? end : NULL;
    }
    if (*pattern == '\\' && pattern[1] != '\0')
        pattern++;
    return *pattern == c ? pattern + 1 : NULL;
}

bool glob_matches(const char *pattern, const char *text)
{
    const char *star = NULL, *star_text = NULL;

    while (*text != '\0') {
        const char *next = *pattern != '\0' && *pattern != '*' ? match_one(pattern, *text) : NULL;
        if (*pattern == '*') {
            star = pattern++;
            star_text = text;
        } else if (next != NULL) {
            pattern = next;
            text++;
        } else if (star != NULL) {
            /* Only the last star need take one more: what is before it has its shortest match already. */
            pattern = star + 1;
            text = ++star_text;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}
