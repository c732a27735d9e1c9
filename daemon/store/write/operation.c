#include "daemon/store/write/operation.h"

#include "daemon/base/clock.h"
#include "daemon/store/context.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Return the bytes of the headers in a message: the caller's, with room for ours. */
static size_t operation_header_bytes(const struct operation *operation)
{
    size_t bytes = KV_HEADER_ROOM_BYTES;

    for (size_t i = 0; i < operation->header_count; i++)
        bytes += strlen(operation->headers[i].name) + strlen(operation->headers[i].value) + strlen(": \r\n");
    return bytes;
}

size_t operation_bytes(const struct operation *operation)
{
    return strlen(operation->key) + operation_header_bytes(operation) + operation->value_bytes;
}

/* Return whether the write may not use the space that is reserved for deletions and leases. */
static bool operation_is_value(const struct operation *operation)
{
    return operation->kind == KV_PUT && strncmp(operation->key, KV_LEASE_PREFIX, strlen(KV_LEASE_PREFIX)) != 0;
}

bool operation_check(const struct operation *operation, const struct store *store, const struct bucket *bucket,
                     struct error *error)
{
    size_t max_payload = connection_get_status(store->connection)->max_payload_bytes;

    if (bucket->max_value_size >= 0 && operation->value_bytes > (size_t)bucket->max_value_size) {
        error_set(error, ERROR_TOO_LARGE, "the value has %zu bytes; the bucket allows %" PRId64 " (max_value_size)",
                  operation->value_bytes, bucket->max_value_size);
        return false;
    }
    size_t headers = operation_header_bytes(operation);
    bool is_left_out = operation->value == NULL && operation->value_bytes > 0; /* too large already as JSON */
    if (is_left_out || (max_payload > 0 && operation->value_bytes + headers > max_payload)) {
        error_set(error, ERROR_TOO_LARGE,
                  "the value has %zu bytes, with its headers up to %zu; the NATS server allows %zu (max_payload)",
                  operation->value_bytes, operation->value_bytes + headers, max_payload);
        return false;
    }
    if (operation->ttl_s > 0 && !bucket->allows_ttl) {
        if (store->jetstream.is_known && store->jetstream.level < JETSTREAM_LEVEL_TTL)
            error_set(error, ERROR_UNSUPPORTED, "a TTL per key needs nats-server 2.11 or later");
        else
            error_set(error, ERROR_UNSUPPORTED, "the bucket does not allow a TTL per key; bucket.update enables it");
        return false;
    }
    return true;
}

bool operation_admit(const struct operation *operation, struct store *store, size_t *admitted_bytes,
                     struct error *error)
{
    return room_admit(store, operation->value_bytes + operation_header_bytes(operation), operation_is_value(operation),
                      admitted_bytes, error);
}

void operation_make_id(struct store *store, char id[OPERATION_ID_BYTES])
{
    char *at = stpcpy(stpcpy(id, connection_unique_id(store->connection)), "-"); /* 22 characters, and one */
    uint64_t number = ++store->write_ids;
    unsigned digits = (67 - (unsigned)__builtin_clzll(number)) / 4; /* each write has one: snprintf was a tenth of it */

    for (at[digits] = '\0'; digits > 0; number >>= 4)
        at[--digits] = "0123456789abcdef"[number & 15u];
}

void operation_keep_ttl(struct operation *operation, int64_t expires_us)
{
    int64_t left_us = expires_us - clock_epoch_us();

    operation->expires_us = expires_us;
    operation->ttl_s = expires_us == 0 ? 0 : left_us > 0 ? (left_us + 999999) / 1000000 : 1;
}

bool operation_rolls_up(const struct operation *operation, const struct bucket *bucket)
{
    return operation->kind == KV_PURGE || (operation->ttl_s > 0 && bucket->history > 1);
}

bool operation_make_message(struct arena *arena, const struct operation *operation, const struct bucket *bucket,
                            struct operation_message *message)
{
    char *subject = arena_alloc(arena, strlen(bucket->put_prefix) + strlen(operation->key) + 1);
    struct message_header *headers =
        arena_alloc(arena, (operation->header_count + OPERATION_OWN_HEADERS) * sizeof(*headers));
    size_t count = operation->header_count;

    if (subject == NULL || headers == NULL)
        return false;
    strcpy(stpcpy(subject, bucket->put_prefix), operation->key);
    if (count > 0)
        memcpy(headers, operation->headers, count * sizeof(*headers));
    if (operation->kind == KV_DELETE)
        operation_add_header(headers, &count, KV_HEADER_OPERATION, "DEL");
    if (operation->kind == KV_PURGE)
        operation_add_header(headers, &count, KV_HEADER_OPERATION, "PURGE");
    if (operation_rolls_up(operation, bucket))
        operation_add_header(headers, &count, KV_HEADER_ROLLUP, "sub");
    if (operation->ttl_s > 0) {
        char *ttl = arena_alloc(arena, 24);
        if (ttl == NULL)
            return false;
        snprintf(ttl, 24, "%" PRId64, operation->ttl_s);
        operation_add_header(headers, &count, KV_HEADER_TTL, ttl);
    }
    if (operation->lease != NULL)
        operation_add_header(headers, &count, KV_HEADER_LEASE, operation->lease);
    if (operation->owner != NULL)
        operation_add_header(headers, &count, KV_HEADER_OWNER, operation->owner);
    if (operation->ttl_s > 0 && operation->expires_us > 0) {
        char *expires = arena_alloc(arena, 24);
        if (expires == NULL)
            return false;
        snprintf(expires, 24, "%" PRId64, operation->expires_us);
        operation_add_header(headers, &count, KV_HEADER_EXPIRES, expires);
    }
    message->subject = subject;
    message->headers = headers;
    message->header_count = count;
    return true;
}

void operation_set_condition_error(const struct operation *operation, uint64_t current, struct error *error)
{
    if (operation->condition == OPERATION_IF_ABSENT)
        error_set(error, ERROR_ALREADY_EXISTS, "the key exists, at revision %" PRIu64, current);
    else if (current == 0)
        error_set(error, ERROR_CONFLICT,
                  "the key does not exist, so it is not at revision %" PRIu64 "; get it and try again",
                  operation->revision);
    else
        error_set(error, ERROR_CONFLICT, "the key is at revision %" PRIu64 ", not %" PRIu64 "; get it and try again",
                  current, operation->revision);
    error->has_revision = true;
    error->revision = current;
}

void operation_set_refused_error(struct error *error, unsigned tries)
{
    error_set(error, ERROR_DEADLINE_EXCEEDED,
              "gave up after %u attempts: concurrent writes to the key, or a replica that lags; nothing was written, "
              "try again",
              tries);
    error->outcome = ERROR_OUTCOME_NONE;
}

void operation_set_unknown_error(struct error *error, const char *key, const struct outcome_reading *reading)
{
    error_set(error, ERROR_UNAVAILABLE,
              "whether this write is stored is unknown: the NATS server restarted, or its leader changed, before it "
              "answered, and it has forgotten the write's id; read the key");
    error->key = key;
    error->has_revision = reading->is_there;
    error->revision = reading->sequence;
}

void operation_set_unread_error(struct error *error, const struct error *why)
{
    if (why->code != ERROR_DEADLINE_EXCEEDED && why->code != ERROR_UNAVAILABLE) {
        *error = *why;
        return;
    }
    error_set(error, why->code,
              "timed out: the NATS server answered neither the write nor the question whether it is stored; read the "
              "key, or allow a longer timeout");
}

bool operation_condition_holds(const struct operation *operation, const struct kv_entry *last)
{
    switch (operation->condition) {
    case OPERATION_IF_ABSENT:
        return last == NULL || last->operation != KV_PUT;
    case OPERATION_IF_PRESENT:
        return last != NULL && last->operation == KV_PUT;
    case OPERATION_IF_AT_REVISION:
        if (operation->revision == 0)
            return last == NULL || last->operation != KV_PUT;
        return last != NULL && operation->revision == last->revision;
    case OPERATION_IF_LAST:
        return operation->revision == (last != NULL ? last->revision : 0);
    case OPERATION_ALWAYS:
        break;
    }
    return true;
}
