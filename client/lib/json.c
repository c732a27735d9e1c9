/* Values, entries and errors as JSON text. */
#include "client/lib/buffer.h"
#include "client/lib/entry.h"
#include "client/lib/kvstore_raw.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static bool json_write_text(struct buffer *json, const char *text)
{
    return buffer_append(json, text, strlen(text));
}

/* Return the size of the UTF-8 character at bytes, by the table of RFC 3629; 0 if there is none. */
static size_t json_character_size(const unsigned char *bytes, size_t length)
{
    unsigned char first = bytes[0], low = 0x80, high = 0xbf;
    size_t size;

    if (first < 0x80)
        return 1;
    if (first >= 0xc2 && first <= 0xdf)
        size = 2;
    else if (first >= 0xe0 && first <= 0xef)
        size = 3;
    else if (first >= 0xf0 && first <= 0xf4)
        size = 4;
    else
        return 0;
    if (first == 0xe0)
        low = 0xa0; /* no overlong forms */
    else if (first == 0xed)
        high = 0x9f; /* no surrogates */
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f; /* nothing above U+10FFFF */
    if (length < size || bytes[1] < low || bytes[1] > high)
        return 0;
    for (size_t i = 2; i < size; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    }
    return size;
}

static bool json_is_utf8(const char *bytes, size_t length)
{
    size_t size;

    for (; length > 0; bytes += size, length -= size) {
        if ((size = json_character_size((const unsigned char *)bytes, length)) == 0)
            return false;
    }
    return true;
}

static bool json_write_escaped(struct buffer *json, unsigned char character)
{
    char escaped[8];

    switch (character) {
    case '"':
        return json_write_text(json, "\\\"");
    case '\\':
        return json_write_text(json, "\\\\");
    case '\n':
        return json_write_text(json, "\\n");
    case '\r':
        return json_write_text(json, "\\r");
    case '\t':
        return json_write_text(json, "\\t");
    default:
        snprintf(escaped, sizeof(escaped), "\\u%04x", character);
        return json_write_text(json, escaped);
    }
}

static bool json_write_string(struct buffer *json, const char *bytes, size_t length)
{
    size_t plain = 0; /* consecutive characters that need no escape */

    if (!json_write_text(json, "\""))
        return false;
    for (size_t i = 0; i < length; i++) {
        unsigned char character = (unsigned char)bytes[i];
        /* U+0080 to U+009F have two bytes. Some terminals take them for the beginning of a command. */
        if (character == 0xc2 && i + 1 < length && (unsigned char)bytes[i + 1] < 0xa0) {
            if (!buffer_append(json, bytes + i - plain, plain) ||
                !json_write_escaped(json, (unsigned char)bytes[i + 1]))
                return false;
            plain = 0;
            i++;
            continue;
        }
        if (character >= 0x20 && character != '"' && character != '\\' && character != 0x7f) {
            plain++;
            continue;
        }
        if (!buffer_append(json, bytes + i - plain, plain) || !json_write_escaped(json, character))
            return false;
        plain = 0;
    }
    return buffer_append(json, bytes + length - plain, plain) && json_write_text(json, "\"");
}

static bool json_write_base64(struct buffer *json, const char *bytes, size_t length)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *rest = (const unsigned char *)bytes;

    if (!buffer_reserve(json, (length + 2) / 3 * 4) || !json_write_text(json, "{\"base64\":\""))
        return false;
    for (size_t i = 0; i < length; i += 3) {
        size_t left = length - i;
        uint32_t group = (uint32_t)rest[i] << 16 | (uint32_t)(left > 1 ? rest[i + 1] : 0) << 8 |
                         (uint32_t)(left > 2 ? rest[i + 2] : 0);
        char quad[4] = {digits[group >> 18], digits[group >> 12 & 63], left > 1 ? digits[group >> 6 & 63] : '=',
                        left > 2 ? digits[group & 63] : '='};
        if (!buffer_append(json, quad, sizeof(quad)))
            return false;
    }
    return json_write_text(json, "\"}");
}

static bool json_write_bytes(struct buffer *json, const char *bytes, size_t size)
{
    return json_is_utf8(bytes, size) ? json_write_string(json, bytes, size) : json_write_base64(json, bytes, size);
}

/* A member's name must be a string in JSON, whatever type the map has. */
static bool json_write_name(struct buffer *json, const struct kvs_value *name)
{
    size_t size;
    const char *bytes = kvs_value_bytes(name, &size);

    if (bytes != NULL && json_is_utf8(bytes, size))
        return json_write_string(json, bytes, size);
    char *inner = kvs_value_json(name);
    bool written = inner != NULL && json_write_string(json, inner, strlen(inner));
    kvs_free(inner);
    return written;
}

static bool json_write_number(struct buffer *json, const struct kvs_value *value)
{
    char number[40];

    if (kvs_value_type(value) == KVS_DOUBLE) {
        double real = kvs_value_double(value);
        if (!isfinite(real))
            return json_write_text(json, "null"); /* JSON has no infinity or NaN */
        /* Find the shortest form that reads back as the same number. */
        for (int digits = 15; digits <= 17; digits++) {
            snprintf(number, sizeof(number), "%.*g", digits, real);
            double back;
            if (sscanf(number, "%lf", &back) == 1 && memcmp(&back, &real, sizeof(real)) == 0)
                break;
        }
        char *comma = strchr(number, ',');
        if (comma != NULL)
            *comma = '.'; /* some locales */
        if (strpbrk(number, ".e") == NULL)
            strcat(number, ".0");
    } else if (kvs_value_integer(value) < 0) {
        snprintf(number, sizeof(number), "%" PRId64, kvs_value_integer(value));
    } else {
        snprintf(number, sizeof(number), "%" PRIu64, kvs_value_unsigned(value));
    }
    return json_write_text(json, number);
}

/* The recursion is as deep as a message may be nested. */
static bool json_write_value(struct buffer *json, const struct kvs_value *value)
{
    enum kvs_type type = kvs_value_type(value);
    size_t count = kvs_value_count(value), size;
    const char *bytes = kvs_value_bytes(value, &size);

    switch (type) {
    case KVS_NIL:
        return json_write_text(json, "null");
    case KVS_BOOLEAN:
        return json_write_text(json, kvs_value_boolean(value) ? "true" : "false");
    case KVS_INTEGER:
    case KVS_DOUBLE:
        return json_write_number(json, value);
    case KVS_STRING:
    case KVS_BINARY:
        return json_write_bytes(json, bytes, size);
    case KVS_ARRAY:
    case KVS_MAP:
        break;
    }

    if (!json_write_text(json, type == KVS_MAP ? "{" : "["))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && !json_write_text(json, ","))
            return false;
        if (type == KVS_MAP && !(json_write_name(json, kvs_value_key(value, i)) && json_write_text(json, ":")))
            return false;
        if (!json_write_value(json, kvs_value_item(value, i)))
            return false;
    }
    return json_write_text(json, type == KVS_MAP ? "}" : "]");
}

char *kvs_value_json(const struct kvs_value *value)
{
    struct buffer json = {0};

    if (json_write_value(&json, value) && buffer_append(&json, "", 1))
        return json.bytes; /* begins at 0: nothing was consumed */
    buffer_free(&json);
    return NULL;
}

/* --- Entries --------------------------------------------------------------------------------- */

static bool json_write_named(struct buffer *json, const char *name, const char *bytes, size_t size)
{
    return json_write_text(json, name) && json_write_bytes(json, bytes, size);
}

static bool json_write_headers(struct buffer *json, const struct kvs_entry *entry)
{
    for (size_t i = 0; i < entry->header_count; i++) {
        const struct kvs_header *header = &entry->headers[i];
        if (!json_write_text(json, i == 0 ? ",\"headers\":{" : ",") ||
            !json_write_string(json, header->name, strlen(header->name)) || !json_write_text(json, ":") ||
            !json_write_bytes(json, header->value, strlen(header->value)))
            return false;
    }
    return entry->header_count == 0 || json_write_text(json, "}");
}

static bool json_write_entry(struct buffer *json, const struct kvs_entry *entry)
{
    const char *operation = entry_operation_name(entry->operation);
    char numbers[120];

    if (!json_write_named(json, "{\"key\":", entry->key, strlen(entry->key)))
        return false;
    if (entry->value != NULL && !json_write_named(json, ",\"value\":", entry->value, entry->value_size))
        return false;
    if (entry->value == NULL) {
        snprintf(numbers, sizeof(numbers), ",\"size\":%zu", entry->value_size);
        if (!json_write_text(json, numbers))
            return false;
    }
    snprintf(numbers, sizeof(numbers), ",\"revision\":%" PRIu64 ",\"created\":%" PRId64, entry->revision,
             entry->created_us);
    if (!json_write_text(json, numbers) || !json_write_named(json, ",\"operation\":", operation, strlen(operation)) ||
        !json_write_headers(json, entry))
        return false;
    *numbers = '\0';
    if (entry->ttl_s > 0)
        snprintf(numbers, sizeof(numbers), ",\"ttl\":%" PRId64 ",\"expires\":%" PRId64, entry->ttl_s,
                 entry->expires_us);
    if (entry->has_previous)
        snprintf(numbers + strlen(numbers), sizeof(numbers) - strlen(numbers), ",\"previous\":%" PRIu64,
                 entry->previous);
    if (!json_write_text(json, numbers))
        return false;
    if (entry->previous_value != NULL &&
        !json_write_named(json, ",\"previous_value\":", entry->previous_value, entry->previous_size))
        return false;
    if (entry->lease != NULL && !json_write_named(json, ",\"lease\":", entry->lease, strlen(entry->lease)))
        return false;
    return json_write_text(json, "}");
}

char *kvs_entry_json(const struct kvs_entry *entry)
{
    struct buffer json = {0};

    if (json_write_entry(&json, entry) && buffer_append(&json, "", 1))
        return json.bytes;
    buffer_free(&json);
    return NULL;
}

/* --- Errors ---------------------------------------------------------------------------------- */

static bool json_write_optional(struct buffer *json, const char *name, const char *text)
{
    return *text == '\0' || json_write_named(json, name, text, strlen(text));
}

static bool json_write_error(struct buffer *json, const struct kvs_error *error)
{
    const char *code = kvs_code_name(error->code);
    char revision[40] = "";

    if (error->has_revision)
        snprintf(revision, sizeof(revision), ",\"revision\":%" PRIu64, error->revision);
    return json_write_named(json, "{\"code\":", code, strlen(code)) &&
           json_write_named(json, ",\"message\":", error->message, strlen(error->message)) &&
           json_write_text(json, error->retryable ? ",\"retryable\":true" : ",\"retryable\":false") &&
           json_write_optional(json, ",\"bucket\":", error->bucket) &&
           json_write_optional(json, ",\"key\":", error->key) && json_write_text(json, revision) &&
           (error->value_size == 0 || json_write_named(json, ",\"value\":", error->value, error->value_size)) &&
           json_write_text(json, error->outcome == KVS_OUTCOME_NONE      ? ",\"outcome\":\"none\""
                                 : error->outcome == KVS_OUTCOME_UNKNOWN ? ",\"outcome\":\"unknown\""
                                                                         : "") &&
           json_write_text(json, "}");
}

char *kvs_error_json(const struct kvs_error *error)
{
    struct buffer json = {0};

    if (json_write_error(&json, error) && buffer_append(&json, "", 1))
        return json.bytes;
    buffer_free(&json);
    return NULL;
}
