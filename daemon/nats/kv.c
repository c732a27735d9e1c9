#include "daemon/nats/kv.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* --- Names ----------------------------------------------------------------------------------------- */

bool kv_is_expiry_header(const char *name)
{
    return strcmp(name, KV_HEADER_TTL) == 0 || strcmp(name, KV_HEADER_EXPIRES) == 0;
}

bool kv_filter_matches(const char *filter, const char *key)
{
    for (;;) {
        size_t filter_length = strcspn(filter, "."), key_length = strcspn(key, ".");
        if (filter[0] == '>')
            return key_length > 0;
        bool any = filter_length == 1 && filter[0] == '*';
        if (!any && (filter_length != key_length || memcmp(filter, key, key_length) != 0))
            return false;
        filter += filter_length;
        key += key_length;
        if (*filter == '\0' || *key == '\0')
            return *filter == *key;
        filter++;
        key++;
    }
}

/* --- Entries --------------------------------------------------------------------------------------- */

/* Parse count digits. */
static int kv_read_digits(const char *text, unsigned count)
{
    int number = 0;

    for (unsigned i = 0; i < count; i++)
        number = number * 10 + (text[i] - '0');
    return number;
}

/* Return the days since 1970-01-01 in the Gregorian calendar. Months count from March, so the leap day is the last. */
static int64_t days_of(int64_t year, int month, int day)
{
    year -= month <= 2;
    int64_t era = year / 400, year_of_era = year % 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

/* Each direct get has a time: sscanf and timegm together took a twentieth of a get's processor time. */
int64_t kv_parse_time_us(const char *text)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd";
    int64_t fraction_us = 0, scale = 100000;

    for (unsigned i = 0; i < sizeof(form) - 1; i++) {
        bool is_digit = text[i] >= '0' && text[i] <= '9';
        if (form[i] == 'd' ? !is_digit : text[i] != form[i])
            return -1;
    }
    int64_t seconds =
        days_of(kv_read_digits(text, 4), kv_read_digits(text + 5, 2), kv_read_digits(text + 8, 2)) * 86400 +
        kv_read_digits(text + 11, 2) * 3600 + kv_read_digits(text + 14, 2) * 60 + kv_read_digits(text + 17, 2);
    text += sizeof(form) - 1;
    if (*text == '.') {
        for (text++; *text >= '0' && *text <= '9'; text++) {
            fraction_us += scale * (*text - '0');
            scale /= 10;
        }
    }
    return strcmp(text, "Z") == 0 ? seconds * 1000000 + fraction_us : -1;
}

static enum kv_operation read_operation(struct message *message)
{
    const char *operation = message_header(message, KV_HEADER_OPERATION);

    if (operation != NULL)
        return strcmp(operation, "DEL") == 0 ? KV_DELETE : strcmp(operation, "PURGE") == 0 ? KV_PURGE : KV_PUT;
    /* A marker of the server: ADR-48 maps its reasons to operations. */
    const char *reason = message_header(message, KV_HEADER_MARKER_REASON);
    if (reason == NULL)
        return KV_PUT;
    return strcmp(reason, "Remove") == 0 ? KV_DELETE : KV_PURGE;
}

bool kv_read_entry(struct message *message, const char *subject, const char *prefix, uint64_t sequence,
                   int64_t created_us, struct kv_entry *entry)
{
    size_t prefix_length = strlen(prefix);

    if (strncmp(subject, prefix, prefix_length) != 0 || strlen(subject) > KV_FOREIGN_KEY_LENGTH_MAX)
        return false;
    memset(entry, 0, sizeof(*entry));
    entry->key = subject + prefix_length;
    entry->operation = read_operation(message);
    /* The payload that another program has stored with a marker is no value (ADR-8). */
    entry->value = entry->operation == KV_PUT ? message->payload : "";
    entry->value_bytes = entry->operation == KV_PUT ? message->payload_bytes : 0;
    entry->revision = sequence;
    entry->created_us = created_us;
    entry->message = message;
    return true;
}

bool kv_read_direct_entry(struct message *message, const char *prefix, struct kv_entry *entry)
{
    const char *subject = message_last_header(message, KV_HEADER_SUBJECT);
    const char *sequence = message_last_header(message, KV_HEADER_SEQUENCE);
    const char *time_stamp = message_last_header(message, KV_HEADER_TIME_STAMP);

    if (subject == NULL || sequence == NULL || time_stamp == NULL)
        return false;
    return kv_read_entry(message, subject, prefix, strtoull(sequence, NULL, 10), kv_parse_time_us(time_stamp), entry);
}

/* Read a duration of hours, minutes and seconds, or seconds without a unit. -1: it is none. */
static int64_t kv_parse_duration_s(const char *text)
{
    int64_t total_s = 0;

    do {
        char *end;
        long long number = strtoll(text, &end, 10);
        if (end == text || number < 0 || number > INT32_MAX || strchr("hms", *end) == NULL)
            return -1;
        total_s += number * (*end == 'h' ? 3600 : *end == 'm' ? 60 : 1);
        text = *end != '\0' ? end + 1 : end;
    } while (*text != '\0');
    return total_s;
}

int64_t kv_read_ttl(struct message *message)
{
    const char *ttl = message_header(message, KV_HEADER_TTL);

    if (ttl == NULL || strcmp(ttl, "never") == 0)
        return 0;
    int64_t ttl_s = kv_parse_duration_s(ttl);
    return ttl_s > 0 ? ttl_s : -1;
}

int64_t kv_read_expiry_us(const struct kv_entry *entry)
{
    int64_t ttl_s = entry->message->header_count > 0 ? kv_read_ttl(entry->message) : 0;

    if (ttl_s <= 0)
        return 0;
    int64_t removed_us = entry->created_us + ttl_s * 1000000;
    const char *header = message_header(entry->message, KV_HEADER_EXPIRES);
    int64_t expires_us = header != NULL ? strtoll(header, NULL, 10) : 0;
    return expires_us > 0 && expires_us < removed_us ? expires_us : removed_us;
}

uint64_t kv_header_number(struct message *message, const char *name)
{
    const char *number = message_last_header(message, name);

    return number != NULL ? strtoull(number, NULL, 10) : 0;
}

enum kv_read_progress kv_read_progress(struct message *message)
{
    unsigned status = message_status(message);

    switch (status) {
    case 0:
        return KV_READ_CONTINUES;
    case 204:
        return kv_header_number(message, KV_HEADER_PENDING) == 0 ? KV_READ_ENDED : KV_READ_CUT;
    case 404:
        return strcmp(message_status_text(message), "No Results") == 0 ? KV_READ_ENDED : KV_READ_DISTURBED;
    default:
        return KV_READ_FAILED;
    }
}

/*
 * Nearly every ack is {"stream":"KV_b","seq":12} or that with a duplicate's mark: read without building a tree.
 * Return false if it is anything else.
 */
static bool read_plain_ack(const struct message *message, struct kv_ack *ack)
{
    static const char sequence_key[] = "\",\"seq\":";
    const char *at = message->payload, *end = message->payload + message->payload_bytes;

    if (message->payload_bytes < 16 || memcmp(at, "{\"stream\":\"", 11) != 0)
        return false;
    at = memchr(at + 11, '"', message->payload_bytes - 11);
    if (at == NULL || (size_t)(end - at) < sizeof(sequence_key) ||
        memcmp(at, sequence_key, sizeof(sequence_key) - 1) != 0)
        return false;
    for (at += sizeof(sequence_key) - 1; at < end && *at >= '0' && *at <= '9'; at++)
        ack->sequence = ack->sequence * 10 + (uint64_t)(*at - '0');
    return end - at == 1 && *at == '}' && ack->sequence > 0;
}

bool kv_read_ack(const struct message *message, struct kv_ack *ack)
{
    memset(ack, 0, sizeof(*ack));
    if (read_plain_ack(message, ack))
        return true;
    ack->sequence = 0;

    json_t *answer = json_loadb(message->payload, message->payload_bytes, 0, NULL);
    json_t *error = json_object_get(answer, "error");
    if (json_is_object(error)) {
        const char *description = json_string_value(json_object_get(error, "description"));
        ack->code = (unsigned)json_integer_value(json_object_get(error, "code"));
        ack->err_code = (unsigned)json_integer_value(json_object_get(error, "err_code"));
        if (ack->err_code == 0)
            ack->err_code = ack->code;
        snprintf(ack->description, sizeof(ack->description), "%s", description != NULL ? description : "");
    } else {
        ack->sequence = (uint64_t)json_integer_value(json_object_get(answer, "seq"));
        ack->batch_count = (uint64_t)json_integer_value(json_object_get(answer, "count"));
        ack->is_duplicate = json_is_true(json_object_get(answer, "duplicate"));
    }
    json_decref(answer);
    return ack->err_code != 0 || ack->sequence > 0;
}

bool kv_read_delivery(const struct message *message, struct kv_delivery *delivery)
{
    const char *tokens[13];
    unsigned count = 0;

    if (message->reply == NULL || strncmp(message->reply, "$JS.ACK.", 8) != 0)
        return false;
    for (const char *at = message->reply; at != NULL && count < 13; count++) {
        tokens[count] = at;
        at = strchr(at, '.');
        if (at != NULL)
            at++;
    }
    /* Nine tokens, or with the domain and the account before the stream eleven and more. */
    unsigned first = count == 9 ? 5 : 7;
    if (count < 9 || count == 10)
        return false;
    delivery->stream = tokens[first - 3];
    delivery->stream_length = (size_t)(tokens[first - 2] - tokens[first - 3]) - 1;
    delivery->consumer = tokens[first - 2];
    delivery->consumer_length = (size_t)(tokens[first - 1] - tokens[first - 2]) - 1;
    delivery->stream_sequence = strtoull(tokens[first], NULL, 10);
    delivery->consumer_sequence = strtoull(tokens[first + 1], NULL, 10);
    delivery->created_us = strtoll(tokens[first + 2], NULL, 10) / 1000;
    delivery->pending = strtoull(tokens[first + 3], NULL, 10);
    return true;
}
