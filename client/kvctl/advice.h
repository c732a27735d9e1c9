/*
 * advice: what the messages of errors tell the user of kvctl to do.
 *
 * Used by output.c. The daemon names methods and options of the protocol; people who use kvctl know its verbs.
 */
#ifndef KVCTL_ADVICE_H
#define KVCTL_ADVICE_H

#include <stddef.h>

/* Copy a message with kvctl's verbs and options instead of the protocol's. bucket: of the error; "": none. */
void advice_translate(const char *message, const char *bucket, char *out, size_t out_bytes);

#endif
