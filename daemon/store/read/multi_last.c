#include "daemon/store/read/multi_last.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum connection_publish_result multi_last_publish(struct request *request, const struct store *store,
                                                  const struct bucket *bucket, const char *body, size_t body_bytes)
{
    char subject[sizeof(store->jetstream.prefix) + KV_STREAM_BYTES + 16];

    snprintf(subject, sizeof(subject), "%s.DIRECT.GET.%s", store->jetstream.prefix, bucket->stream);
    return request_publish(request, subject, NULL, 0, body, body_bytes);
}

char *multi_last_body(const char *options, const char *prefix, const char *const *keys, size_t count, size_t *bytes)
{
    static const char list[] = "\"multi_last\":[";
    size_t prefix_length = strlen(prefix), size = strlen(options) + sizeof("{]}") + strlen(list);

    for (size_t i = 0; i < count; i++)
        size += prefix_length + strlen(keys[i]) + 3;
    char *body = malloc(size);
    if (body == NULL)
        return NULL;
    char *at = stpcpy(stpcpy(stpcpy(body, "{"), options), list);
    for (size_t i = 0; i < count; i++) { /* kv_check_key allows no character that needs escaping */
        *at++ = '"';
        memcpy(at, prefix, prefix_length);
        at = stpcpy(at + prefix_length, keys[i]);
        *at++ = '"';
        *at++ = ',';
    }
    at = stpcpy(count > 0 ? at - 1 : at, "]}");
    *bytes = (size_t)(at - body);
    return body;
}
