/*
 * glob: shell patterns of buckets' names.
 *
 * Used for bucket.list, for access rules and for the buckets that the configuration names. fnmatch(3) takes
 * exponential time for some patterns; this takes at most the product of both lengths.
 */
#ifndef DAEMON_GLOB_H
#define DAEMON_GLOB_H

#include <stdbool.h>
#include <stddef.h>

/* Longer patterns are refused. */
#define GLOB_LENGTH_MAX 255u

/*
 * Return whether the whole text matches: '*' stands for any characters, '?' for one, "[a-c]" for one of these and
 * "[!a-c]" for one that is none of these. A backslash quotes the next character. A '[' without its ']' matches itself.
 */
bool glob_matches(const char *pattern, const char *text);

#endif
