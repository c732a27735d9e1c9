#include "daemon/store/follow/cache_value.h"

#include <stdlib.h>
#include <string.h>

/* Of the internal headers, those about the TTL and the lease are of use to readers. */
static bool cache_value_wants_header(const char *name)
{
    return !kv_is_internal_header(name) || kv_is_expiry_header(name) || strcmp(name, KV_HEADER_LEASE) == 0;
}

struct cache_value_tally {
    size_t count, bytes;
};

static bool cache_value_tally_header(void *arg, const char *name, const char *value)
{
    struct cache_value_tally *tally = arg;

    if (cache_value_wants_header(name)) {
        tally->count++;
        tally->bytes += strlen(name) + strlen(value) + 2;
    }
    return true;
}

static bool cache_value_copy_header(void *arg, const char *name, const char *value)
{
    char **at = arg;

    if (cache_value_wants_header(name)) {
        *at = stpcpy(*at, name) + 1;
        *at = stpcpy(*at, value) + 1;
    }
    return true;
}

bool cache_value_pack(const struct kv_entry *entry, char **packed, bool *has_headers)
{
    struct cache_value_tally tally = {0};

    message_each_header(entry->message, cache_value_tally_header, &tally);
    size_t bytes = (tally.count > 0 ? tally.bytes + 1 : 0) + entry->value_bytes;
    *packed = NULL;
    *has_headers = tally.count > 0;
    if (tally.count > CACHE_HEADERS_MAX)
        return false;
    if (bytes == 0)
        return true;
    char *at = *packed = malloc(bytes);
    if (at == NULL)
        return false;
    if (tally.count > 0) {
        message_each_header(entry->message, cache_value_copy_header, &at);
        *at++ = '\0';
    }
    if (entry->value_bytes > 0)
        memcpy(at, entry->value, entry->value_bytes);
    return true;
}

const char *cache_value_read_headers(const char *packed, struct message_header *headers, size_t *count)
{
    const char *at = packed;

    while (*at != '\0') {
        struct message_header *header = &headers[(*count)++];
        header->name = at;
        header->value = at += strlen(at) + 1;
        at += strlen(at) + 1;
    }
    return at + 1;
}
