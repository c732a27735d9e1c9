#include "tests/support/watch_recorder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Texts ----------------------------------------------------------------------------------------- */

/* value: NULL if the watch does not deliver it. operation: "put", "delete" or "purge". */
static const char *watch_entry_text(const char *operation, const char *key, const char *value, uint64_t size,
                                    uint64_t revision)
{
    unsigned long long number = revision;

    if (strcmp(operation, "put") != 0)
        return format_text("%s%s@%llu", strcmp(operation, "delete") == 0 ? "-" : "!", key, number);
    if (value == NULL)
        return format_text("+%s:%llu@%llu", key, (unsigned long long)size, number);
    return format_text("%s=%s@%llu", key, value, number);
}

static const char *watch_operation_name(enum kvs_operation operation)
{
    static const char *const names[] = {
        [KVS_OPERATION_PUT] = "put", [KVS_OPERATION_DELETE] = "delete", [KVS_OPERATION_PURGE] = "purge"};

    return names[operation];
}

const char *watch_event_text(const struct kvs_event *event)
{
    switch (event->type) {
    case KVS_EVENT_ENTRY:
        return watch_entry_text(watch_operation_name(event->entry->operation), event->entry->key, event->entry->value,
                                event->entry->value_size, event->entry->revision);
    case KVS_EVENT_READY:
        return "ready";
    case KVS_EVENT_ENDED:
        return format_text("ended: %s", kvs_code_name(event->error->code));
    default:
        return "nothing";
    }
}

static bool watch_is_last_text(const char *text)
{
    return strncmp(text, "ended: ", strlen("ended: ")) == 0 || strcmp(text, "nothing") == 0;
}

void watch_events_expect(const char *(*next_text)(void *context), void *context, const char *wanted)
{
    const char *told = "", *next = "";

    while (strlen(told) < strlen(wanted) && !watch_is_last_text(next)) {
        next = next_text(context);
        told = format_text("%s%s%s", told, *told != '\0' ? " " : "", next);
    }
    ck_assert_str_eq(told, wanted);
}

/* --- A watch on a raw client ----------------------------------------------------------------------- */

struct watch_recorder *watch_recorder_new(void)
{
    return keep(calloc(1, sizeof(struct watch_recorder)));
}

struct watch_recorder *watch_recorder_start(struct client *client, const char *bucket, const char *options)
{
    struct watch_recorder *recorder = watch_recorder_new();
    const struct answer *answer =
        client_call(client, "watch.start", "['%s', {%s}]", bucket, options != NULL ? options : "");

    assert_ok(answer);
    recorder->client = client;
    recorder->id = number_at(&answer->result, "");
    return recorder;
}

struct watch_recorder *watch_recorder_open(const struct daemon *daemon, const char *bucket, const char *filter,
                                           const char *options)
{
    struct watch_recorder *recorder = watch_recorder_start(
        client_open(daemon), bucket,
        format_text("'filter': '%s'%s%s", filter, options != NULL ? ", " : "", options != NULL ? options : ""));

    recorder->owns_client = true;
    snprintf(recorder->prefix, sizeof(recorder->prefix), "%.*s", (int)strcspn(filter, ">"), filter);
    return recorder;
}

void watch_recorder_close(struct watch_recorder *recorder)
{
    ck_assert(recorder->owns_client);
    client_close(recorder->client);
    client_forget(recorder->client);
}

void watch_recorder_stop(struct watch_recorder *recorder)
{
    assert_ok(client_call(recorder->client, "watch.stop", "[%llu]", (unsigned long long)recorder->id));
}

static bool watch_recorder_has_entry(const struct watch_recorder *recorder)
{
    return recorder->entries != NULL && recorder->at < recorder->entries->via.array.size;
}

static enum watch_event watch_recorder_take_entry(struct watch_recorder *recorder)
{
    recorder->object = &recorder->entries->via.array.ptr[recorder->at++];
    recorder->revision = number_at(recorder->object, "revision");
    return WATCH_ENTRY;
}

static enum watch_event watch_recorder_take(struct watch_recorder *recorder, const struct notification *given)
{
    recorder->entries = NULL;
    if (strcmp(given->method, "watch.ready") == 0) {
        recorder->snapshot_revision = count_at(&given->params, "") == 2 ? number_at(&given->params, "1") : 0;
        ck_assert_uint_eq(count_at(&given->params, ""), recorder->snapshot_revision > 0 ? 2 : 1);
        return WATCH_READY;
    }
    ck_assert_uint_eq(count_at(&given->params, ""), 2);
    if (strcmp(given->method, "watch.ended") == 0) {
        recorder->object = find_at(&given->params, "1");
        return WATCH_ENDED;
    }
    ck_assert_str_eq(given->method, "watch.entries");
    ck_assert_uint_gt(count_at(&given->params, "1"), 0);
    recorder->entries = find_at(&given->params, "1");
    recorder->at = 0;
    return watch_recorder_take_entry(recorder);
}

/* Return false if no event has been read that was not returned. */
static bool watch_recorder_find_next(struct watch_recorder *recorder, enum watch_event *event)
{
    const struct notification *found;

    if (watch_recorder_has_entry(recorder))
        *event = watch_recorder_take_entry(recorder);
    else if ((found = client_find_notification(recorder->client, recorder->id)) != NULL)
        *event = watch_recorder_take(recorder, found);
    else
        return false;
    return true;
}

enum watch_event watch_recorder_next(struct watch_recorder *recorder)
{
    enum watch_event event;

    if (watch_recorder_find_next(recorder, &event))
        return event;
    return watch_recorder_take(recorder, client_wait_notification(recorder->client, recorder->id));
}

static const char *watch_object_text(const msgpack_object *entry)
{
    bool has_value = find_at(entry, "value") != NULL;

    return watch_entry_text(text_at(entry, "operation"), text_at(entry, "key"),
                            has_value ? text_at(entry, "value") : NULL, has_value ? 0 : number_at(entry, "size"),
                            number_at(entry, "revision"));
}

static const char *watch_recorder_next_text(void *context)
{
    struct watch_recorder *recorder = context;

    switch (watch_recorder_next(recorder)) {
    case WATCH_ENTRY:
        return watch_object_text(recorder->object);
    case WATCH_READY:
        return "ready";
    default:
        return format_text("ended: %s", object_text(recorder->object));
    }
}

void watch_recorder_expect(struct watch_recorder *recorder, const char *wanted)
{
    watch_events_expect(watch_recorder_next_text, recorder, wanted);
}

void watch_recorder_expect_and_ready(struct watch_recorder *recorder, const char *wanted)
{
    const char *entries = "";
    bool is_ready = false;

    while (!is_ready || strlen(entries) < strlen(wanted)) {
        const char *next = watch_recorder_next_text(recorder);
        ck_assert_msg(!watch_is_last_text(next), "%s after %s", next, entries);
        if (!is_ready && strcmp(next, "ready") == 0)
            is_ready = true;
        else
            entries = format_text("%s%s%s", entries, *entries != '\0' ? " " : "", next);
    }
    ck_assert_str_eq(entries, wanted);
}

const msgpack_object *watch_recorder_expect_end(struct watch_recorder *recorder, const char *code)
{
    const char *next = watch_recorder_next_text(recorder);

    ck_assert_msg(watch_is_last_text(next), "%s instead of the end", next);
    ck_assert_str_eq(text_at(recorder->object, "code"), code);
    return recorder->object;
}

const char *watch_recorder_text_to_ready(struct watch_recorder *recorder)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    const char *next;

    do {
        next = watch_recorder_next_text(recorder);
        ck_assert_msg(!watch_is_last_text(next), "%s", next);
        fprintf(stream, "%s ", next);
    } while (strcmp(next, "ready") != 0);
    fclose(stream);
    return keep(text);
}

/* --- The record ------------------------------------------------------------------------------------ */

/* operation: "put", "delete" or "purge". */
static void watch_recorder_add_entry(struct watch_recorder *recorder, const char *operation, const char *key,
                                     const char *value, uint64_t revision)
{
    if (recorder->count == recorder->room) {
        recorder->room = recorder->room * 2 + 256;
        recorder->told = realloc(recorder->told, recorder->room * sizeof(*recorder->told));
        ck_assert_ptr_nonnull(recorder->told);
    }
    recorder->told[recorder->count++] = (struct stored){
        .revision = revision,
        .key = key,
        .operation = strcmp(operation, "delete") == 0  ? "DEL"
                     : strcmp(operation, "purge") == 0 ? "PURGE"
                                                       : operation,
        .value = value,
    };
}

static void watch_recorder_add_ready(struct watch_recorder *recorder)
{
    recorder->readies++;
    recorder->ready_at = recorder->count;
}

static void watch_recorder_add_end(struct watch_recorder *recorder, const char *code, uint64_t revision)
{
    recorder->ends++;
    recorder->ended = code;
    recorder->ended_revision = revision;
}

void watch_recorder_add(struct watch_recorder *recorder, const struct kvs_event *event)
{
    const struct kvs_entry *entry = event->entry;

    switch (event->type) {
    case KVS_EVENT_ENTRY:
        watch_recorder_add_entry(recorder, watch_operation_name(entry->operation), format_text("%s", entry->key),
                                 format_text("%s", entry->value), entry->revision);
        break;
    case KVS_EVENT_READY:
        watch_recorder_add_ready(recorder);
        break;
    default:
        watch_recorder_add_end(recorder, kvs_code_name(event->error->code), event->error->revision);
    }
}

static void watch_recorder_add_next(struct watch_recorder *recorder, enum watch_event event)
{
    const msgpack_object *object = recorder->object;

    ck_assert_msg(recorder->ended == NULL, "an event after the end");
    switch (event) {
    case WATCH_ENTRY:
        watch_recorder_add_entry(recorder, text_at(object, "operation"), text_at(object, "key"),
                                 text_at(object, "value"), recorder->revision);
        break;
    case WATCH_READY:
        watch_recorder_add_ready(recorder);
        break;
    default:
        watch_recorder_add_end(recorder, text_at(object, "code"),
                               find_at(object, "revision") != NULL ? number_at(object, "revision") : 0);
    }
}

void watch_recorder_read(struct watch_recorder *recorder, unsigned wait_ms)
{
    enum watch_event event;

    ck_assert(recorder->owns_client);
    client_read(recorder->client, wait_ms);
    while (watch_recorder_find_next(recorder, &event))
        watch_recorder_add_next(recorder, event);
    recorder->entries = recorder->object = NULL;
    client_forget(recorder->client);
}

uint64_t watch_recorder_last_revision(const struct watch_recorder *recorder)
{
    return recorder->count > 0 ? recorder->told[recorder->count - 1].revision : 0;
}

void watch_recorder_wait(struct watch_recorder *recorder, uint64_t revision)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    watch_recorder_read(recorder, 0);
    while (watch_recorder_last_revision(recorder) < revision) {
        ck_assert_msg(recorder->ended == NULL, "the watch has ended: %s", recorder->ended);
        ck_assert_msg(now_ms() < end, "the watch of %s> has delivered up to %llu, not up to %llu", recorder->prefix,
                      (unsigned long long)watch_recorder_last_revision(recorder), (unsigned long long)revision);
        watch_recorder_read(recorder, 100);
    }
}

void watch_recorder_wait_ready(struct watch_recorder *recorder)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    for (watch_recorder_read(recorder, 0); recorder->readies == 0; watch_recorder_read(recorder, 100))
        ck_assert_msg(now_ms() < end && recorder->ended == NULL, "the watch does not become ready");
}

static bool watch_is_same(const struct stored *one, const struct stored *other)
{
    return one->revision == other->revision && strcmp(one->key, other->key) == 0 &&
           strcmp(one->operation, other->operation) == 0 && strcmp(one->value, other->value) == 0;
}

static const char *watch_stored_text(const struct stored *entry)
{
    return format_text("%llu %s %s %.40s", (unsigned long long)entry->revision, entry->operation, entry->key,
                       entry->value);
}

void watch_recorder_expect_log(struct watch_recorder *recorder, const struct stream_log *log, uint64_t from_revision)
{
    size_t told = 0;

    watch_recorder_wait_ready(recorder); /* of a bucket with replicas it comes after a second look */
    while (told < recorder->count && recorder->told[told].revision < from_revision)
        told++;
    for (size_t i = 0; i < log->count; i++) {
        const struct stored *stored = &log->entries[i];
        if (stored->revision < from_revision || strncmp(stored->key, recorder->prefix, strlen(recorder->prefix)) != 0)
            continue;
        ck_assert_msg(told < recorder->count, "stored, and never delivered: %s", watch_stored_text(stored));
        const char *before = told > 0 ? watch_stored_text(&recorder->told[told - 1]) : "nothing";
        ck_assert_msg(watch_is_same(stored, &recorder->told[told]),
                      "delivered: %s; but the bucket has: %s; before it: %s", watch_stored_text(&recorder->told[told]),
                      watch_stored_text(stored), before);
        told++;
    }
    ck_assert_msg(told == recorder->count, "delivered, and not stored: %s", watch_stored_text(&recorder->told[told]));
    ck_assert_uint_eq(recorder->readies, 1);
    ck_assert_ptr_null(recorder->ended);
}

const char *watch_recorder_text(const struct watch_recorder *recorder)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);

    ck_assert_uint_le(recorder->readies, 1);
    for (unsigned i = 0; i <= recorder->count; i++) {
        if (recorder->readies > 0 && recorder->ready_at == i)
            fprintf(stream, "ready ");
        if (i == recorder->count)
            break;
        const struct stored *entry = &recorder->told[i];
        const char *operation = strcmp(entry->operation, "DEL") == 0     ? "delete"
                                : strcmp(entry->operation, "PURGE") == 0 ? "purge"
                                                                         : entry->operation;
        fprintf(stream, "%s ", watch_entry_text(operation, entry->key, entry->value, 0, entry->revision));
    }
    if (recorder->ended != NULL)
        fprintf(stream, "ended: %s ", recorder->ended);
    fclose(stream);
    return keep(text);
}
