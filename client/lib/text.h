/*
 * text: copies the daemon's strings to where the structs of kvstore.h point.
 *
 * Used by the files that read results into one block: first structs, then the text that they point to, each text
 * followed by NUL.
 */
#ifndef CLIENT_TEXT_H
#define CLIENT_TEXT_H

#include "client/lib/kvstore_raw.h"

/* Whether value is a string or binary value; whether it is a map of these. */
bool text_is(const struct kvs_value *value);
bool text_is_map(const struct kvs_value *value);

/* Return the bytes that value's text takes with its NUL; a value of another type is "". */
size_t text_space(const struct kvs_value *value);

/* Copy value's text to *place, and advance *place. */
char *text_copy(char **place, const struct kvs_value *value);

#endif
