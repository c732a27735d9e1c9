#include "daemon/store/scan.h"

#include "daemon/store/read.h"
#include "daemon/store/replica.h"

#include <stdlib.h>
#include <string.h>

/* --- A key's history ------------------------------------------------------------------------------- */

static void finish_history(struct read_history *history, const struct error *error)
{
    struct bucket *handle = history->handle;

    if (error == NULL && history->error.code != ERROR_NONE)
        error = &history->error;
    arena_end_task(&history->task);
    history->done(history->arg, history->entries, error == NULL ? history->count : 0, error);
    if (handle != NULL)
        bucket_release(handle);
}

static void restart_history(void *arg)
{
    struct read_history *history = arg;

    history->count = 0;
    history->bytes = 0;
}

/* Entries outlive their messages, so they are copied into the arena, headers and all. */
static bool keep_entry(struct read_history *history, const struct kv_entry *entry)
{
    if (history->count == history->capacity) {
        size_t capacity = history->capacity > 0 ? history->capacity * 2 : 8;
        struct kv_entry *entries = arena_alloc(history->arena, capacity * sizeof(*entries));
        if (entries == NULL)
            return false;
        if (history->count > 0)
            memcpy(entries, history->entries, history->count * sizeof(*entries));
        history->entries = entries;
        history->capacity = capacity;
    }
    if (!read_copy_entry(history->arena, entry, &history->entries[history->count]))
        return false;
    history->count++;
    return true;
}

static enum consumer_verdict take_history_message(void *arg, struct message *message,
                                                  const struct kv_delivery *delivery)
{
    struct read_history *history = arg;
    struct kv_entry entry;

    if (!kv_read_entry(message, message->subject, history->handle->prefix, delivery->stream_sequence,
                       delivery->created_us, &entry))
        return CONSUMER_MORE;
    replica_note_revision(history->store, history->bucket, history->key, entry.revision, false);
    history->bytes += entry.value_bytes;
    if (history->bytes > history->bytes_max) {
        error_set(&history->error, ERROR_TOO_LARGE,
                  "the history's values have more than %zu bytes (limits.frame_bytes); get the revisions one by one",
                  history->bytes_max);
        return CONSUMER_ENOUGH;
    }
    if (!history->take_memory(history->memory_arg, entry.value_bytes + sizeof(entry))) {
        read_set_memory_error(&history->error, "less");
        return CONSUMER_ENOUGH;
    }
    if (!keep_entry(history, &entry)) {
        error_set(&history->error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return CONSUMER_ENOUGH;
    }
    return CONSUMER_MORE;
}

static void end_history(void *arg, const struct error *error)
{
    finish_history(arg, error);
}

static const struct consumer_ops history_ops = {restart_history, take_history_message, end_history};

static void on_history_handle(void *arg, struct bucket *bucket, const struct error *error)
{
    struct read_history *history = arg;
    char *subject = NULL;
    struct error memory;

    history->handle = bucket;
    if (error == NULL) {
        size_t size = strlen(bucket->prefix) + strlen(history->key) + 1;
        subject = arena_alloc(history->arena, size);
        if (subject == NULL) {
            error_set(&memory, ERROR_RESOURCE_EXHAUSTED, "out of memory");
            error = &memory;
        } else {
            strcpy(stpcpy(subject, bucket->prefix), history->key);
        }
    }
    if (error != NULL) {
        finish_history(history, error);
        return;
    }
    history->subject = subject;
    struct consumer_scope scope = {.stream = bucket->stream, .filters = &history->subject, .filter_count = 1};
    history->reading.request.limit = &history->store->readings;
    history->reading.request.owner = history->arena->owner;
    consumer_read(&history->store->jetstream, &history->reading, &scope, history->deadline_ms, &history_ops, history);
}

static void cancel_history(struct arena_task *task)
{
    struct read_history *history = ARENA_TASK_OWNER(task, struct read_history, task);

    bucket_wait_cancel(&history->wait);
    consumer_stop(&history->reading);
    if (history->handle != NULL)
        bucket_release(history->handle);
}

void read_history(struct store *store, struct arena *arena, struct read_history *history)
{
    history->store = store;
    history->arena = arena;
    arena_begin_task(arena, &history->task, cancel_history);
    bucket_open(store, &history->wait, history->bucket, history->arena->owner, history->deadline_ms, on_history_handle,
                history);
}

/* --- A bucket's keys ------------------------------------------------------------------------------- */

/*
 * With a limit, only the lowest keys so far are kept: up to this many times the
 * limit are collected before the rest is thrown away, so that sorting stays cheap.
 */
#define KEYS_SLACK 2u

/* What a key takes in the answer at most: its bytes and a str 16 header. */
static size_t packed_bytes(const char *key)
{
    return strlen(key) + 3;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void free_keys(struct read_keys *keys, size_t from)
{
    for (size_t i = from; i < keys->count; i++) {
        keys->bytes -= packed_bytes(keys->keys[i]);
        free(keys->keys[i]);
    }
    if (from < keys->count)
        keys->count = from;
}

/* A key that is written meanwhile may come several times. */
static void drop_twins(struct read_keys *keys)
{
    size_t kept = 0;

    for (size_t i = 0; i < keys->count; i++) {
        if (kept > 0 && strcmp(keys->keys[kept - 1], keys->keys[i]) == 0) {
            keys->bytes -= packed_bytes(keys->keys[i]);
            free(keys->keys[i]);
        } else {
            keys->keys[kept++] = keys->keys[i];
        }
    }
    keys->count = kept;
}

static void keep_lowest_keys(struct read_keys *keys)
{
    if (keys->count > 0 && !keys->is_sorted)
        qsort((void *)keys->keys, keys->count, sizeof(*keys->keys), compare_keys);
    if (!keys->is_sorted)
        drop_twins(keys);
    if (keys->limit > 0)
        free_keys(keys, keys->limit);
}

void read_keys_finish(struct read_keys *keys, const struct error *error)
{
    struct bucket *handle = keys->handle;

    if (error == NULL && keys->error.code != ERROR_NONE)
        error = &keys->error;
    if (error == NULL)
        keep_lowest_keys(keys);
    /* done may free the memory that *keys is in, so its strings go first out of reach, then away. */
    char **list = keys->keys;
    size_t count = keys->count;
    arena_end_task(&keys->task);
    keys->done(keys->arg, (const char *const *)list, error == NULL ? count : 0, error);
    for (size_t i = 0; i < count; i++)
        free(list[i]);
    free((void *)list);
    if (handle != NULL)
        bucket_release(handle);
}

static void restart_keys(void *arg)
{
    free_keys(arg, 0);
}

static bool keep_key(struct read_keys *keys, const char *key)
{
    if (keys->count == keys->capacity) {
        size_t capacity = keys->capacity > 0 ? keys->capacity * 2 : 64;
        char **list = realloc((void *)keys->keys, capacity * sizeof(*list));
        if (list == NULL)
            return false;
        keys->keys = list;
        keys->capacity = capacity;
    }
    keys->keys[keys->count] = strdup(key);
    if (keys->keys[keys->count] == NULL)
        return false;
    keys->count++;
    keys->bytes += packed_bytes(key);
    return true;
}

/* Keeps a key, and only the lowest ones so far. False: keys->error says what is wrong. */
static bool add_key(struct read_keys *keys, const char *key)
{
    if (!keys->take_memory(keys->memory_arg, packed_bytes(key))) {
        read_set_memory_error(&keys->error, "less");
        return false;
    }
    if (!keep_key(keys, key)) {
        error_set(&keys->error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return false;
    }
    /* Only what is to be answered counts against the bytes. */
    bool has_slack = keys->limit > 0 && keys->count > keys->limit;
    if (has_slack && (keys->count >= keys->limit * KEYS_SLACK + 1024 || keys->bytes > keys->bytes_max))
        keep_lowest_keys(keys);
    if (keys->bytes <= keys->bytes_max)
        return true;
    error_set(&keys->error, ERROR_TOO_LARGE,
              "the keys have more than %zu bytes (limits.frame_bytes); ask for them in pages with limit and after",
              keys->bytes_max);
    return false;
}

bool read_keys_add(struct read_keys *keys, const char *key)
{
    keys->is_sorted = true;
    return add_key(keys, key) && (keys->limit == 0 || keys->count < keys->limit);
}

static enum consumer_verdict take_key_message(void *arg, struct message *message, const struct kv_delivery *delivery)
{
    struct read_keys *keys = arg;
    struct kv_entry entry;

    if (!kv_read_entry(message, message->subject, keys->handle->prefix, delivery->stream_sequence, delivery->created_us,
                       &entry))
        return CONSUMER_MORE;
    replica_note_revision(keys->store, keys->bucket, entry.key, entry.revision, false);
    if (entry.operation != KV_PUT || (keys->after != NULL && strcmp(entry.key, keys->after) <= 0))
        return CONSUMER_MORE;
    return add_key(keys, entry.key) ? CONSUMER_MORE : CONSUMER_ENOUGH;
}

static void end_keys(void *arg, const struct error *error)
{
    read_keys_finish(arg, error);
}

static const struct consumer_ops keys_ops = {restart_keys, take_key_message, end_keys};

static void on_keys_handle(void *arg, struct bucket *bucket, const struct error *error)
{
    struct read_keys *keys = arg;
    struct error memory;
    const char *filter = keys->filter != NULL ? keys->filter : ">";

    keys->handle = bucket;
    if (error == NULL) {
        char *subject = arena_alloc(keys->arena, strlen(bucket->prefix) + strlen(filter) + 1);
        if (subject == NULL) {
            error_set(&memory, ERROR_RESOURCE_EXHAUSTED, "out of memory");
            error = &memory;
        } else {
            strcpy(stpcpy(subject, bucket->prefix), filter);
            keys->subject = subject;
        }
    }
    if (error != NULL) {
        read_keys_finish(keys, error);
        return;
    }
    struct consumer_scope scope = {.stream = bucket->stream,
                                   .filters = &keys->subject,
                                   .filter_count = 1,
                                   .last_per_subject = true,
                                   .headers_only = true};
    keys->reading.request.limit = &keys->store->readings;
    keys->reading.request.owner = keys->arena->owner;
    consumer_read(&keys->store->jetstream, &keys->reading, &scope, keys->deadline_ms, &keys_ops, keys);
}

static void cancel_keys(struct arena_task *task)
{
    struct read_keys *keys = ARENA_TASK_OWNER(task, struct read_keys, task);

    bucket_wait_cancel(&keys->wait);
    consumer_stop(&keys->reading);
    free_keys(keys, 0);
    free((void *)keys->keys);
    if (keys->handle != NULL)
        bucket_release(keys->handle);
}

void read_keys_begin(struct store *store, struct arena *arena, struct read_keys *keys)
{
    keys->store = store;
    keys->arena = arena;
    arena_begin_task(arena, &keys->task, cancel_keys);
}

void read_keys_from_nats(struct read_keys *keys)
{
    free_keys(keys, 0);
    keys->is_sorted = false;
    bucket_open(keys->store, &keys->wait, keys->bucket, keys->arena->owner, keys->deadline_ms, on_keys_handle, keys);
}

void read_keys(struct store *store, struct arena *arena, struct read_keys *keys)
{
    read_keys_begin(store, arena, keys);
    read_keys_from_nats(keys);
}
