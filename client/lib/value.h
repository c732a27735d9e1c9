/*
 * value: trees of values; see kvstore_raw.h.
 *
 * Used to place a copy of a tree in the same block as what refers to it.
 */
#ifndef CLIENT_VALUE_H
#define CLIENT_VALUE_H

#include "client/lib/kvstore_raw.h"

/* The bytes that a copy of value takes. */
size_t value_copy_bytes(const struct kvs_value *value);

/* Copy value to block, which has value_copy_bytes and is aligned for pointers. */
struct kvs_value *value_copy_to(void *block, const struct kvs_value *value);

#endif
