#include "tests/support/stream_log.h"

#include "tests/support/process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NO_MESSAGE_FOUND 10037 /* err_code of JetStream */

static char *stream_log_decode_base64(const char *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *decoded = keep(calloc(1, strlen(text) + 1)), *out = decoded;
    unsigned value = 0, bits = 0;

    for (; *text != '\0' && *text != '='; text++) {
        value = value << 6 | (unsigned)(strchr(digits, *text) - digits);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            *out++ = (char)(value >> bits & 255u);
        }
    }
    return decoded;
}

static const char *stream_log_header_value(const char *headers, const char *name)
{
    const char *found = strstr(headers, name);

    if (found == NULL)
        return NULL;
    found += strlen(name);
    found += strspn(found, ": ");
    return format_text("%.*s", (int)strcspn(found, "\r"), found);
}

static void stream_log_add(struct stream_log *log, const char *bucket, const json_t *message)
{
    const char *subject = json_string_value(json_object_get(message, "subject"));
    const char *value = json_string_value(json_object_get(message, "data"));
    const char *block = json_string_value(json_object_get(message, "hdrs"));
    const char *operation =
        block != NULL ? stream_log_header_value(stream_log_decode_base64(block), "KV-Operation") : NULL;

    log->entries[log->count++] = (struct stored){
        .revision = (uint64_t)json_integer_value(json_object_get(message, "seq")),
        .key = subject + strlen("$KV.") + strlen(bucket) + 1,
        .operation = operation != NULL ? operation : "put",
        .value = value != NULL ? stream_log_decode_base64(value) : "",
    };
}

/* Return the first message at or after the sequence; NULL: there is none. */
static const json_t *stream_log_next(struct nats *nats, const char *bucket, uint64_t sequence)
{
    json_t *answer = nats_try_api(nats, "STREAM.MSG.GET", format_text("KV_%s", bucket),
                                  "{'seq': %llu, 'next_by_subj': '>'}", (unsigned long long)sequence);
    const json_t *message = json_object_get(answer, "message");

    ck_assert_msg(message != NULL || nats_error_code(answer) == NO_MESSAGE_FOUND, "reading %s: %s", bucket,
                  (char *)keep(json_dumps(answer, 0)));
    return message;
}

struct stream_log stream_log_read(struct nats *nats, const char *bucket)
{
    struct stream_log log = {0};
    json_t *state = json_object_get(nats_api(nats, "STREAM.INFO", format_text("KV_%s", bucket), "{}"), "state");
    uint64_t last = (uint64_t)json_integer_value(json_object_get(state, "last_seq"));
    uint64_t next = (uint64_t)json_integer_value(json_object_get(state, "first_seq"));
    const json_t *message;

    ck_assert_msg(state != NULL, "no state of %s", bucket);
    log.entries =
        keep(calloc((size_t)json_integer_value(json_object_get(state, "messages")) + 1, sizeof(*log.entries)));
    while (next > 0 && next <= last && (message = stream_log_next(nats, bucket, next)) != NULL) {
        stream_log_add(&log, bucket, message);
        next = log.entries[log.count - 1].revision + 1;
    }
    return log;
}

unsigned stream_log_count(const struct stream_log *log, const char *key, const char *operation, const char *value,
                          uint64_t *revision)
{
    unsigned count = 0;

    *revision = 0;
    for (size_t i = 0; i < log->count; i++) {
        const struct stored *entry = &log->entries[i];
        if (strcmp(entry->key, key) != 0 || strcmp(entry->operation, operation) != 0 ||
            strcmp(entry->value, value) != 0)
            continue;
        count++;
        *revision = entry->revision;
    }
    return count;
}

const char *stream_log_text(const struct stream_log *log)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);

    for (size_t i = 0; i < log->count && i < 100; i++)
        fprintf(stream, "%llu %s %s %.40s\n", (unsigned long long)log->entries[i].revision, log->entries[i].operation,
                log->entries[i].key, log->entries[i].value);
    fclose(stream);
    return keep(text);
}
