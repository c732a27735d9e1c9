#include "daemon/store/write/counter_value.h"

#include "daemon/base/clock.h"
#include "daemon/store/bucket/bucket.h"

#define KNOWN_MS 1000u

bool counter_value_parse(const char *text, size_t length, int64_t *number)
{
    size_t sign = length > 0 && text[0] == '-' ? 1 : 0;
    int64_t negative = 0; /* -2^63 has no positive counterpart */

    if (length == 1 && text[0] == '0') {
        *number = 0;
        return true;
    }
    if (length <= sign || length > 20 || text[sign] == '0')
        return false;
    for (size_t i = sign; i < length; i++) {
        if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(negative, 10, &negative) ||
            __builtin_sub_overflow(negative, text[i] - '0', &negative))
            return false;
    }
    if (sign == 0 && negative == INT64_MIN)
        return false;
    *number = sign > 0 ? negative : -negative;
    return true;
}

static uint64_t counter_value_stream(const struct store *store, const char *bucket_name)
{
    const struct bucket *bucket = bucket_find_known(store, bucket_name);

    return bucket != NULL ? bucket_stream(store, bucket).identity : 0;
}

static void counter_value_note_source(struct counter_value *value, const struct store *store, const char *bucket_name)
{
    value->known_ms = uv_now(store->loop);
    value->connection = connection_number(store->connection);
    value->stream = counter_value_stream(store, bucket_name);
}

void counter_value_read(struct counter_value *value, const struct store *store, const char *bucket_name,
                        const struct kv_entry *entry)
{
    bool is_there = entry != NULL && entry->operation == KV_PUT;

    value->revision = entry != NULL ? entry->revision : 0;
    value->expires_us = is_there ? kv_read_expiry_us(entry) : 0;
    if (!is_there)
        value->kind = COUNTER_VALUE_ABSENT;
    else if (counter_value_parse(entry->value, entry->value_bytes, &value->number))
        value->kind = COUNTER_VALUE_NUMBER;
    else
        value->kind = COUNTER_VALUE_TEXT;
    counter_value_note_source(value, store, bucket_name);
}

void counter_value_write(struct counter_value *value, const struct store *store, const char *bucket_name,
                         int64_t number, uint64_t revision, int64_t expires_us)
{
    value->kind = COUNTER_VALUE_NUMBER;
    value->number = number;
    value->revision = revision;
    value->expires_us = expires_us;
    counter_value_note_source(value, store, bucket_name);
}

bool counter_value_is_usable(struct counter_value *value, const struct store *store, const char *bucket_name)
{
    if (value->kind == COUNTER_VALUE_UNKNOWN || uv_now(store->loop) - value->known_ms >= KNOWN_MS ||
        value->connection != connection_number(store->connection) ||
        value->stream != counter_value_stream(store, bucket_name))
        return false;
    /* The server removes it within a second. If it counted until then, increments that keep its TTL would prolong it.
     */
    if (value->expires_us > 0 && clock_epoch_us() >= value->expires_us) {
        value->kind = COUNTER_VALUE_ABSENT;
        value->expires_us = 0;
    }
    return true;
}

void counter_value_set_refusal(const struct counter_value *value, struct error *error)
{
    if (value->kind == COUNTER_VALUE_TEXT)
        error_set(error, ERROR_NOT_AN_INTEGER,
                  "the value is not a decimal integer of 64 bits, so nothing can be added to it; put a number first");
    else
        error_set(error, ERROR_OUT_OF_RANGE,
                  "the new value would exceed 64 bits (-2^63 to 2^63 - 1); nothing was added");
    error->has_revision = true;
    error->revision = value->revision;
}
