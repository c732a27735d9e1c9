/*
 * cache_value: the headers and the value of an entry in one block of memory.
 *
 * Used by cache. The headers are names and values with a NUL each, and an empty name at their end; the value follows.
 */
#ifndef DAEMON_STORE_CACHE_VALUE_H
#define DAEMON_STORE_CACHE_VALUE_H

#include "daemon/nats/kv.h"

#include <stdbool.h>

/* A value with more headers is not kept. */
#define CACHE_HEADERS_MAX 16u

/*
 * Pack headers and value of an entry. *packed: the block, which the caller frees, or NULL if it would be empty. False:
 * there are too many headers, or no memory.
 */
bool cache_value_pack(const struct kv_entry *entry, char **packed, bool *has_headers);

/* Add the headers of a block to a message whose headers have room for CACHE_HEADERS_MAX. Return the value. */
const char *cache_value_read_headers(const char *packed, struct message_header *headers, size_t *count);

#endif
