#include "client/lib/error.h"

#include "proto/error.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static_assert((int)KVS_INVALID_ARGUMENT == (int)ERROR_INVALID_ARGUMENT && (int)KVS_INTERNAL == (int)ERROR_INTERNAL &&
                  (int)KVS_INTERNAL + 1 == (int)ERROR_CODE_COUNT,
              "the codes of kvstore.h mirror those of proto/error.h");
static_assert((int)KVS_OUTCOME_NONE == (int)ERROR_OUTCOME_NONE &&
                  (int)KVS_OUTCOME_UNKNOWN == (int)ERROR_OUTCOME_UNKNOWN,
              "the outcomes of kvstore.h mirror those of proto/error.h");
static_assert(KVS_MESSAGE_BYTES == ERROR_MESSAGE_BYTES, "messages are as long as on the wire");

const char *kvs_code_name(enum kvs_code code)
{
    switch (code) {
    case KVS_OK:
        return "ok";
    case KVS_IO:
        return "io";
    case KVS_PROTOCOL:
        return "protocol";
    case KVS_NO_MEMORY:
        return "no_memory";
    default:
        return error_code_name((enum error_code)code);
    }
}

enum kvs_code client_error_set(struct kvs_error *error, enum kvs_code code, const char *format, ...)
{
    va_list args;

    memset(error, 0, sizeof(*error));
    error->code = code;
    error->retryable =
        code == KVS_UNAVAILABLE || code == KVS_DEADLINE_EXCEEDED || code == KVS_RESOURCE_EXHAUSTED || code == KVS_IO;
    va_start(args, format);
    vsnprintf(error->message, sizeof(error->message), format, args);
    va_end(args);
    return code;
}

static void client_error_copy_cut(char *to, size_t capacity, const char *from, size_t length)
{
    if (from == NULL)
        return;
    if (length >= capacity)
        length = capacity - 1;
    memcpy(to, from, length);
    to[length] = '\0';
}

bool client_error_read(struct kvs_error *error, const msgpack_object *map)
{
    struct error wire;
    size_t bucket_length = 0, key_length = 0;

    if (!error_unpack(map, &wire, &bucket_length, &key_length))
        return false;
    memset(error, 0, sizeof(*error));
    error->code = (enum kvs_code)wire.code;
    error->retryable = wire.retryable;
    error->outcome = (enum kvs_outcome)wire.outcome;
    error->has_revision = wire.has_revision;
    error->revision = wire.revision;
    client_error_copy_cut(error->bucket, sizeof(error->bucket), wire.bucket, bucket_length);
    client_error_copy_cut(error->key, sizeof(error->key), wire.key, key_length);
    error->value_size = wire.value_bytes < sizeof(error->value) ? wire.value_bytes : sizeof(error->value) - 1;
    client_error_copy_cut(error->value, sizeof(error->value), wire.value, wire.value_bytes);
    client_error_copy_cut(error->message, sizeof(error->message), wire.message, strlen(wire.message));
    return true;
}

bool kvs_value_error(const struct kvs_value *value, struct kvs_error *error)
{
    /* A value is a msgpack_object by another name. */
    return kvs_value_type(value) == KVS_MAP && client_error_read(error, (const msgpack_object *)value);
}
