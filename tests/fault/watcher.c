#include "tests/fault/watcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void watcher_begin(struct watcher *watcher, const char *socket_path, const char *bucket, const char *filter,
                   const char *options)
{
    memset(watcher, 0, sizeof(*watcher));
    watcher->client = client_open_path(socket_path);
    watcher->bucket = bucket;
    snprintf(watcher->prefix, sizeof(watcher->prefix), "%.*s", (int)strcspn(filter, ">"), filter);
    const struct answer *answer = client_call(watcher->client, "watch.start", "['%s', {'filter': '%s'%s%s}]", bucket,
                                              filter, *options != '\0' ? ", " : "", options);
    assert_ok(answer);
    watcher->id = number_at(&answer->result, "");
}

void watcher_end(struct watcher *watcher)
{
    client_close(watcher->client);
    free(watcher->told);
    watcher->told = NULL;
}

static void add_entry(struct watcher *watcher, const msgpack_object *entry)
{
    const char *operation = text_at(entry, "operation");

    if (watcher->count == watcher->room) {
        watcher->room = watcher->room * 2 + 256;
        watcher->told = realloc(watcher->told, watcher->room * sizeof(*watcher->told));
        ck_assert_ptr_nonnull(watcher->told);
    }
    watcher->told[watcher->count++] = (struct stored){
        .revision = number_at(entry, "revision"),
        .key = text_at(entry, "key"),
        .operation = strcmp(operation, "delete") == 0  ? "DEL"
                     : strcmp(operation, "purge") == 0 ? "PURGE"
                                                       : operation,
        .value = text_at(entry, "value"),
    };
}

static void take_notice(struct watcher *watcher, const struct notification *notice)
{
    ck_assert_uint_eq(number_at(&notice->params, "0"), watcher->id);
    ck_assert_msg(watcher->ended == NULL, "%s behind watch.ended", notice->method);
    if (strcmp(notice->method, "watch.entries") == 0) {
        const msgpack_object *entries = find_at(&notice->params, "1");
        for (uint32_t i = 0; i < entries->via.array.size; i++)
            add_entry(watcher, &entries->via.array.ptr[i]);
    } else if (strcmp(notice->method, "watch.ready") == 0) {
        watcher->readies++;
        watcher->ready_at = watcher->count;
    } else {
        ck_assert_str_eq(notice->method, "watch.ended");
        watcher->ended = text_at(&notice->params, "1.code");
    }
}

void watcher_take(struct watcher *watcher, unsigned patience_ms)
{
    const struct notification *notice;

    client_read(watcher->client, patience_ms);
    while ((notice = client_find_notification(watcher->client, watcher->id)) != NULL)
        take_notice(watcher, notice);
    client_forget(watcher->client);
}

uint64_t watcher_last(const struct watcher *watcher)
{
    return watcher->count > 0 ? watcher->told[watcher->count - 1].revision : 0;
}

void watcher_wait(struct watcher *watcher, uint64_t revision)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    for (;;) {
        watcher_take(watcher, 0);
        if (watcher_last(watcher) >= revision)
            return;
        ck_assert_msg(watcher->ended == NULL, "the watch has ended: %s", watcher->ended);
        ck_assert_msg(now_ms() < end, "the watch of %s> was told up to %llu, and not up to %llu", watcher->prefix,
                      (unsigned long long)watcher_last(watcher), (unsigned long long)revision);
        watcher_take(watcher, 100);
    }
}

void watcher_wait_ready(struct watcher *watcher)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    for (watcher_take(watcher, 0); watcher->readies == 0; watcher_take(watcher, 100))
        ck_assert_msg(now_ms() < end && watcher->ended == NULL, "the watch does not become ready");
}

static bool is_same(const struct stored *one, const struct stored *other)
{
    return one->revision == other->revision && strcmp(one->key, other->key) == 0 &&
           strcmp(one->operation, other->operation) == 0 && strcmp(one->value, other->value) == 0;
}

static const char *entry_text(const struct stored *entry)
{
    return format_text("%llu %s %s %.40s", (unsigned long long)entry->revision, entry->operation, entry->key,
                       entry->value);
}

void watcher_expect(struct watcher *watcher, const struct stream_log *log, uint64_t from_revision)
{
    size_t told = 0;

    watcher_wait_ready(watcher); /* of a bucket with replicas it comes after a second look */
    while (told < watcher->count && watcher->told[told].revision < from_revision)
        told++;
    for (size_t i = 0; i < log->count; i++) {
        const struct stored *stored = &log->entries[i];
        if (stored->revision < from_revision || strncmp(stored->key, watcher->prefix, strlen(watcher->prefix)) != 0)
            continue;
        ck_assert_msg(told < watcher->count, "stored, and never told: %s", entry_text(stored));
        const char *before = told > 0 ? entry_text(&watcher->told[told - 1]) : "nothing";
        ck_assert_msg(is_same(stored, &watcher->told[told]), "told: %s, where the bucket has: %s; before it: %s",
                      entry_text(&watcher->told[told]), entry_text(stored), before);
        told++;
    }
    ck_assert_msg(told == watcher->count, "told, and not stored: %s", entry_text(&watcher->told[told]));
    ck_assert_uint_eq(watcher->readies, 1);
    ck_assert_ptr_null(watcher->ended);
}
