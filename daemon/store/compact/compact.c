#include "daemon/store/compact/compact.h"

#include "daemon/base/array.h"
#include "daemon/base/hash.h"
#include "daemon/base/log.h"
#include "daemon/store/bucket/settings.h"
#include "daemon/store/compact/remains.h"
#include "daemon/store/compact/schedule.h"
#include "daemon/store/compact/state.h"
#include "daemon/store/follow/horizon.h"
#include "daemon/store/follow/state.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* The feed delivers a marker to the local copy within this time, or the marker stays. */
#define FEED_WAIT_MS 1000u

/* Purges of delete markers that are at NATS at a time. */
#define PURGES_MAX 4u

/* A chunk is full with so many markers, or so many bytes of keys. What the pull has requested is still added. */
#define CHUNK_MARKERS 65536u
#define CHUNK_BYTES   (8u * 1024u * 1024u)

#define ARENA_CHUNK_BYTES 2048u

struct compact_marker {
    uint64_t sequence;
    uint64_t hash;    /* of its subject */
    size_t key;       /* in the chunk's text */
    bool is_retained; /* its key's old values are still in the files */
};

/* A look at the server's files, on a worker thread. It may outlive its call. */
struct compact_look {
    uv_work_t work;
    struct compact *compact; /* NULL: nobody waits for it */
    atomic_bool is_unwanted; /* the same, for the thread */
    struct remains_key *keys;
    size_t count;
    char directory[];
};

static void go_on(struct compact *compact);
static void start_purges(struct compact *compact);
static void look_at_files(struct compact *compact);
static void check_connection(struct compact *compact);
static void leave_turn(struct compact *compact);

/* --- Chunks ----------------------------------------------------------------------------------------- */

static void free_chunk(struct compact_chunk *chunk)
{
    free(chunk->markers);
    free(chunk->text);
    memset(chunk, 0, sizeof(*chunk));
}

static bool is_full(const struct compact_chunk *chunk)
{
    return chunk->count >= CHUNK_MARKERS || chunk->text_bytes >= CHUNK_BYTES;
}

static bool add_marker(struct compact_chunk *chunk, const struct kv_entry *entry, const char *subject)
{
    size_t bytes = strlen(entry->key) + 1;

    if (!array_reserve((void **)&chunk->markers, &chunk->capacity, chunk->count + 1, sizeof(*chunk->markers)) ||
        !array_reserve((void **)&chunk->text, &chunk->text_capacity, chunk->text_bytes + bytes, 1))
        return false;
    memcpy(chunk->text + chunk->text_bytes, entry->key, bytes);
    chunk->markers[chunk->count++] = (struct compact_marker){
        .sequence = entry->revision, .hash = hash_bytes(subject, strlen(subject)), .key = chunk->text_bytes};
    chunk->text_bytes += bytes;
    return true;
}

/* --- Life ------------------------------------------------------------------------------------------- */

static void end_horizon(struct compact *compact)
{
    if (!compact->has_horizon_arena)
        return;
    compact->has_horizon_arena = false;
    arena_destroy(&compact->horizon_arena); /* ends what is under way in it */
}

/* Count the begin or the end of purges, which remove messages without a trace: see outcome. */
static void note_removal(struct compact *compact)
{
    bucket_note_removal(compact->store, compact->purges_under_way > 0);
}

static void cancel_purges(struct compact *compact)
{
    for (size_t i = 0; i < COMPACT_PURGES_MAX; i++) {
        if (compact->purges[i].is_under_way)
            jetstream_cancel(&compact->purges[i].call);
        compact->purges[i].is_under_way = false;
    }
    compact->purges_under_way = 0;
}

/* It goes on without the call, and ends soon. */
static void forget_look(struct compact *compact)
{
    if (compact->look == NULL)
        return;
    compact->look->compact = NULL;
    atomic_store(&compact->look->is_unwanted, true);
    compact->look = NULL;
}

static void release(struct compact *compact)
{
    leave_turn(compact);
    jobs_remove(compact->store->jobs, &compact->going_on);
    timer_stop(compact->store->timers, &compact->deadline);
    local_copy_wait_cancel(&compact->feed_wait);
    if (compact->has_removed)
        note_removal(compact);
    bucket_wait_cancel(&compact->wait);
    jetstream_cancel(&compact->info);
    consumer_stop(&compact->reading);
    cancel_purges(compact);
    end_horizon(compact);
    forget_look(compact);
    free_chunk(&compact->chunk);
    free_chunk(&compact->filling);
    if (compact->has_removed)
        local_copy_note_compacted(compact->store, compact->bucket, compact->horizon);
    if (compact->handle != NULL)
        bucket_release(compact->handle);
}

static void cancel_compact(struct arena_task *task)
{
    release(ARENA_TASK_OWNER(task, struct compact, task));
}

static void finish(struct compact *compact)
{
    struct error *error = &compact->error;

    arena_end_task(&compact->task);
    if (error->code == ERROR_DEADLINE_EXCEEDED)
        error_set(error, ERROR_DEADLINE_EXCEEDED,
                  "timed out after removing %" PRIu64 " delete markers; call again to go on", compact->removed);
    error->outcome = compact->has_removed ? ERROR_OUTCOME_UNKNOWN : ERROR_OUTCOME_NONE;
    error->key = NULL;
    error->has_revision = false;
    release(compact);
    compact->done(compact->arg, compact->removed, error->code != ERROR_NONE ? error : NULL);
}

/* Note an error; the first one counts. What is under way ends by itself, at the deadline at the latest. */
static void fail(struct compact *compact, const struct error *error)
{
    if (compact->error.code == ERROR_NONE)
        compact->error = *error;
}

static void fail_out_of_memory(struct compact *compact)
{
    struct error error;

    error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    fail(compact, &error);
}

static bool has_failed(const struct compact *compact)
{
    return compact->error.code != ERROR_NONE;
}

/* --- Purges ----------------------------------------------------------------------------------------- */

static const char *key_of(const struct compact *compact, const struct compact_marker *marker)
{
    return compact->chunk.text + marker->key;
}

/* Return how many of the next markers come before everything that must stay: one purge can remove them. */
static size_t count_run(struct compact *compact)
{
    const struct compact_chunk *chunk = &compact->chunk;
    size_t end = compact->next_marker;

    if (compact->is_past_barrier || compact->is_clearing || compact->handle->history > 1)
        return 0;
    while (end < chunk->count && !chunk->markers[end].is_retained &&
           (compact->barrier == 0 || chunk->markers[end].sequence < compact->barrier))
        end++;
    compact->is_past_barrier = end < chunk->count;
    return end - compact->next_marker;
}

static void on_purged(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct compact_purge *purge = arg;
    struct compact *compact = purge->compact;

    (void)err_code;
    purge->is_under_way = false;
    if (answer != NULL) {
        /* A purge also removes what came before the marker. */
        uint64_t purged = (uint64_t)json_integer_value(json_object_get(answer, "purged"));
        compact->removed += purged < purge->markers ? purged : purge->markers;
    } else {
        fail(compact, error);
        if (error->code == ERROR_DEADLINE_EXCEEDED)
            note_removal(compact); /* the server may still do it, on this connection */
    }
    compact->purges_under_way--;
    start_purges(compact);
}

/*
 * Purge everything up to the last of the next count markers, of its key or of all keys; while is_clearing, everything
 * before it.
 */
static void send_purge(struct compact *compact, struct compact_purge *purge, size_t count, bool of_key)
{
    const struct compact_marker *last = &compact->chunk.markers[compact->next_marker + count - 1];
    char filter[KV_SUBJECT_BYTES + 1024]; /* other clients may have longer keys than we allow */
    json_t *body = json_pack("{s:I}", "seq", (json_int_t)last->sequence + (compact->is_clearing ? 0 : 1));

    if (of_key) {
        int length = snprintf(filter, sizeof(filter), "%s%s", compact->handle->prefix, key_of(compact, last));
        if (length < 0 || (size_t)length >= sizeof(filter) ||
            json_object_set_new(body, "filter", json_string(filter)) != 0) {
            json_decref(body);
            body = NULL;
        }
    }
    compact->next_marker += count;
    if (body == NULL)
        return; /* the marker stays */
    if (!compact->has_removed) {
        compact->has_removed = true;
        note_removal(compact);
    }
    memset(&purge->call, 0, sizeof(purge->call));
    purge->compact = compact;
    purge->markers = compact->is_clearing ? 0 : count;
    purge->is_under_way = true;
    compact->purges_under_way++;
    purge->call.request.limit = &compact->store->compact->purges;
    purge->call.request.owner = compact->arena->owner;
    /* The next one may be to a server that has other messages at these sequences. */
    purge->call.only_on_connection = compact->connection;
    jetstream_call(&compact->store->jetstream, &purge->call, "STREAM.PURGE", compact->handle->stream, body,
                   compact->deadline_ms, on_purged, purge);
}

static struct compact_purge *find_free_purge(struct compact *compact)
{
    for (size_t i = 0; i < COMPACT_PURGES_MAX; i++) {
        if (!compact->purges[i].is_under_way)
            return &compact->purges[i];
    }
    return NULL;
}

/* Fail after a lost connection: the server may have lost messages, and have others at the sequences that were read. */
static void check_connection(struct compact *compact)
{
    struct error error;

    if (connection_number(compact->store->connection) == compact->connection)
        return;
    error_set(&error, ERROR_UNAVAILABLE, "the connection to NATS was lost; call again to go on");
    fail(compact, &error);
}

/* Send as many purges as may be under way. After the chunk's last one, go on with the next chunk. */
static void start_purges(struct compact *compact)
{
    const struct compact_chunk *chunk = &compact->chunk;
    struct compact_purge *purge;

    check_connection(compact);
    while (!has_failed(compact) && compact->next_marker < chunk->count && (purge = find_free_purge(compact)) != NULL) {
        size_t run = count_run(compact);
        if (run > 0)
            send_purge(compact, purge, run, false);
        else if (!chunk->markers[compact->next_marker].is_retained)
            send_purge(compact, purge, 1, true);
        else
            compact->next_marker++;
    }
    if (compact->purges_under_way > 0)
        return;
    if (compact->is_clearing && !has_failed(compact)) {
        compact->is_clearing = false;
        compact->next_marker = 0;
        look_at_files(compact);
        return;
    }
    compact->is_working = false;
    go_on(compact);
}

/* --- The horizon ------------------------------------------------------------------------------------ */

/* The highest: a reading that began again brings markers once more. */
static uint64_t last_removable(const struct compact_chunk *chunk)
{
    uint64_t last = 0;

    for (size_t i = 0; i < chunk->count; i++) {
        if (!chunk->markers[i].is_retained && chunk->markers[i].sequence > last)
            last = chunk->markers[i].sequence;
    }
    return last;
}

static void on_horizon_read(void *arg, const struct kv_entry *entry, const struct error *error);

static void read_horizon(struct compact *compact)
{
    struct read_get *get = &compact->horizon_get;

    end_horizon(compact);
    if (!arena_init(&compact->horizon_arena, ARENA_CHUNK_BYTES)) {
        fail_out_of_memory(compact);
        start_purges(compact);
        return;
    }
    compact->has_horizon_arena = true;
    compact->horizon_arena.owner = compact->arena->owner;
    memset(get, 0, sizeof(*get));
    get->bucket = compact->bucket;
    get->key = KV_COMPACTED_KEY;
    get->consistency = READ_LEADER;
    get->with_markers = true;
    get->deadline_ms = compact->deadline_ms;
    get->done = on_horizon_read;
    get->arg = compact;
    read_get(compact->store, &compact->horizon_arena, get);
}

static void on_horizon_written(void *arg, uint64_t revision, const struct error *error)
{
    struct compact *compact = arg;

    (void)revision;
    /* After a conflict another host was faster, and may have written a lower horizon. */
    if (error == NULL || error->code == ERROR_CONFLICT) {
        read_horizon(compact);
        return;
    }
    fail(compact, error);
    start_purges(compact);
}

static void write_horizon(struct compact *compact, uint64_t horizon, uint64_t revision_before)
{
    struct write *write = &compact->horizon_write;
    char *text = arena_alloc(&compact->horizon_arena, 24);
    struct message_header *header = arena_alloc(&compact->horizon_arena, sizeof(*header));

    if (text == NULL || header == NULL) {
        fail_out_of_memory(compact);
        start_purges(compact);
        return;
    }
    snprintf(text, 24, "%" PRIu64, horizon);
    *header = (struct message_header){KV_HEADER_COMPACTED, text};
    memset(write, 0, sizeof(*write));
    write->bucket = compact->bucket;
    write->operation = (struct operation){.key = KV_COMPACTED_KEY,
                                          .kind = KV_PURGE,
                                          .condition = OPERATION_IF_LAST,
                                          .revision = revision_before,
                                          .value = "",
                                          .headers = header,
                                          .header_count = 1};
    write->deadline_ms = compact->deadline_ms;
    write->done = on_horizon_written;
    write->arg = compact;
    write_start(compact->store, &compact->horizon_arena, write);
}

/* The horizon is written before the first marker is removed: see confirm in watch. */
static void on_horizon_read(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct compact *compact = arg;
    uint64_t wanted = last_removable(&compact->chunk);

    if (error != NULL) {
        fail(compact, error);
        start_purges(compact);
        return;
    }
    compact->horizon = horizon_read(entry);
    check_connection(compact);
    if (wanted > compact->horizon && !has_failed(compact)) {
        write_horizon(compact, wanted, entry != NULL ? entry->revision : 0);
        return;
    }
    if (wanted > 0 && !has_failed(compact))
        local_copy_note_removal(compact->store, compact->bucket, wanted);
    start_purges(compact);
}

/* --- The server's files ----------------------------------------------------------------------------- */

static void look_on_thread(uv_work_t *work)
{
    struct compact_look *look = work->data;

    remains_look(look->directory, look->keys, look->count, &look->is_unwanted);
}

static void on_looked(uv_work_t *work, int cancelled)
{
    struct compact_look *look = work->data;
    struct compact *compact = look->compact;

    for (size_t i = 0; compact != NULL && i < look->count; i++)
        compact->chunk.markers[look->keys[i].index].is_retained = cancelled != 0 || look->keys[i].has_value;
    free(look->keys);
    free(look);
    if (compact == NULL)
        return;
    compact->look = NULL;
    read_horizon(compact);
}

static bool start_look(struct compact *compact)
{
    const struct compact_chunk *chunk = &compact->chunk;
    const char *data_dir = compact->store->conf->nats.data_dir, *stream = compact->handle->stream;
    static const char format[] = "%s/jetstream/$G/streams/%s/msgs";
    size_t bytes = sizeof(format) + strlen(data_dir) + strlen(stream);
    struct compact_look *look = calloc(1, sizeof(*look) + bytes);
    struct remains_key *keys = malloc(chunk->count * sizeof(*keys));

    if (look == NULL || keys == NULL) {
        free(look);
        free(keys);
        return false;
    }
    snprintf(look->directory, bytes, format, data_dir, stream);
    for (size_t i = 0; i < chunk->count; i++)
        keys[i] =
            (struct remains_key){.hash = chunk->markers[i].hash, .sequence = chunk->markers[i].sequence, .index = i};
    look->keys = keys;
    look->count = chunk->count;
    look->compact = compact;
    look->work.data = look;
    if (uv_queue_work(compact->store->loop, &look->work, look_on_thread, on_looked) != 0) {
        free(look);
        free(keys);
        return false;
    }
    compact->look = look;
    return true;
}

static void look_at_files(struct compact *compact)
{
    if (start_look(compact))
        return;
    fail_out_of_memory(compact);
    start_purges(compact);
}

/* --- Reading ---------------------------------------------------------------------------------------- */

static void on_restart(void *arg)
{
    struct compact *compact = arg;

    if (compact->read_to > 0 && !compact->reading.scope.last_per_subject)
        compact->reading.scope.start_sequence = compact->read_to + 1;
}

static void note_barrier(struct compact *compact, uint64_t sequence)
{
    if (compact->barrier == 0)
        compact->barrier = sequence;
}

static bool run_going_on(struct job *job)
{
    struct compact *compact = (struct compact *)((char *)job - offsetof(struct compact, going_on));

    if (!compact->is_working)
        go_on(compact);
    return false;
}

static enum consumer_verdict on_message(void *arg, struct message *message, const struct kv_delivery *delivery)
{
    struct compact *compact = arg;
    struct kv_entry entry;

    if (has_failed(compact) || delivery->stream_sequence > compact->last || delivery->created_us > compact->cutoff_us)
        return CONSUMER_ENOUGH;
    compact->read_to = delivery->stream_sequence;
    bool is_entry = kv_read_entry(message, message->subject, compact->handle->prefix, delivery->stream_sequence,
                                  delivery->created_us, &entry);
    if (!is_entry || entry.operation == KV_PUT || strcmp(entry.key, KV_COMPACTED_KEY) == 0) {
        note_barrier(compact, delivery->stream_sequence);
        return CONSUMER_MORE;
    }
    if (!add_marker(&compact->filling, &entry, message->subject)) {
        fail_out_of_memory(compact);
        return CONSUMER_ENOUGH;
    }
    if (!is_full(&compact->filling))
        return CONSUMER_MORE;
    if (!compact->is_working) /* not from within this callback: it may end the call */
        jobs_add(compact->store->jobs, &compact->going_on, run_going_on);
    return CONSUMER_PAUSE;
}

static void on_read(void *arg, const struct error *error)
{
    struct compact *compact = arg;

    compact->is_reading = false;
    if (error != NULL)
        fail(compact, error);
    jobs_remove(compact->store->jobs, &compact->going_on);
    if (!compact->is_working)
        go_on(compact);
}

static const struct consumer_ops reading_ops = {on_restart, on_message, on_read};

/* In a bucket with a history only the last message of a key tells whether it is deleted. */
static void start_reading(struct compact *compact)
{
    struct consumer_scope scope = {.stream = compact->handle->stream,
                                   .filters = &compact->subject,
                                   .filter_count = 1,
                                   .last_per_subject = compact->handle->history > 1,
                                   .headers_only = true,
                                   .leaves_place = true};

    compact->is_reading = true;
    compact->connection = connection_number(compact->store->connection);
    compact->reading.request.limit = &compact->store->follow->creations;
    compact->reading.request.owner = compact->arena->owner;
    consumer_read(&compact->store->jetstream, &compact->reading, &scope, compact->deadline_ms, &reading_ops, compact);
}

/* Work on the markers that were read: a full chunk, or the last one. */
static void work_on_chunk(struct compact *compact)
{
    struct compact_chunk worked_on = compact->chunk;

    compact->chunk = compact->filling;
    compact->filling = worked_on;
    compact->filling.count = 0;
    compact->filling.text_bytes = 0;
    compact->next_marker = 0;
    compact->is_working = true;
    compact->is_clearing = compact->is_in_files && compact->handle->history > 1;
    if (compact->is_clearing)
        start_purges(compact);
    else if (compact->is_in_files)
        look_at_files(compact);
    else
        read_horizon(compact);
}

/* Begin the next step after a chunk is done. May end the call. */
static void go_on(struct compact *compact)
{
    if (has_failed(compact) || (!compact->is_reading && compact->filling.count == 0))
        finish(compact);
    else if (!compact->is_reading || is_full(&compact->filling))
        work_on_chunk(compact);
    else
        consumer_go_on(&compact->reading);
}

/* --- Starting --------------------------------------------------------------------------------------- */

/* Return the local copy that must have each marker; NULL: none. In external mode other hosts' copies may be behind. */
static struct local_copy *find_copy(const struct compact *compact)
{
    struct local_copy *copy = local_copy_find(compact->store, compact->bucket);

    return copy != NULL && compact->handle->is_exclusive && copy->feed.is_placed ? copy : NULL;
}

/* Keep markers that the local copy does not have yet: the feed could not deliver them any more. */
static void on_feed_has_come(void *arg, bool has_come)
{
    struct compact *compact = arg;
    const struct local_copy *copy = find_copy(compact);

    if (!has_come && copy != NULL && feed_position(&copy->feed) < compact->last)
        compact->last = feed_position(&copy->feed);
    start_reading(compact);
}

static void await_feed(struct compact *compact)
{
    struct local_copy *copy = find_copy(compact);
    uint64_t until_ms = uv_now(compact->store->loop) + FEED_WAIT_MS;

    if (copy == NULL || !local_copy_may_wait(copy) || feed_position(&copy->feed) >= compact->last) {
        on_feed_has_come(compact, false);
        return;
    }
    compact->feed_wait.ready = on_feed_has_come;
    compact->feed_wait.arg = compact;
    local_copy_wait_start(copy, &compact->feed_wait, LOCAL_COPY_HAS_REVISION, compact->last,
                          until_ms < compact->deadline_ms ? until_ms : compact->deadline_ms);
}

static bool check_bucket(struct compact *compact, json_t *config)
{
    struct error error;

    if (!bucket_config_has_origin(config))
        return true;
    error_set(&error, ERROR_UNSUPPORTED,
              "a bucket with mirror or sources cannot be compacted; compact the buckets that it is fed from");
    fail(compact, &error);
    return false;
}

static void on_info(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct compact *compact = arg;
    json_t *config = json_object_get(answer, "config");
    const char *storage = json_string_value(json_object_get(config, "storage"));

    (void)err_code;
    if (answer == NULL) {
        fail(compact, error);
        finish(compact);
        return;
    }
    if (!check_bucket(compact, config)) {
        finish(compact);
        return;
    }
    int64_t marker_ttl_s = bucket_config_marker_ttl(config);
    if (compact->needs_marker_ttl && marker_ttl_s == 0) {
        finish(compact);
        return;
    }
    int64_t age_s = compact->older_than_s;
    if (age_s < 0)
        age_s = marker_ttl_s > 0 ? marker_ttl_s : COMPACT_DEFAULT_AGE_S;
    compact->cutoff_us = store_now_us() - age_s * 1000000;
    compact->last = (uint64_t)json_integer_value(json_object_get(json_object_get(answer, "state"), "last_seq"));
    compact->is_in_files =
        compact->store->conf->nats.mode == CONF_NATS_EMBEDDED && !(storage != NULL && strcmp(storage, "memory") == 0);
    /* A stream with other subjects has messages that are not read: one purge of all subjects would remove them. */
    if (json_array_size(json_object_get(config, "subjects")) != 1)
        compact->is_past_barrier = true;
    await_feed(compact);
}

static void on_handle(void *arg, struct bucket *bucket, const struct error *error)
{
    struct compact *compact = arg;
    char *subject = NULL;

    compact->handle = bucket;
    if (error == NULL) {
        subject = arena_alloc(compact->arena, strlen(bucket->prefix) + 2);
        if (subject == NULL)
            fail_out_of_memory(compact);
        else
            strcpy(stpcpy(subject, bucket->prefix), ">");
    } else {
        fail(compact, error);
    }
    if (has_failed(compact)) {
        finish(compact);
        return;
    }
    compact->subject = subject;
    jetstream_call(&compact->store->jetstream, &compact->info, "STREAM.INFO", bucket->stream, NULL,
                   compact->deadline_ms, on_info, compact);
}

/* End the call. A look at the files may take longer; it goes on without the call until it sees is_unwanted. */
static void on_deadline(struct timer *timer)
{
    struct compact *compact = (struct compact *)((char *)timer - offsetof(struct compact, deadline));
    struct error error;

    error_set(&error, ERROR_DEADLINE_EXCEEDED, "no time is left");
    fail(compact, &error);
    if (compact->look != NULL || compact->is_waiting)
        finish(compact);
}

/* --- Turns --- */

static struct compact *find_waiting(const struct store *store)
{
    struct compact *compact;

    DL_FOREACH2(store->compact->compactions, compact, next)
    {
        if (compact->is_waiting)
            return compact;
    }
    return NULL;
}

static bool run_starting(struct job *job)
{
    struct store *store = ((struct compact_state *)((char *)job - offsetof(struct compact_state, starting)))->store;
    struct compact *compact;

    while (store->compact->under_way < COMPACTIONS_MAX && (compact = find_waiting(store)) != NULL) {
        compact->is_waiting = false;
        store->compact->under_way++;
        bucket_open(store, &compact->wait, compact->bucket, compact->arena->owner, compact->deadline_ms, on_handle,
                    compact);
    }
    return false;
}

static void leave_turn(struct compact *compact)
{
    struct store *store = compact->store;

    DL_DELETE2(store->compact->compactions, compact, previous, next);
    if (!compact->is_waiting)
        store->compact->under_way--;
    jobs_add(store->jobs, &store->compact->starting, run_starting); /* not from within the end of this one */
}

/* Those of one session; the daemon itself has one of each bucket at most. */
static unsigned count_of_owner(const struct store *store, const void *owner)
{
    const struct compact *compact;
    unsigned count = 0;

    DL_FOREACH2(store->compact->compactions, compact, next)
    {
        count += owner != NULL && compact->arena->owner == owner;
    }
    return count;
}

void compact_start(struct store *store, struct arena *arena, struct compact *compact)
{
    struct error error;

    compact->store = store;
    compact->arena = arena;
    if (count_of_owner(store, arena->owner) >= COMPACTIONS_MAX) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED,
                  "%u compactions of this session are under way already, which is the limit; try again",
                  COMPACTIONS_MAX);
        error.outcome = ERROR_OUTCOME_NONE;
        compact->done(compact->arg, 0, &error);
        return;
    }
    timer_start(store->timers, &compact->deadline, compact->deadline_ms, on_deadline);
    compact->is_waiting = true;
    DL_APPEND2(store->compact->compactions, compact, previous, next);
    arena_begin_task(arena, &compact->task, cancel_compact);
    jobs_add(store->jobs, &store->compact->starting, run_starting);
}

/* What was sent to the bucket is not sent again, and nothing else is. The call ends in its turn. */
static void give_up(struct compact *compact)
{
    if (compact->purges_under_way > 0)
        note_removal(compact);
    cancel_purges(compact);
    end_horizon(compact);
    forget_look(compact);
    compact->is_working = false;
    jobs_add(compact->store->jobs, &compact->going_on, run_going_on);
}

void compact_note_change(struct store *store, const char *bucket)
{
    struct compact *compact;
    struct error error;

    error_set(&error, ERROR_UNAVAILABLE, "the bucket was changed meanwhile; call again to go on");
    DL_FOREACH2(store->compact->compactions, compact, next)
    {
        if (compact->is_waiting || strcmp(compact->bucket, bucket) != 0)
            continue;
        fail(compact, &error);
        give_up(compact);
    }
}

static const struct observer_ops compact_observer_ops = {.marker = compact_schedule_note_delete,
                                                         .begin_change = compact_note_change};

int compact_init_all(struct store *store)
{
    struct compact_state *state = calloc(1, sizeof(*state));

    store->compact = state;
    if (state == NULL)
        return -1;
    state->store = store;
    state->purges.max = PURGES_MAX;
    state->observer.ops = &compact_observer_ops;
    observe_add(store, &state->observer);
    return 0;
}

void compact_free_all(struct store *store)
{
    jobs_remove(store->jobs, &store->compact->starting);
    free(store->compact);
    store->compact = NULL;
}
