/*
 * utf8: whether bytes are a text.
 *
 * Used for each text that is received or sent: MessagePack's str and JSON's strings are UTF-8 (RFC 3629).
 */
#ifndef PROTO_UTF8_H
#define PROTO_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Return the length of the character at the beginning of length (at least 1) bytes, 0 if there is no valid one. */
size_t utf8_character(const char *bytes, size_t length);

/* Whether all bytes are valid UTF-8. */
bool utf8_is_valid(const char *bytes, size_t length);

#endif
