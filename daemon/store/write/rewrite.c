#include "daemon/store/write/rewrite.h"

#include "daemon/base/backoff.h"
#include "daemon/base/clock.h"
#include "daemon/store/observe.h"

#include <string.h>

#define REWRITE_CHUNK_BYTES 2048u

/* After a conflict, it starts again at once this number of times, then with a backoff. */
#define CONFLICTS_AT_ONCE 4u

static struct rewrite *rewrite_of(struct modify *modify)
{
    return (struct rewrite *)((char *)modify - offsetof(struct rewrite, modify));
}

/* End what is in progress. */
static void rewrite_stop(struct rewrite *rewrite)
{
    timer_stop(rewrite->modify.store->timers, &rewrite->pause);
    jobs_remove(rewrite->modify.store->jobs, &rewrite->again);
    if (rewrite->state == REWRITE_READING || rewrite->state == REWRITE_WRITING)
        arena_destroy(&rewrite->arena);
    rewrite->state = REWRITE_IDLE;
}

static void rewrite_finish(struct rewrite *rewrite, uint64_t revision, const struct error *error)
{
    struct error copy;

    if (error != NULL) {
        copy = *error;
        error = &copy;
    }
    rewrite_stop(rewrite);
    modify_finish(&rewrite->modify, revision, 0, error);
}

static void rewrite_finish_out_of_memory(struct rewrite *rewrite)
{
    struct error error;

    error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    rewrite_finish(rewrite, 0, &error);
}

/* --- Writing --------------------------------------------------------------------------------------- */

static void rewrite_read(struct rewrite *rewrite);

static void on_rewrite_pause_over(struct timer *timer)
{
    struct rewrite *rewrite = (struct rewrite *)((char *)timer - offsetof(struct rewrite, pause));
    struct error error;

    if (uv_now(rewrite->modify.store->loop) < rewrite->modify.deadline_ms) {
        rewrite_read(rewrite);
        return;
    }
    error_set(&error, ERROR_DEADLINE_EXCEEDED,
              "gave up after %u attempts: concurrent writes to the key; nothing was written, try again",
              rewrite->conflicts);
    rewrite_finish(rewrite, 0, &error);
}

static bool rewrite_run_again(struct job *job)
{
    rewrite_read((struct rewrite *)((char *)job - offsetof(struct rewrite, again)));
    return false;
}

/* Somebody else has written to the key. */
static void rewrite_retry(struct rewrite *rewrite)
{
    struct store *store = rewrite->modify.store;
    const struct conf *conf = store->conf;
    uint64_t deadline_ms = rewrite->modify.deadline_ms;

    rewrite_stop(rewrite);
    rewrite->state = REWRITE_PAUSED;
    if (++rewrite->conflicts <= CONFLICTS_AT_ONCE) {
        jobs_add(store->jobs, &rewrite->again, rewrite_run_again);
        return;
    }
    uint64_t at_ms = uv_now(store->loop) + backoff_ms(rewrite->conflicts - CONFLICTS_AT_ONCE, conf->calls.retry_min_ms,
                                                      conf->calls.retry_max_ms);
    timer_start(store->timers, &rewrite->pause, at_ms < deadline_ms ? at_ms : deadline_ms, on_rewrite_pause_over);
}

static void on_rewrite_written(void *arg, uint64_t revision, const struct error *error)
{
    struct rewrite *rewrite = arg;
    bool is_conflict = error != NULL && error->code == ERROR_CONFLICT && error->outcome != ERROR_OUTCOME_UNKNOWN;

    if (is_conflict && !(rewrite->has_condition && rewrite->revision > 0))
        rewrite_retry(rewrite);
    else
        rewrite_finish(rewrite, revision, error);
}

static void rewrite_note_sent(struct write *write, const struct journal_copy *copy)
{
    struct rewrite *rewrite = (struct rewrite *)((char *)write - offsetof(struct rewrite, write));

    modify_note_sent(&rewrite->modify, copy, 0);
}

struct rewrite_headers {
    struct message_header *headers;
    size_t count;
};

static bool rewrite_count_header(void *arg, const char *name, const char *value)
{
    struct rewrite_headers *headers = arg;

    (void)value;
    headers->count += !kv_is_internal_header(name);
    return true;
}

static bool rewrite_add_header(void *arg, const char *name, const char *value)
{
    struct rewrite_headers *headers = arg;

    if (!kv_is_internal_header(name))
        headers->headers[headers->count++] = (struct message_header){name, value};
    return true;
}

/* Set the operation's value and headers to copies of the entry's, in the arena. False: out of memory. */
static bool rewrite_copy_value(struct rewrite *rewrite, const struct kv_entry *entry, struct operation *operation)
{
    struct kv_entry *copy = arena_alloc(&rewrite->arena, sizeof(*copy));
    struct rewrite_headers headers = {0};

    if (copy == NULL || !get_copy_entry(&rewrite->arena, entry, copy))
        return false;
    message_each_header(copy->message, rewrite_count_header, &headers);
    headers.headers = arena_alloc(&rewrite->arena, (headers.count + 1) * sizeof(*headers.headers));
    if (headers.headers == NULL)
        return false;
    headers.count = 0;
    message_each_header(copy->message, rewrite_add_header, &headers);
    operation->value = copy->value;
    operation->value_bytes = copy->value_bytes;
    operation->headers = headers.headers;
    operation->header_count = headers.count;
    /* Only one copy exists at a time. */
    if (rewrite->arena.bytes > rewrite->charged_bytes) {
        arena_charge(rewrite->modify.arena, rewrite->arena.bytes - rewrite->charged_bytes);
        rewrite->charged_bytes = rewrite->arena.bytes;
    }
    return true;
}

/* The value, the headers and the TTL that the new entry gets. False: out of memory. */
static bool rewrite_set_contents(struct rewrite *rewrite, const struct kv_entry *entry, struct operation *operation)
{
    int64_t expires_us = entry != NULL ? kv_read_expiry_us(entry) : 0;

    operation->ttl_s = rewrite->ttl_s;
    if (rewrite->kind == REWRITE_TOUCH)
        return rewrite_copy_value(rewrite, entry, operation);
    operation->value = rewrite->value;
    operation->value_bytes = rewrite->value_bytes;
    operation->headers = rewrite->headers;
    operation->header_count = rewrite->header_count;
    if (expires_us > 0)
        operation_keep_ttl(operation, expires_us);
    return true;
}

/* Write on the condition that the key is still at the revision. entry: its value; NULL: it is absent. */
static void rewrite_write(struct rewrite *rewrite, uint64_t revision, const struct kv_entry *entry)
{
    struct write *write = &rewrite->write;

    memset(write, 0, sizeof(*write));
    write->operation.key = rewrite->modify.key;
    write->operation.kind = KV_PUT;
    write->operation.condition = OPERATION_IF_AT_REVISION;
    write->operation.revision = revision;
    if (!rewrite_set_contents(rewrite, entry, &write->operation)) {
        rewrite_finish_out_of_memory(rewrite);
        return;
    }
    write->bucket_name = rewrite->modify.bucket_name;
    write->deadline_ms = rewrite->modify.deadline_ms;
    write->note_sent = rewrite_note_sent;
    write->is_remembered = rewrite->modify.journal.place != 0;
    write->done = on_rewrite_written;
    write->arg = rewrite;
    rewrite->state = REWRITE_WRITING;
    write_start(rewrite->modify.store, &rewrite->arena, write);
}

/* --- Reading --------------------------------------------------------------------------------------- */

/* Decide by the key's last message. is_certain: the server has answered it. Return false if the server must be asked.
 */
static bool rewrite_decide(struct rewrite *rewrite, const struct kv_entry *last, bool is_certain)
{
    uint64_t revision = last != NULL ? last->revision : 0;
    int64_t expires_us = last != NULL ? kv_read_expiry_us(last) : 0;
    bool is_there = last != NULL && last->operation == KV_PUT && (expires_us == 0 || clock_epoch_us() < expires_us);
    uint64_t current = is_there ? revision : 0;

    if (!modify_may_write_at(&rewrite->modify, revision)) {
        rewrite_stop(rewrite);
        modify_check(&rewrite->modify);
        return true;
    }
    if (!is_there && !is_certain)
        return false;
    if (rewrite->has_condition && rewrite->revision != current) {
        struct operation wanted = {.condition = OPERATION_IF_AT_REVISION, .revision = rewrite->revision};
        struct error error;
        if (!is_certain)
            return false;
        operation_set_condition_error(&wanted, current, &error);
        rewrite_finish(rewrite, 0, &error);
        return true;
    }
    if (!is_there && rewrite->kind == REWRITE_TOUCH)
        rewrite_finish(rewrite, 0, NULL);
    else
        rewrite_write(rewrite, revision, is_there ? last : NULL);
    return true;
}

static void on_rewrite_read(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct rewrite *rewrite = arg;

    if (error != NULL)
        rewrite_finish(rewrite, 0, error);
    else
        rewrite_decide(rewrite, entry, true);
}

static void rewrite_ask_server(struct rewrite *rewrite)
{
    struct get *get = &rewrite->get;

    memset(get, 0, sizeof(*get));
    get->bucket_name = rewrite->modify.bucket_name;
    get->key = rewrite->modify.key;
    get->consistency = READ_DIRECT;
    get->must_be_current = true;
    get->with_markers = true;
    get->deadline_ms = rewrite->modify.deadline_ms;
    get->done = on_rewrite_read;
    get->arg = rewrite;
    get_start(rewrite->modify.store, &rewrite->arena, get);
}

static bool on_rewrite_found(void *arg, const struct kv_entry *entry)
{
    return rewrite_decide(arg, entry, false);
}

/* Memory answers the first time. If its entry is too old, the write is refused. */
static void rewrite_read(struct rewrite *rewrite)
{
    const struct arena *caller = rewrite->modify.arena;
    struct store *store = rewrite->modify.store;

    rewrite_stop(rewrite);
    if (!arena_init(&rewrite->arena, REWRITE_CHUNK_BYTES)) {
        rewrite_finish_out_of_memory(rewrite);
        return;
    }
    rewrite->arena.owner = caller->owner;
    rewrite->arena.call_id = caller->call_id;
    rewrite->state = REWRITE_READING;
    if (rewrite->conflicts == 0 &&
        observe_find(store, rewrite->modify.bucket_name, rewrite->modify.key, on_rewrite_found, rewrite))
        return;
    rewrite_ask_server(rewrite);
}

/* --- Calls ----------------------------------------------------------------------------------------- */

static void rewrite_begin(struct modify *modify)
{
    rewrite_read(rewrite_of(modify));
}

static void rewrite_end(struct modify *modify, uint64_t revision, int64_t value, const struct error *error)
{
    struct rewrite *rewrite = rewrite_of(modify);

    (void)value;
    rewrite->done(rewrite->arg, revision, error);
}

static void rewrite_cancel(struct modify *modify)
{
    rewrite_stop(rewrite_of(modify));
}

static bool rewrite_is_unsent(const struct modify *modify)
{
    const struct rewrite *rewrite = (const struct rewrite *)modify; /* its first member */

    return rewrite->state != REWRITE_WRITING || arena_is_unsent(&rewrite->arena);
}

static const struct modify_ops rewrite_ops = {
    .begin = rewrite_begin, .done = rewrite_end, .cancel = rewrite_cancel, .is_unsent = rewrite_is_unsent};

/* A call that was repeated has the same values: their beginnings and sizes tell it from another one. */
#define DESCRIBED_VALUE_BYTES 1024u

static void rewrite_describe(struct store *store, struct rewrite *rewrite)
{
    struct journal_call *call = &rewrite->modify.journal;
    const uint64_t numbers[] = {rewrite->kind, (uint64_t)rewrite->ttl_s, rewrite->has_condition, rewrite->revision,
                                rewrite->value_bytes};
    size_t described = rewrite->value_bytes < DESCRIBED_VALUE_BYTES ? rewrite->value_bytes : DESCRIBED_VALUE_BYTES;

    if (call->id == NULL)
        return;
    journal_describe(store->journal, call, rewrite->modify.bucket_name, strlen(rewrite->modify.bucket_name));
    journal_describe(store->journal, call, "rewrite", 7);
    journal_describe(store->journal, call, rewrite->modify.key, strlen(rewrite->modify.key));
    journal_describe(store->journal, call, numbers, sizeof(numbers));
    if (described > 0)
        journal_describe(store->journal, call, rewrite->value, described);
}

void rewrite_start(struct store *store, struct arena *arena, struct rewrite *rewrite)
{
    rewrite_describe(store, rewrite);
    rewrite->again.owner = arena->owner;
    rewrite->modify.ops = &rewrite_ops;
    modify_start(store, arena, &rewrite->modify);
}
