#include "client/lib/text.h"

#include <string.h>

bool text_is(const struct kvs_value *value)
{
    return kvs_value_bytes(value, NULL) != NULL;
}

bool text_is_map(const struct kvs_value *value)
{
    if (kvs_value_type(value) != KVS_MAP)
        return false;
    for (size_t i = 0; i < kvs_value_count(value); i++) {
        if (!text_is(kvs_value_key(value, i)) || !text_is(kvs_value_item(value, i)))
            return false;
    }
    return true;
}

size_t text_space(const struct kvs_value *value)
{
    size_t size;

    kvs_value_bytes(value, &size);
    return size + 1;
}

char *text_copy(char **place, const struct kvs_value *value)
{
    size_t size;
    const char *bytes = kvs_value_bytes(value, &size);
    char *copy = *place;

    if (size > 0)
        memcpy(copy, bytes, size);
    copy[size] = '\0';
    *place += size + 1;
    return copy;
}
