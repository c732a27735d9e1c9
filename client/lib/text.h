/*
 * text: the daemon's strings, as the structs of kvstore.h have them.
 *
 * Used by the files that read results into one block: structs first, then the text
 * that they point to, each with a NUL behind it.
 */
#ifndef CLIENT_TEXT_H
#define CLIENT_TEXT_H

#include "client/lib/kvstore_raw.h"

/* Whether value is a str or bin; a map of str to str. */
bool text_is(const struct kvs_value *value);
bool text_is_map(const struct kvs_value *value);

/* The bytes that value's text takes, with its NUL; value that is none is "". */
size_t text_space(const struct kvs_value *value);

/* Copies value's text to *place, which moves on. */
char *text_copy(char **place, const struct kvs_value *value);

#endif
