#include "daemon/store/read/scan.h"

#include "daemon/base/block.h"
#include "daemon/store/observe.h"
#include "daemon/store/read/get.h"

#include <stdlib.h>
#include <string.h>

/* Readings of histories and keys that are at NATS at a time. Each has a consumer. */
#define READINGS_MAX 16u

/* The names of a listing that is over. */
struct listed_names {
    struct listed_names *next;
    struct key_order names;
};

struct scan_state {
    struct jobs *jobs;
    struct request_limit readings;
    struct listed_names *listed_names; /* to be freed */
    struct job freeing;
};

/* --- A key's history ------------------------------------------------------------------------------- */

static void scan_history_finish(struct scan_history *history, const struct error *error)
{
    struct bucket *bucket = history->bucket;

    if (error == NULL && history->error.code != ERROR_NONE)
        error = &history->error;
    arena_end_task(&history->task);
    history->done(history->arg, history->entries, error == NULL ? history->count : 0, error);
    if (bucket != NULL)
        bucket_release(bucket);
}

static void scan_history_restart(void *arg)
{
    struct scan_history *history = arg;

    history->count = 0;
    history->bytes = 0;
}

/* Copy the entry into the arena, headers included: it outlives its message. */
static bool scan_history_keep(struct scan_history *history, const struct kv_entry *entry)
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
    if (!get_copy_entry(history->arena, entry, &history->entries[history->count]))
        return false;
    history->count++;
    return true;
}

static enum consumer_verdict scan_history_receive(void *arg, struct message *message,
                                                  const struct kv_delivery *delivery)
{
    struct scan_history *history = arg;
    struct kv_entry entry;

    if (!kv_read_entry(message, message->subject, history->bucket->prefix, delivery->stream_sequence,
                       delivery->created_us, &entry))
        return CONSUMER_MORE;
    observe_revision(history->store, history->bucket_name, history->key, entry.revision, false);
    history->bytes += entry.value_bytes;
    if (history->bytes > history->bytes_max) {
        error_set(&history->error, ERROR_TOO_LARGE,
                  "the values of the history exceed %zu bytes (limits.frame_bytes); get the revisions one by one",
                  history->bytes_max);
        return CONSUMER_ENOUGH;
    }
    if (!history->take_memory(history->memory_arg, entry.value_bytes + sizeof(entry))) {
        get_set_memory_error(&history->error, "less");
        return CONSUMER_ENOUGH;
    }
    if (!scan_history_keep(history, &entry)) {
        error_set(&history->error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return CONSUMER_ENOUGH;
    }
    return CONSUMER_MORE;
}

static void scan_history_end(void *arg, const struct error *error)
{
    scan_history_finish(arg, error);
}

static const struct consumer_ops scan_history_ops = {scan_history_restart, scan_history_receive, scan_history_end};

static void on_scan_history_bucket(void *arg, struct bucket *bucket, const struct error *error)
{
    struct scan_history *history = arg;
    char *subject = NULL;
    struct error memory;

    history->bucket = bucket;
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
        scan_history_finish(history, error);
        return;
    }
    history->subject = subject;
    struct consumer_scope scope = {.stream = bucket->stream, .filters = &history->subject, .filter_count = 1};
    history->reading.request.limit = &history->store->scan->readings;
    request_set_caller(&history->reading.request, history->arena);
    consumer_read(&history->store->jetstream, &history->reading, &scope, history->deadline_ms, &scan_history_ops,
                  history);
}

static void scan_history_cancel(struct arena_task *task)
{
    struct scan_history *history = ARENA_TASK_OWNER(task, struct scan_history, task);

    bucket_wait_cancel(&history->wait);
    consumer_stop(&history->reading);
    if (history->bucket != NULL)
        bucket_release(history->bucket);
}

void scan_history(struct store *store, struct arena *arena, struct scan_history *history)
{
    history->store = store;
    history->arena = arena;
    arena_begin_task(arena, &history->task, scan_history_cancel);
    history->wait.caller = history->arena;
    bucket_open(store, &history->wait, history->bucket_name, history->arena->owner, history->deadline_ms,
                on_scan_history_bucket, history);
}

/* --- A bucket's keys ------------------------------------------------------------------------------- */

/* Up to this number of names are freed at once, more in slices. */
#define NAMES_AT_ONCE 1000u

/* Return the most that a key takes in the answer: its bytes and a str 16 header. */
static size_t scan_packed_bytes(const char *key)
{
    return strlen(key) + 3;
}

/* Return what a name takes in memory, with its place in the order. */
static size_t scan_name_bytes(char *name)
{
    return block_bytes(name) + 2 * sizeof(name);
}

static void scan_free_names(struct key_order *names)
{
    struct key_order_place place = {0};

    for (const char *name; (name = key_order_next(names, &place)) != NULL;)
        free((char *)name);
    key_order_clear(names);
}

/* --- Freeing: a million names take longer than a turn may --- */

static bool scan_run_freeing(struct job *job)
{
    struct scan_state *scan = (struct scan_state *)((char *)job - offsetof(struct scan_state, freeing));

    while (scan->listed_names != NULL) {
        struct listed_names *listed = scan->listed_names;
        for (unsigned i = 0; i < KEY_ORDER_LEAF_NAMES; i++)
            free((char *)key_order_remove_last(&listed->names));
        if (listed->names.leaf_count == 0) {
            key_order_clear(&listed->names);
            scan->listed_names = listed->next;
            free(listed);
        }
        if (jobs_slice_is_over(scan->jobs))
            return true;
    }
    return false;
}

int scan_init_all(struct store *store)
{
    store->scan = calloc(1, sizeof(*store->scan));
    if (store->scan == NULL)
        return -1;
    store->scan->jobs = store->jobs;
    store->scan->readings.max = READINGS_MAX;
    store->scan->readings.is_of_many_streams = true;
    return 0;
}

void scan_free_all(struct store *store)
{
    struct listed_names *listed;

    jobs_remove(store->jobs, &store->scan->freeing);
    while ((listed = store->scan->listed_names) != NULL) {
        store->scan->listed_names = listed->next;
        scan_free_names(&listed->names);
        free(listed);
    }
    free(store->scan);
    store->scan = NULL;
}

/* Discard all names. */
static void scan_keys_drop_all(struct scan_keys *keys)
{
    struct store *store = keys->store;
    struct listed_names *listed = keys->count > NAMES_AT_ONCE ? malloc(sizeof(*listed)) : NULL;

    if (listed == NULL) {
        scan_free_names(&keys->names);
    } else {
        listed->names = keys->names;
        listed->next = store->scan->listed_names;
        store->scan->listed_names = listed;
        jobs_add(store->jobs, &store->scan->freeing, scan_run_freeing);
    }
    memset(&keys->names, 0, sizeof(keys->names));
    keys->count = 0;
    keys->bytes = 0;
    keys->memory_bytes = 0;
}

/* --- Gathering --- */

void scan_keys_finish(struct scan_keys *keys, const struct error *error)
{
    struct error own = keys->error;

    if (error == NULL && own.code != ERROR_NONE)
        error = &own;
    if (error == NULL) {
        keys->done(keys->arg, keys, NULL);
        return;
    }
    arena_end_task(&keys->task);
    scan_keys_drop_all(keys);
    if (keys->bucket != NULL)
        bucket_release(keys->bucket);
    keys->done(keys->arg, NULL, error);
}

static void scan_keys_restart(void *arg)
{
    struct scan_keys *keys = arg;

    scan_keys_drop_all(keys);
    keys->has_dropped = false;
}

static void scan_keys_drop_last(struct scan_keys *keys)
{
    char *name = (char *)key_order_remove_last(&keys->names);

    keys->bytes -= scan_packed_bytes(name);
    keys->memory_bytes -= scan_name_bytes(name);
    keys->count--;
    free(name);
    keys->has_dropped = true;
}

/* A key that was read as present is deleted: its marker is newer, because messages are read in their order. */
static void scan_keys_remove(struct scan_keys *keys, const char *key)
{
    struct key_order_place place = key_order_find(&keys->names, key, false);
    const char *name = key_order_next(&keys->names, &place);

    if (name == NULL || strcmp(name, key) != 0)
        return;
    key_order_remove(&keys->names, key);
    keys->bytes -= scan_packed_bytes(key);
    keys->memory_bytes -= scan_name_bytes((char *)name);
    keys->count--;
    free((char *)name);
}

static enum key_order_added scan_keys_keep(struct scan_keys *keys, const char *key)
{
    char *name = strdup(key);
    enum key_order_added added = name != NULL ? key_order_add(&keys->names, name) : KEY_ORDER_NO_MEMORY;

    if (added == KEY_ORDER_ADDED) {
        keys->count++;
        keys->bytes += scan_packed_bytes(name);
        keys->memory_bytes += scan_name_bytes(name);
    } else {
        free(name);
    }
    return added;
}

/* Charge the names. What was charged for a name that was dropped since is used for the next ones. */
static bool scan_keys_charge_memory(struct scan_keys *keys)
{
    size_t more = keys->memory_bytes > keys->taken_bytes ? keys->memory_bytes - keys->taken_bytes : 0;

    if (more == 0)
        return true;
    keys->taken_bytes += more;
    return keys->take_memory(keys->memory_arg, more);
}

/*
 * Keep a key; with a limit, only the lowest ones so far. A key that is written during the scan may come several times.
 * False: keys->error says what is wrong.
 */
static bool scan_keys_keep_lowest(struct scan_keys *keys, const char *key)
{
    bool is_full = keys->limit > 0 && keys->count >= keys->limit;

    if (is_full && strcmp(key, key_order_last(&keys->names)) >= 0) {
        keys->has_dropped = true;
        return true;
    }
    switch (scan_keys_keep(keys, key)) {
    case KEY_ORDER_ADDED:
        break;
    case KEY_ORDER_HAD_IT:
        return true;
    case KEY_ORDER_NO_MEMORY:
        error_set(&keys->error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return false;
    }
    if (is_full)
        scan_keys_drop_last(keys);
    if (!scan_keys_charge_memory(keys)) {
        get_set_memory_error(&keys->error, "less");
        return false;
    }
    if (keys->bytes <= keys->bytes_max)
        return true;
    error_set(&keys->error, ERROR_TOO_LARGE,
              "the keys exceed %zu bytes (limits.frame_bytes); list them in pages with limit and after",
              keys->bytes_max);
    return false;
}

bool scan_keys_add(struct scan_keys *keys, const char *key)
{
    return scan_keys_keep_lowest(keys, key) && (keys->limit == 0 || keys->count < keys->limit);
}

static enum consumer_verdict scan_keys_receive(void *arg, struct message *message, const struct kv_delivery *delivery)
{
    struct scan_keys *keys = arg;
    struct kv_entry entry;

    if (!kv_read_entry(message, message->subject, keys->bucket->prefix, delivery->stream_sequence, delivery->created_us,
                       &entry))
        return CONSUMER_MORE;
    observe_revision(keys->store, keys->bucket_name, entry.key, entry.revision, false);
    if (kv_is_reserved(entry.key) || (keys->after != NULL && strcmp(entry.key, keys->after) <= 0))
        return CONSUMER_MORE;
    if (entry.operation != KV_PUT) {
        scan_keys_remove(keys, entry.key);
        return CONSUMER_MORE;
    }
    return scan_keys_keep_lowest(keys, entry.key) ? CONSUMER_MORE : CONSUMER_ENOUGH;
}

static void scan_keys_start_reading(struct scan_keys *keys);

static void scan_keys_end(void *arg, const struct error *error)
{
    struct scan_keys *keys = arg;
    bool is_short = keys->has_dropped && keys->count < keys->limit;

    /* Keys of the page were deleted while it was read. Those that would fill it were dropped before: read again. */
    if (error == NULL && keys->error.code == ERROR_NONE && is_short)
        scan_keys_start_reading(keys);
    else
        scan_keys_finish(keys, error);
}

static const struct consumer_ops scan_keys_ops = {scan_keys_restart, scan_keys_receive, scan_keys_end};

static void scan_keys_start_reading(struct scan_keys *keys)
{
    struct consumer_scope scope = {.stream = keys->bucket->stream,
                                   .filters = &keys->subject,
                                   .filter_count = 1,
                                   .last_per_subject = true,
                                   .headers_only = true};

    memset(&keys->reading, 0, sizeof(keys->reading));
    keys->reading.request.limit = &keys->store->scan->readings;
    request_set_caller(&keys->reading.request, keys->arena);
    consumer_read(&keys->store->jetstream, &keys->reading, &scope, keys->deadline_ms, &scan_keys_ops, keys);
}

static void on_scan_keys_bucket(void *arg, struct bucket *bucket, const struct error *error)
{
    struct scan_keys *keys = arg;
    struct error memory;
    const char *filter = keys->filter != NULL ? keys->filter : ">";

    keys->bucket = bucket;
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
        scan_keys_finish(keys, error);
        return;
    }
    scan_keys_start_reading(keys);
}

static void scan_keys_cancel(struct arena_task *task)
{
    struct scan_keys *keys = ARENA_TASK_OWNER(task, struct scan_keys, task);

    bucket_wait_cancel(&keys->wait);
    consumer_stop(&keys->reading);
    scan_keys_drop_all(keys);
    if (keys->bucket != NULL)
        bucket_release(keys->bucket);
}

void scan_keys_begin(struct store *store, struct arena *arena, struct scan_keys *keys)
{
    keys->store = store;
    keys->arena = arena;
    arena_begin_task(arena, &keys->task, scan_keys_cancel);
}

void scan_keys_from_nats(struct scan_keys *keys)
{
    scan_keys_drop_all(keys);
    keys->wait.caller = keys->arena;
    bucket_open(keys->store, &keys->wait, keys->bucket_name, keys->arena->owner, keys->deadline_ms, on_scan_keys_bucket,
                keys);
}

void scan_keys(struct store *store, struct arena *arena, struct scan_keys *keys)
{
    scan_keys_begin(store, arena, keys);
    scan_keys_from_nats(keys);
}
