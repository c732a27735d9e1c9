#include "daemon/store/read/scan.h"

#include "daemon/store/observe.h"
#include "daemon/store/read/get.h"

#include <stdlib.h>
#include <string.h>

/* Readings of histories and keys that are at NATS at a time. Each has a consumer. */
#define READINGS_MAX 16u

/* The names of a listing that is over. */
struct listed_names {
    struct listed_names *next;
    struct key_page page;
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
    history->done(history->arg, history->count, error);
    if (bucket != NULL)
        bucket_release(bucket);
}

static void scan_history_restart(void *arg)
{
    struct scan_history *history = arg;

    history->count = 0;
    history->bytes = 0;
    history->restart(history->arg);
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
    history->count++;
    history->bytes += history->entry(history->arg, &entry);
    size_t more = history->bytes > history->charged_bytes ? history->bytes - history->charged_bytes : 0;
    history->charged_bytes += more;
    if (history->bytes > history->bytes_max) {
        error_set(&history->error, ERROR_TOO_LARGE,
                  "the entries of the history exceed %zu bytes (limits.frame_bytes); get the revisions one by one",
                  history->bytes_max);
        return CONSUMER_ENOUGH;
    }
    if (!history->take_memory(history->memory_arg, more)) {
        get_set_memory_error(&history->error, "less");
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
    arena_begin_reading_task(arena, &history->task, scan_history_cancel);
    history->wait.caller = history->arena;
    bucket_open(store, &history->wait, history->bucket_name, history->arena->owner, history->deadline_ms,
                on_scan_history_bucket, history);
}

/* --- A bucket's keys ------------------------------------------------------------------------------- */

/* Up to this number of names are freed at once, more in slices. */
#define NAMES_AT_ONCE 1000u

/* --- Freeing: a million names take longer than a turn may --- */

static bool scan_run_freeing(struct job *job)
{
    struct scan_state *scan = (struct scan_state *)((char *)job - offsetof(struct scan_state, freeing));

    while (scan->listed_names != NULL) {
        struct listed_names *listed = scan->listed_names;
        if (!key_page_clear_some(&listed->page, KEY_ORDER_LEAF_NAMES)) {
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
        key_page_clear(&listed->page);
        free(listed);
    }
    free(store->scan);
    store->scan = NULL;
}

/* Discard all names. */
static void scan_keys_drop_all(struct scan_keys *keys)
{
    struct store *store = keys->store;
    struct listed_names *listed = keys->page.count > NAMES_AT_ONCE ? malloc(sizeof(*listed)) : NULL;

    if (listed == NULL) {
        key_page_clear(&keys->page);
    } else {
        listed->page = keys->page;
        listed->next = store->scan->listed_names;
        store->scan->listed_names = listed;
        jobs_add(store->jobs, &store->scan->freeing, scan_run_freeing);
    }
    keys->page = (struct key_page){.limit = keys->limit, .has_revisions = keys->has_revisions};
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
    scan_keys_drop_all(arg);
}

/* Charge the names. What was charged for a name that was dropped since is used for the next ones. */
static bool scan_keys_charge_memory(struct scan_keys *keys)
{
    size_t bytes = keys->page.memory_bytes, more = bytes > keys->taken_bytes ? bytes - keys->taken_bytes : 0;

    if (more == 0)
        return true;
    keys->taken_bytes += more;
    return keys->take_memory(keys->memory_arg, more);
}

/*
 * Keep a key; with a limit, only the lowest ones so far. A key that is written during the scan may come several times.
 * False: keys->error says what is wrong.
 */
static bool scan_keys_keep_lowest(struct scan_keys *keys, const char *key, uint64_t revision, uint64_t value_bytes)
{
    if (key_page_add(&keys->page, key, revision, value_bytes) == KEY_PAGE_NO_MEMORY) {
        error_set(&keys->error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return false;
    }
    if (!scan_keys_charge_memory(keys)) {
        get_set_memory_error(&keys->error, "less");
        return false;
    }
    if (keys->page.packed_bytes <= keys->bytes_max)
        return true;
    error_set(&keys->error, ERROR_TOO_LARGE,
              "the keys exceed %zu bytes (limits.frame_bytes); list them in pages with limit and after",
              keys->bytes_max);
    return false;
}

bool scan_keys_add(struct scan_keys *keys, const char *key)
{
    return scan_keys_keep_lowest(keys, key, 0, 0) && !key_page_is_full(&keys->page);
}

/* Return the bytes of a message's value, which the reading leaves out, and of its headers. */
static uint64_t scan_entry_bytes(struct message *message)
{
    uint64_t bytes = kv_header_number(message, KV_HEADER_SIZE);

    for (size_t i = 0; i < message->header_count; i++)
        bytes += strlen(message->headers[i].name) + strlen(message->headers[i].value);
    return bytes;
}

static enum consumer_verdict scan_keys_receive(void *arg, struct message *message, const struct kv_delivery *delivery)
{
    struct scan_keys *keys = arg;
    struct kv_entry entry;

    if (!kv_read_entry(message, message->subject, keys->bucket->prefix, delivery->stream_sequence, delivery->created_us,
                       &entry))
        return CONSUMER_MORE;
    observe_revision(keys->store, keys->bucket_name, entry.key, entry.revision, false);
    if (kv_is_reserved(entry.key) || (keys->after != NULL && strcmp(entry.key, keys->after) <= 0) ||
        (keys->up_to != NULL && strcmp(entry.key, keys->up_to) > 0))
        return CONSUMER_MORE;
    if (entry.operation != KV_PUT &&
        keys->from_sequence == 0) { /* its marker is newer than its value, because messages are read in their order */
        key_page_remove(&keys->page, entry.key);
        return CONSUMER_MORE;
    }
    uint64_t value_bytes = keys->has_revisions ? scan_entry_bytes(message) : 0;
    return scan_keys_keep_lowest(keys, entry.key, entry.revision, value_bytes) ? CONSUMER_MORE : CONSUMER_ENOUGH;
}

static void scan_keys_start_reading(struct scan_keys *keys);

static void scan_keys_end(void *arg, const struct error *error)
{
    struct scan_keys *keys = arg;
    bool is_short = key_page_is_short(&keys->page) && !(keys->may_be_short && keys->page.count > 0);

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
                                   .last_per_subject = keys->from_sequence == 0,
                                   .start_sequence = keys->from_sequence,
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
    keys->page = (struct key_page){.limit = keys->limit, .has_revisions = keys->has_revisions};
    arena_begin_reading_task(arena, &keys->task, scan_keys_cancel);
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
