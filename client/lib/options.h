/*
 * options: reads a program's options struct, which may be of an older or newer version of kvstore.h.
 *
 * Each options struct begins with its size. An older program has fewer members than the library: the others get their
 * default, zero. A newer program has more: they must be zero, because the library cannot do what they ask.
 */
#ifndef CLIENT_OPTIONS_H
#define CLIENT_OPTIONS_H

#include <stddef.h>

/* Copy the struct at options into *own, own_size bytes; NULL: all zero. Returns NULL, or what is wrong with it. */
const char *options_copy(void *own, size_t own_size, const void *options);

#endif
