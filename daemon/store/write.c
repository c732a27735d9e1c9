#include "daemon/store/write.h"

#include "daemon/backoff.h"
#include "daemon/store/batch.h"
#include "daemon/store/group.h"
#include "daemon/store/replica.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * A condition that holds, but that the server refused, is tried again: others wrote to the key at the same moment, or a
 * replica answered that is behind. So many times at once, then with a backoff until the deadline.
 */
#define CONDITION_TRIES_AT_ONCE 4u

static void finish(struct write *write, uint64_t revision, const struct error *error)
{
    struct bucket *handle = write->handle;

    request_end(&write->request);
    bucket_wait_cancel(&write->wait);
    timer_stop(write->store->timers, &write->try_timer);
    arena_end_task(&write->task);
    if (write->group != NULL)
        group_write_ended(write, error);
    if (error == NULL) {
        replica_note_revision(write->store, write->bucket, write->operation.key, revision, true);
    } else if (error->has_revision) {
        replica_note_revision(write->store, write->bucket, write->operation.key, error->revision, false);
    }
    write->done(write->arg, revision, error);
    if (handle != NULL)
        bucket_release(handle);
}

void write_finish(struct write *write, uint64_t revision, const struct error *error)
{
    finish(write, revision, error);
}

static void finish_out_of_memory(struct write *write)
{
    struct error error;

    error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    error.outcome = ERROR_OUTCOME_NONE;
    finish(write, 0, &error);
}

/* --- Sending --------------------------------------------------------------------------------------- */

static bool is_conditional(const struct write *write)
{
    return write->operation.condition != OPERATION_ALWAYS;
}

/* Whether this attempt must go as an atomic batch of one: there the id is checked before the condition. */
static bool needs_batch(const struct write *write, unsigned attempt)
{
    return attempt > 1 && is_conditional(write) && !write->settle && write->handle->allows_atomic;
}

/* What the headers of one attempt need in text; the library copies it. */
struct write_texts {
    char expected[24];
    char batch_id[64];
};

static size_t add_headers(struct write *write, unsigned attempt, struct write_texts *texts)
{
    struct message_header *headers = write->message.headers;
    size_t count = write->message.header_count;

    operation_add_header(headers, &count, KV_HEADER_MSG_ID, write->id);
    if (is_conditional(write) && !write->settle) {
        snprintf(texts->expected, sizeof(texts->expected), "%" PRIu64, write->expected);
        operation_add_header(headers, &count, KV_HEADER_EXPECTED_SUBJECT, texts->expected);
    }
    if (needs_batch(write, attempt)) {
        snprintf(texts->batch_id, sizeof(texts->batch_id), "%s-%u", write->id, attempt);
        operation_add_header(headers, &count, KV_HEADER_BATCH_ID, texts->batch_id);
        operation_add_header(headers, &count, KV_HEADER_BATCH_SEQUENCE, "1");
        operation_add_header(headers, &count, KV_HEADER_BATCH_COMMIT, "1");
    }
    return count;
}

static struct write *write_of(struct request *request)
{
    return (struct write *)((char *)request - offsetof(struct write, request));
}

static enum link_publish_result send_write(struct request *request, unsigned attempt)
{
    struct write *write = write_of(request);
    struct write_texts texts;
    size_t count = add_headers(write, attempt, &texts);
    if (needs_batch(write, attempt + 1)) { /* so will the next attempts, if there are any */
        request->limit = group_batches_limit(write->handle->group);
        request->weight = BATCH_WEIGHT(1);
    }
    return request_publish(request, write->message.subject, write->message.headers, count, write->operation.value,
                           write->operation.value_bytes);
}

static void on_key_seen(void *arg, const struct kv_entry *entry, const struct error *error);

/* --- Looking at the key's last message ------------------------------------------------------------- */

static void look_at_key(struct write *write, read_entry_fn *seen)
{
    struct read_get *look = arena_zalloc(write->arena, sizeof(*look));

    if (look == NULL) {
        finish_out_of_memory(write);
        return;
    }
    look->bucket = write->bucket;
    look->key = write->operation.key;
    look->consistency = READ_LEADER;
    look->with_markers = true;
    look->deadline_ms = write->deadline_ms;
    look->done = seen;
    look->arg = write;
    read_get(write->store, write->arena, look);
}

static void answer_condition_failed(struct write *write, uint64_t current)
{
    operation_set_condition_error(&write->operation, current, &write->error);
    finish(write, 0, &write->error);
}

static void on_try_again(struct timer *timer)
{
    struct write *write = (struct write *)((char *)timer - offsetof(struct write, try_timer));

    if (uv_now(write->store->loop) < write->deadline_ms) {
        look_at_key(write, on_key_seen);
        return;
    }
    error_set(&write->error, ERROR_DEADLINE_EXCEEDED,
              "gave up after %u attempts: the key was written at each of them, or a replica is behind; nothing was "
              "written, try again",
              write->condition_tries);
    write->error.outcome = ERROR_OUTCOME_NONE;
    finish(write, 0, &write->error);
}

static void try_later(struct write *write)
{
    const struct conf *conf = write->store->conf;
    uint64_t at_ms = uv_now(write->store->loop) + backoff_ms(write->condition_tries - CONDITION_TRIES_AT_ONCE,
                                                             conf->calls.retry_min_ms, conf->calls.retry_max_ms);

    timer_start(write->store->timers, &write->try_timer, at_ms < write->deadline_ms ? at_ms : write->deadline_ms,
                on_try_again);
}

/*
 * A condition failed, as the server sees it: it compares sequences, and to it a delete marker is a
 * message like any other. Where the condition holds in our sense, the write names what is there.
 */
static void on_key_seen(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct write *write = arg;

    if (error != NULL) {
        write->error = *error;
        write->error.outcome = ERROR_OUTCOME_NONE;
        finish(write, 0, &write->error);
        return;
    }
    uint64_t current = entry != NULL ? entry->revision : 0;
    if (!operation_condition_holds(&write->operation, entry)) {
        answer_condition_failed(write, current);
        return;
    }
    write->expected = current;
    if (++write->condition_tries <= CONDITION_TRIES_AT_ONCE)
        write_send_alone(write);
    else
        try_later(write);
}

/*
 * The bucket has no atomic batches and an earlier copy may have landed: the key's last message
 * tells, unless somebody else's has taken its place.
 */
static void on_doubt_seen(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct write *write = arg;

    if (error != NULL) {
        write->error = *error;
        write->error.outcome = ERROR_OUTCOME_UNKNOWN;
        finish(write, 0, &write->error);
        return;
    }
    const char *id = entry != NULL ? message_header(entry->message, KV_HEADER_MSG_ID) : NULL;
    uint64_t current = entry != NULL ? entry->revision : 0;
    if (id != NULL && strcmp(id, write->id) == 0) {
        finish(write, current, NULL);
        return;
    }
    /* Nobody has written since: then our first copy has not either. */
    if (current == write->expected) {
        request_resume(&write->request);
        return;
    }
    error_set(&write->error, ERROR_CONFLICT,
              "the key is at revision %" PRIu64 " by now, and whether this write came before that is not known",
              current);
    write->error.has_revision = true;
    write->error.revision = current;
    write->error.outcome = ERROR_OUTCOME_UNKNOWN;
    finish(write, 0, &write->error);
}

/* --- Acks ------------------------------------------------------------------------------------------ */

static enum request_verdict take_condition_failed(struct write *write, const struct jetstream_error *failure)
{
    struct request *request = &write->request;

    /* Tried twice without batches: the failure may be our own first copy's doing. */
    if (request->attempts > 1 && !write->handle->allows_atomic) {
        request_park(request);
        look_at_key(write, on_doubt_seen);
        return REQUEST_DONE;
    }
    const char *number = strrchr(failure->description, ' ');
    uint64_t current = number != NULL ? strtoull(number, NULL, 10) : 0;
    request_end(request);
    if (write->operation.condition == OPERATION_IF_AT_REVISION && write->operation.revision > 0 &&
        failure->err_code == JETSTREAM_WRONG_LAST_SEQUENCE && current != write->operation.revision)
        answer_condition_failed(write, current);
    else
        look_at_key(write, on_key_seen);
    return REQUEST_DONE;
}

static enum request_verdict take_failure(struct write *write, const struct jetstream_error *failure)
{
    struct request *request = &write->request;
    struct error error;

    switch (failure->err_code) {
    case JETSTREAM_WRONG_LAST_SEQUENCE:
    case JETSTREAM_WRONG_LAST_SEQUENCE_CONSTANT:
        return take_condition_failed(write, failure);
    case JETSTREAM_ATOMIC_DUPLICATE:
        /* An earlier copy landed. Sent once more without the condition, it is a certain duplicate, whose ack tells. */
        if (!write->settle) {
            write->settle = true;
            request_hurry(request);
        }
        return REQUEST_MORE;
    case JETSTREAM_STREAM_NOT_FOUND:
        bucket_forget(write->store, write->bucket);
        break;
    default:
        break;
    }
    if (jetstream_healable(failure) != REQUEST_NO_TROUBLE) {
        request_retry_reason(request, jetstream_healable(failure));
        if (request->attempts == 1)
            request_clear_doubt(request);
        return REQUEST_RETRY;
    }
    jetstream_set_error(&error, failure);
    error.outcome = ERROR_OUTCOME_NONE;
    finish(write, 0, &error);
    return REQUEST_DONE;
}

static enum request_verdict take_ack(struct request *request, unsigned attempt, struct message *message)
{
    struct write *write = write_of(request);
    struct kv_ack ack;

    if (!kv_read_ack(message, &ack)) /* somebody else listens on the subject; the stream's ack is yet to come */
        return REQUEST_MORE;
    if (ack.err_code == 0) {
        finish(write, ack.sequence, NULL);
        return REQUEST_DONE;
    }
    /* Of an earlier attempt only that a copy has landed is news: the latest one will tell how it ended. */
    if (attempt != (request->attempts & REQUEST_ATTEMPT_MASK) && ack.err_code != JETSTREAM_ATOMIC_DUPLICATE)
        return REQUEST_MORE;
    struct jetstream_error failure = {ack.code, ack.err_code, ack.description};
    return take_failure(write, &failure);
}

static void fail_write(struct request *request, const struct error *error)
{
    struct write *write = write_of(request);

    write->error = *error;
    write->error.outcome = request_is_in_doubt(request) ? ERROR_OUTCOME_UNKNOWN : ERROR_OUTCOME_NONE;
    finish(write, 0, &write->error);
}

/* --- A bucket that changed ------------------------------------------------------------------------- */

static void on_handle_again(void *arg, struct bucket *bucket, const struct error *error)
{
    struct write *write = arg;

    if (error != NULL) {
        struct error failure = *error;
        if (request_is_in_doubt(&write->request))
            failure.outcome = ERROR_OUTCOME_UNKNOWN;
        finish(write, 0, &failure);
        return;
    }
    /* The place is in a limit of the old handle's group. */
    request_leave_place(&write->request);
    write->request.limit = group_writes_limit(bucket->group);
    bucket_release(write->handle);
    write->handle = bucket;
    request_resume(&write->request);
}

static bool found_nobody(struct request *request)
{
    struct write *write = write_of(request);

    bucket_forget(write->store, write->bucket);
    bucket_open(write->store, &write->wait, write->bucket, write->deadline_ms, on_handle_again, write);
    return false;
}

static const struct request_ops write_ops = {
    .send = send_write, .reply = take_ack, .fail = fail_write, .no_responders = found_nobody};

/* --- Starting -------------------------------------------------------------------------------------- */

void write_send_alone(struct write *write)
{
    struct store *store = write->store;

    /* An id stands for one write with one condition. */
    store_make_write_id(store, write->id);
    write->request.limit = group_writes_limit(write->handle->group);
    write->request.weight = 1;
    write->request.owner = write->arena->owner;
    request_start(&store->requests, &write->request, &write_ops,
                  bucket_bound_deadline(store, write->handle, write->deadline_ms));
}

static void on_handle(void *arg, struct bucket *bucket, const struct error *error)
{
    struct write *write = arg;
    struct error failure;

    write->handle = bucket;
    if (error != NULL) {
        failure = *error;
        failure.outcome = ERROR_OUTCOME_NONE;
        finish(write, 0, &failure);
        return;
    }
    if (!operation_check(&write->operation, write->store, bucket, &failure)) {
        finish(write, 0, &failure);
        return;
    }
    if (!operation_make_message(write->arena, &write->operation, bucket, &write->message)) {
        finish_out_of_memory(write);
        return;
    }
    write->expected = write->operation.condition == OPERATION_IF_AT_REVISION ? write->operation.revision : 0;
    group_submit(write);
}

/* Nothing of it has left the daemon. */
static bool is_unsent(const struct arena_task *task)
{
    const struct write *write = ARENA_TASK_OWNER(task, struct write, task);

    return !write->is_in_batch && !write->request.was_sent && write->condition_tries == 0;
}

static void cancel_write(struct arena_task *task)
{
    struct write *write = ARENA_TASK_OWNER(task, struct write, task);
    struct bucket *handle = write->handle;

    request_end(&write->request);
    bucket_wait_cancel(&write->wait);
    timer_stop(write->store->timers, &write->try_timer);
    if (write->group != NULL)
        group_cancel(write);
    if (handle != NULL)
        bucket_release(handle);
}

void write_start(struct store *store, struct arena *arena, struct write *write)
{
    write->store = store;
    write->arena = arena;
    arena_begin_task(arena, &write->task, cancel_write);
    write->task.is_unsent = is_unsent;
    bucket_open(store, &write->wait, write->bucket, write->deadline_ms, on_handle, write);
}
