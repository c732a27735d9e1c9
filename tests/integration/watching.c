#include "tests/integration/watching.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct watching *watching_start(struct client *client, const char *bucket, const char *options)
{
    struct watching *watching = keep(calloc(1, sizeof(*watching)));
    const struct answer *answer =
        client_call(client, "watch.start", "['%s', {%s}]", bucket, options != NULL ? options : "");

    assert_ok(answer);
    watching->client = client;
    watching->id = number_at(&answer->result, "");
    return watching;
}

enum watching_event watching_next(struct watching *watching)
{
    if (watching->entries == NULL || watching->at == watching->entries->via.array.size) {
        const struct notification *next = client_wait_notification(watching->client, watching->id);
        watching->entries = NULL;
        if (strcmp(next->method, "watch.ready") == 0) {
            ck_assert_uint_eq(count_at(&next->params, ""), 1);
            return WATCHING_READY;
        }
        ck_assert_uint_eq(count_at(&next->params, ""), 2);
        if (strcmp(next->method, "watch.ended") == 0) {
            watching->object = find_at(&next->params, "1");
            return WATCHING_ENDED;
        }
        ck_assert_str_eq(next->method, "watch.entries");
        ck_assert_uint_gt(count_at(&next->params, "1"), 0);
        watching->entries = find_at(&next->params, "1");
        watching->at = 0;
    }
    watching->object = &watching->entries->via.array.ptr[watching->at++];
    watching->revision = number_at(watching->object, "revision");
    return WATCHING_ENTRY;
}

static const char *text_of_entry(const msgpack_object *entry)
{
    const char *key = text_at(entry, "key"), *operation = text_at(entry, "operation");
    unsigned long long revision = number_at(entry, "revision");

    if (strcmp(operation, "put") != 0)
        return format_text("%s%s@%llu", strcmp(operation, "delete") == 0 ? "-" : "!", key, revision);
    if (find_at(entry, "value") == NULL)
        return format_text("+%s:%llu@%llu", key, (unsigned long long)number_at(entry, "size"), revision);
    return format_text("%s=%s@%llu", key, text_at(entry, "value"), revision);
}

static const char *next_text(struct watching *watching)
{
    switch (watching_next(watching)) {
    case WATCHING_ENTRY:
        return text_of_entry(watching->object);
    case WATCHING_READY:
        return "ready";
    default:
        return format_text("ended: %s", object_text(watching->object));
    }
}

void watching_expect(struct watching *watching, const char *wanted)
{
    const char *told = "";

    while (strlen(told) < strlen(wanted)) {
        told = format_text("%s%s%s", told, *told != '\0' ? " " : "", next_text(watching));
        if (strstr(told, "ended") != NULL)
            break;
    }
    ck_assert_str_eq(told, wanted);
}

void watching_expect_and_ready(struct watching *watching, const char *wanted)
{
    const char *entries = "";
    bool is_ready = false;

    while (!is_ready || strlen(entries) < strlen(wanted)) {
        const char *next = next_text(watching);
        ck_assert_msg(strncmp(next, "ended", 5) != 0, "%s after %s", next, entries);
        if (!is_ready && strcmp(next, "ready") == 0)
            is_ready = true;
        else
            entries = format_text("%s%s%s", entries, *entries != '\0' ? " " : "", next);
    }
    ck_assert_str_eq(entries, wanted);
}

const msgpack_object *watching_expect_end(struct watching *watching, const char *code)
{
    const char *told = next_text(watching);

    ck_assert_msg(strncmp(told, "ended", 5) == 0, "%s instead of the end", told);
    ck_assert_str_eq(text_at(watching->object, "code"), code);
    return watching->object;
}

const char *watching_text_to_ready(struct watching *watching)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    const char *told;

    do {
        told = next_text(watching);
        ck_assert_msg(strncmp(told, "ended", 5) != 0, "%s", told);
        fprintf(stream, "%s ", told);
    } while (strcmp(told, "ready") != 0);
    fclose(stream);
    return keep(text);
}

void watching_stop(struct watching *watching)
{
    assert_ok(client_call(watching->client, "watch.stop", "[%llu]", (unsigned long long)watching->id));
}

uint64_t put_text(struct client *client, const char *bucket, const char *key, const char *value)
{
    return revision_of(client_call(client, "kv.put", "['%s', '%s', '%s']", bucket, key, value));
}

uint64_t delete_key(struct client *client, const char *bucket, const char *key)
{
    return revision_of(client_call(client, "kv.delete", "['%s', '%s']", bucket, key));
}

void put_many(struct client *client, const char *bucket, const char *prefix, unsigned first, unsigned count,
              size_t size)
{
    char *text = NULL, *value = keep(calloc(1, size + 1));
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);

    memset(value, 'v', size);
    for (unsigned i = first; i < first + count; i++)
        fprintf(stream, "%s'%s%06u': '%s'", i > first ? ", " : "", prefix, i, value);
    fclose(stream);
    const struct answer *answer = client_call(client, "bulk.put", "['%s', {%s}]", bucket, text);
    free(text);
    assert_ok(answer);
    for (uint32_t i = 0; i < answer->result.via.map.size; i++)
        ck_assert_msg(answer->result.via.map.ptr[i].val.type == MSGPACK_OBJECT_POSITIVE_INTEGER, "%s",
                      object_text(&answer->result.via.map.ptr[i].val));
}

/* --- Reads from memory -------------------------------------------------------------------------------- */

uint64_t stat_of(struct client *client, const char *path)
{
    const struct answer *answer = client_call(client, "daemon.stats", "[]");

    assert_ok(answer);
    return number_at(&answer->result, path);
}

void wait_for_stat(struct client *client, const char *path, uint64_t wanted)
{
    uint64_t end = now_ms() + PATIENCE_MS, is;

    while ((is = stat_of(client, path)) != wanted) {
        ck_assert_msg(now_ms() < end, "%s is %llu, not %llu", path, (unsigned long long)is, (unsigned long long)wanted);
        pause_shortly();
    }
}

const char *cached_text(struct client *client, const char *bucket, const char *key)
{
    const struct answer *answer = client_call(client, "kv.get", "['%s', '%s', {'consistency': 'cached'}]", bucket, key);

    assert_ok(answer);
    return answer->result.type == MSGPACK_OBJECT_NIL ? NULL : text_at(&answer->result, "value");
}

bool is_cached(struct client *client, const char *bucket, const char *key)
{
    uint64_t hits = stat_of(client, "cache.hits");

    cached_text(client, bucket, key);
    return stat_of(client, "cache.hits") > hits;
}

void wait_until_cached(struct client *client, const char *bucket, const char *key)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    while (!is_cached(client, bucket, key)) {
        ck_assert_msg(now_ms() < end, "bucket %s does not come into memory", bucket);
        pause_shortly();
    }
}
