#include "daemon/store/write/delete_matching.h"

#include "daemon/base/array.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* A chunk is full if it has this number of keys, or of bytes of keys. What was requested already is still added. */
#define CHUNK_KEYS  512u
#define CHUNK_BYTES (256u * 1024u)

/* Deletions that read and write at a time. */
#define RUNNING_MAX 4u

#define ARENA_CHUNK_BYTES 16384u

struct delete_state {
    struct request_limit readings;
    struct delete_matching *deletions;
};

static void delete_continue(struct delete_matching *deletion);

/* --- Life ------------------------------------------------------------------------------------------- */

static void delete_chunk_clear(struct delete_chunk *chunk)
{
    chunk->count = 0;
    chunk->text_bytes = 0;
}

static void delete_chunk_free(struct delete_chunk *chunk)
{
    free(chunk->keys);
    free(chunk->text);
}

static void delete_release(struct delete_matching *deletion)
{
    bucket_wait_cancel(&deletion->wait);
    consumer_stop(&deletion->reading);
    jobs_remove(deletion->store->jobs, &deletion->going_on);
    arena_destroy(&deletion->chunk_arena);
    delete_chunk_free(&deletion->filling);
    delete_chunk_free(&deletion->chunk);
    DL_DELETE2(deletion->store->deletions->deletions, deletion, previous, next);
    if (deletion->bucket != NULL)
        bucket_release(deletion->bucket);
}

static void delete_cancel(struct arena_task *task)
{
    delete_release(ARENA_TASK_OWNER(task, struct delete_matching, task));
}

static bool delete_is_unsent(const struct arena_task *task)
{
    return !ARENA_TASK_OWNER(task, struct delete_matching, task)->has_written;
}

static void delete_finish(struct delete_matching *deletion)
{
    struct error error = deletion->error;
    uint64_t count = deletion->count;

    arena_end_task(&deletion->task);
    if (error.code == ERROR_DEADLINE_EXCEEDED)
        error_set(&error, error.code, "timed out after deleting %" PRIu64 " keys; call again to continue", count);
    else if (error.code != ERROR_NONE && count > 0)
        error_set(&error, error.code, "%.180s (after deleting %" PRIu64 " keys)", deletion->error.message, count);
    error.outcome = count > 0 || deletion->is_unknown ? ERROR_OUTCOME_UNKNOWN : ERROR_OUTCOME_NONE;
    delete_release(deletion);
    deletion->done(deletion->arg, count, error.code != ERROR_NONE ? &error : NULL);
}

/* Note an error; the first one counts. What is in flight ends by itself. */
static void delete_fail(struct delete_matching *deletion, const struct error *error)
{
    if (deletion->error.code != ERROR_NONE)
        return;
    deletion->error = *error;
    deletion->error.key = NULL;
    deletion->error.has_revision = false;
}

static void delete_fail_with(struct delete_matching *deletion, enum error_code code, const char *sentence)
{
    struct error error;

    error_set(&error, code, "%s", sentence);
    delete_fail(deletion, &error);
}

static bool delete_has_failed(const struct delete_matching *deletion)
{
    return deletion->error.code != ERROR_NONE;
}

/* --- Writing ---------------------------------------------------------------------------------------- */

/* Count what was deleted. A key whose condition did not hold was written or deleted by another client. */
static void delete_count_results(struct delete_matching *deletion)
{
    for (size_t i = 0; i < deletion->bulk.count; i++) {
        const struct error *error = deletion->bulk.results[i].error;
        if (error == NULL) {
            deletion->count++;
            continue;
        }
        if (error->code == ERROR_CONFLICT)
            continue;
        deletion->is_unknown |= error->outcome == ERROR_OUTCOME_UNKNOWN;
        delete_fail(deletion, error);
    }
}

/* Return what a chunk takes, beside its writes. */
static size_t delete_chunk_bytes(const struct delete_chunk *chunk)
{
    return chunk->text_capacity + chunk->capacity * sizeof(*chunk->keys);
}

/* Charge the memory, which is used again for the next chunk. */
static void delete_charge_chunk(struct delete_matching *deletion)
{
    size_t bytes =
        deletion->chunk_arena.bytes + delete_chunk_bytes(&deletion->filling) + delete_chunk_bytes(&deletion->chunk);
    size_t more = bytes > deletion->charged ? bytes - deletion->charged : 0;
    struct error error;

    arena_clear(&deletion->chunk_arena);
    deletion->charged += more;
    if (deletion->take_memory(deletion->arg, more))
        return;
    get_set_memory_error(&error, "less");
    delete_fail(deletion, &error);
}

static bool delete_run_going_on(struct job *job)
{
    struct delete_matching *deletion =
        (struct delete_matching *)((char *)job - offsetof(struct delete_matching, going_on));

    if (deletion->is_writing && deletion->bulk.claim.in_flight == 0 && deletion->bulk.next == deletion->bulk.count) {
        arena_note_answered(deletion->arena, uv_now(deletion->store->loop));
        delete_count_results(deletion);
        delete_charge_chunk(deletion);
        deletion->is_writing = false;
    }
    if (!deletion->is_writing)
        delete_continue(deletion);
    return false;
}

static void delete_go_on_later(struct delete_matching *deletion)
{
    jobs_add(deletion->store->jobs, &deletion->going_on, delete_run_going_on);
}

/* The memory of the writes is still in use until the loop turns. */
static void on_delete_written(void *arg)
{
    delete_go_on_later(arg);
}

static void delete_make_operation(const struct delete_matching *deletion, const struct delete_key *key,
                                  struct operation *operation)
{
    *operation = (struct operation){.key = deletion->chunk.text + key->name,
                                    .kind = deletion->kind,
                                    .condition = OPERATION_IF_AT_REVISION,
                                    .revision = key->revision,
                                    .value = ""};
}

/* Delete the keys that were read. */
static void delete_write_chunk(struct delete_matching *deletion)
{
    struct delete_chunk filled = deletion->filling;
    size_t count = filled.count;
    struct arena *arena = &deletion->chunk_arena;

    deletion->filling = deletion->chunk;
    deletion->chunk = filled;
    delete_chunk_clear(&deletion->filling);
    struct operation *operations = arena_alloc(arena, count * sizeof(*operations));
    struct bulk_result *results = arena_zalloc(arena, count * sizeof(*results));
    if (operations == NULL || results == NULL) {
        delete_fail_with(deletion, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        delete_go_on_later(deletion);
        return;
    }
    for (size_t i = 0; i < count; i++)
        delete_make_operation(deletion, &deletion->chunk.keys[i], &operations[i]);
    deletion->bulk = (struct bulk_write){.bucket_name = deletion->bucket_name,
                                         .operations = operations,
                                         .count = count,
                                         .results = results,
                                         .deadline_ms = deletion->deadline_ms,
                                         .done = on_delete_written,
                                         .arg = deletion};
    deletion->is_writing = true;
    deletion->has_written = true;
    arena_note_sent(deletion->arena, uv_now(deletion->store->loop));
    bulk_write(deletion->store, arena, &deletion->bulk);
}

/* --- Reading ---------------------------------------------------------------------------------------- */

static bool delete_is_full(const struct delete_chunk *chunk)
{
    return chunk->count >= CHUNK_KEYS || chunk->text_bytes >= CHUNK_BYTES;
}

static bool delete_add_key(struct delete_chunk *chunk, const struct kv_entry *entry)
{
    size_t bytes = strlen(entry->key) + 1;

    if (!array_reserve((void **)&chunk->keys, &chunk->capacity, chunk->count + 1, sizeof(*chunk->keys)) ||
        !array_reserve((void **)&chunk->text, &chunk->text_capacity, chunk->text_bytes + bytes, 1))
        return false;
    memcpy(chunk->text + chunk->text_bytes, entry->key, bytes);
    chunk->keys[chunk->count++] = (struct delete_key){chunk->text_bytes, entry->revision};
    chunk->text_bytes += bytes;
    return true;
}

/* Begin what can be done while no chunk is being written. May end the call. */
static void delete_continue(struct delete_matching *deletion)
{
    if (!deletion->is_wanted(deletion->arg))
        delete_fail_with(deletion, ERROR_UNAVAILABLE, "the client has left, or has cancelled the call");
    if (delete_has_failed(deletion) || (!deletion->is_reading && deletion->filling.count == 0)) {
        delete_finish(deletion);
        return;
    }
    if (!deletion->is_reading || delete_is_full(&deletion->filling))
        delete_write_chunk(deletion);
    if (deletion->is_reading)
        consumer_continue(&deletion->reading);
}

/* A reading that starts over brings keys again. Those that were deleted have markers, which are higher than last. */
static void on_delete_restart(void *arg)
{
    struct delete_matching *deletion = arg;

    if (deletion->last == 0)
        deletion->last = deletion->reading.target;
    delete_chunk_clear(&deletion->filling);
}

static enum consumer_verdict on_delete_message(void *arg, struct message *message, const struct kv_delivery *delivery)
{
    struct delete_matching *deletion = arg;
    struct kv_entry entry;

    if (delete_has_failed(deletion) || delivery->stream_sequence > deletion->last)
        return CONSUMER_ENOUGH;
    if (!kv_read_entry(message, message->subject, deletion->bucket->prefix, delivery->stream_sequence,
                       delivery->created_us, &entry) ||
        entry.operation != KV_PUT || kv_check_key(entry.key, strlen(entry.key)) != NULL)
        return CONSUMER_MORE;
    if (!delete_add_key(&deletion->filling, &entry)) {
        delete_fail_with(deletion, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return CONSUMER_ENOUGH;
    }
    if (!delete_is_full(&deletion->filling))
        return CONSUMER_MORE;
    if (!deletion->is_writing) /* not from within this callback: it may end the call */
        delete_go_on_later(deletion);
    return CONSUMER_PAUSE;
}

static void on_delete_read(void *arg, const struct error *error)
{
    struct delete_matching *deletion = arg;

    deletion->is_reading = false;
    if (error != NULL)
        delete_fail(deletion, error);
    if (!deletion->is_writing)
        delete_go_on_later(deletion);
}

static const struct consumer_ops delete_reading_ops = {on_delete_restart, on_delete_message, on_delete_read};

/* Only the last message of a key shows whether it has a value. */
static void delete_start_reading(struct delete_matching *deletion)
{
    struct consumer_scope scope = {.stream = deletion->bucket->stream,
                                   .filters = &deletion->subject,
                                   .filter_count = 1,
                                   .last_per_subject = true,
                                   .headers_only = true};

    deletion->is_reading = true;
    deletion->reading.request.limit = &deletion->store->deletions->readings;
    request_set_caller(&deletion->reading.request, deletion->arena);
    consumer_read(&deletion->store->jetstream, &deletion->reading, &scope, deletion->deadline_ms, &delete_reading_ops,
                  deletion);
}

static void on_delete_bucket(void *arg, struct bucket *bucket, const struct error *error)
{
    struct delete_matching *deletion = arg;
    char *subject = NULL;

    deletion->bucket = bucket;
    if (error != NULL) {
        delete_fail(deletion, error);
    } else {
        subject = arena_alloc(deletion->arena, strlen(bucket->prefix) + strlen(deletion->filter) + 1);
        if (subject == NULL)
            delete_fail_with(deletion, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        else
            strcpy(stpcpy(subject, bucket->prefix), deletion->filter);
    }
    deletion->subject = subject;
    if (subject == NULL)
        delete_finish(deletion);
    else
        delete_start_reading(deletion);
}

static unsigned delete_count_of_owner(const struct store *store, uint64_t owner)
{
    const struct delete_matching *deletion;
    unsigned count = 0;

    DL_FOREACH2(store->deletions->deletions, deletion, next)
    {
        count += deletion->arena->owner == owner;
    }
    return count;
}

void delete_matching(struct store *store, struct arena *arena, struct delete_matching *deletion)
{
    struct error error;

    deletion->store = store;
    deletion->arena = arena;
    deletion->going_on.owner = arena->owner;
    if (delete_count_of_owner(store, arena->owner) >= DELETE_MATCHING_MAX) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED,
                  "the limit of %u deletions with a filter of this session is reached; try again when one is done",
                  DELETE_MATCHING_MAX);
    } else if (!arena_init(&deletion->chunk_arena, ARENA_CHUNK_BYTES)) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    } else {
        deletion->chunk_arena.owner = arena->owner;
        deletion->chunk_arena.call_id = arena->call_id;
        DL_APPEND2(store->deletions->deletions, deletion, previous, next);
        arena_begin_task(arena, &deletion->task, delete_cancel);
        deletion->task.is_unsent = delete_is_unsent;
        deletion->wait.caller = arena;
        bucket_open(store, &deletion->wait, deletion->bucket_name, arena->owner, deletion->deadline_ms,
                    on_delete_bucket, deletion);
        return;
    }
    error.outcome = ERROR_OUTCOME_NONE;
    deletion->done(deletion->arg, 0, &error);
}

int delete_matching_init_all(struct store *store)
{
    store->deletions = calloc(1, sizeof(*store->deletions));
    if (store->deletions == NULL)
        return -1;
    store->deletions->readings.max = RUNNING_MAX;
    return 0;
}

void delete_matching_free_all(struct store *store)
{
    free(store->deletions);
    store->deletions = NULL;
}
