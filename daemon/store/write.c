#include "daemon/store/write.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Id, expectation, operation, rollup, TTL and the batch's three. */
#define OWN_HEADERS_MAX 8u

/* A create over a delete marker looks and tries again when others write to the key at the same moment. */
#define MARKER_TRIES_MAX 8u

static void finish(struct write *write, uint64_t revision, const struct error *error)
{
    struct bucket *handle = write->handle;

    request_end(&write->request);
    bucket_wait_cancel(&write->wait);
    write->done(write->arg, revision, error);
    if (handle != NULL)
        bucket_release(handle);
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
    return write->condition != WRITE_ALWAYS;
}

/* Whether this attempt must go as an atomic batch of one: there the id is checked before the condition. */
static bool needs_batch(const struct write *write, unsigned attempt)
{
    return attempt > 1 && is_conditional(write) && !write->settle && write->handle->allows_atomic;
}

static size_t add_header(struct message_header *headers, size_t count, const char *name, const char *value)
{
    headers[count].name = name;
    headers[count].value = value;
    return count + 1;
}

static size_t fill_headers(struct write *write, unsigned attempt)
{
    struct message_header *headers = write->wire_headers;
    size_t count = 0;

    for (; count < write->header_count; count++)
        headers[count] = write->headers[count];
    count = add_header(headers, count, KV_HEADER_MSG_ID, write->id);
    if (write->operation == KV_DELETE)
        count = add_header(headers, count, KV_HEADER_OPERATION, "DEL");
    if (write->operation == KV_PURGE)
        count = add_header(headers, count, KV_HEADER_OPERATION, "PURGE");
    /* With a TTL on a bucket with history: when it expires, no older value may come back into view. */
    if (write->operation == KV_PURGE || (write->ttl_s > 0 && write->handle->history > 1))
        count = add_header(headers, count, KV_HEADER_ROLLUP, "sub");
    if (write->ttl_s > 0)
        count = add_header(headers, count, KV_HEADER_TTL, write->ttl_text);
    if (is_conditional(write) && !write->settle) {
        snprintf(write->expected_text, sizeof(write->expected_text), "%" PRIu64, write->expected);
        count = add_header(headers, count, KV_HEADER_EXPECTED_SUBJECT, write->expected_text);
    }
    if (needs_batch(write, attempt)) {
        snprintf(write->batch_id, sizeof(write->batch_id), "%s-%u", write->id, attempt);
        count = add_header(headers, count, KV_HEADER_BATCH_ID, write->batch_id);
        count = add_header(headers, count, KV_HEADER_BATCH_SEQUENCE, "1");
        count = add_header(headers, count, KV_HEADER_BATCH_COMMIT, "1");
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
    size_t count = fill_headers(write, attempt);

    return request_publish(request, write->subject, write->wire_headers, count, write->value, write->value_bytes);
}

/* --- Looking at the key's last message ------------------------------------------------------------- */

static void look_at_key(struct write *write, read_entry_fn *seen)
{
    memset(&write->look, 0, sizeof(write->look));
    write->look.bucket = write->bucket;
    write->look.key = write->key;
    write->look.consistency = READ_LEADER;
    write->look.with_markers = true;
    write->look.deadline_ms = write->deadline_ms;
    write->look.done = seen;
    write->look.arg = write;
    read_get(write->store, write->arena, &write->look);
}

static void start_request(struct write *write);

/* Answers that the condition does not hold; entry, where known, is what the key holds instead. */
static void answer_condition_failed(struct write *write, uint64_t current)
{
    struct error *error = &write->error;

    if (write->condition == WRITE_IF_ABSENT)
        error_set(error, ERROR_ALREADY_EXISTS, "the key is there, at revision %" PRIu64, current);
    else
        error_set(error, ERROR_CONFLICT, "the key is at revision %" PRIu64 ", not %" PRIu64 "; get it and try again",
                  current, write->revision);
    error->has_revision = true;
    error->revision = current;
    finish(write, 0, error);
}

/* A condition failed. A create may go over a marker; every other one answers the key's revision. */
static void on_key_seen(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct write *write = arg;

    if (error != NULL) {
        write->error = *error;
        write->error.outcome = ERROR_OUTCOME_NONE;
        finish(write, 0, &write->error);
        return;
    }
    bool is_there = entry != NULL && entry->operation == KV_PUT;
    uint64_t current = entry != NULL ? entry->revision : 0;

    bool may_try_again = write->condition == WRITE_IF_ABSENT ? !is_there : current == write->revision;
    if (may_try_again && write->marker_tries++ < MARKER_TRIES_MAX) {
        write->expected = current;
        start_request(write);
        return;
    }
    answer_condition_failed(write, current);
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
    if (write->condition == WRITE_IF_AT_REVISION && failure->err_code == JETSTREAM_WRONG_LAST_SEQUENCE &&
        current != write->revision)
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
        write->settle = true;
        request_park(request);
        request_resume(request);
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
    struct error error;

    if (!kv_read_ack(message, &ack)) {
        error_set(&error, ERROR_INTERNAL, "the NATS server's ack could not be read");
        error.outcome = ERROR_OUTCOME_UNKNOWN;
        finish(write, 0, &error);
        return REQUEST_DONE;
    }
    if (ack.err_code == 0) {
        finish(write, ack.sequence, NULL);
        return REQUEST_DONE;
    }
    /* Of an earlier attempt only success is news: the latest one will tell how it ended. */
    if (attempt != request->attempts)
        return REQUEST_MORE;
    struct jetstream_error failure = {ack.code, ack.err_code, ack.description};
    return take_failure(write, &failure);
}

static void fail_write(struct request *request, const struct error *error)
{
    struct write *write = write_of(request);

    write->error = *error;
    write->error.outcome = error->code == ERROR_DEADLINE_EXCEEDED ? ERROR_OUTCOME_UNKNOWN : ERROR_OUTCOME_ABSENT;
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

/* The server knows an id only for the bucket's duplicate window: a copy sent later could be written twice. */
static uint64_t bound_deadline(const struct write *write)
{
    uint64_t window_ms = write->handle->duplicate_window_ms;
    uint64_t last_ms = uv_now(write->store->loop) + window_ms - window_ms / 8;

    return window_ms > 0 && last_ms < write->deadline_ms ? last_ms : write->deadline_ms;
}

static void start_request(struct write *write)
{
    /* An id stands for one write with one condition. */
    snprintf(write->id, sizeof(write->id), "%s-%" PRIx64, link_unique_id(write->store->link), ++write->store->writes);
    request_start(&write->store->requests, &write->request, &write_ops, bound_deadline(write));
}

/* What the bucket cannot take is said before anything is sent. False: *error says what. */
static bool check_bucket(const struct write *write, const struct bucket *bucket, struct error *error)
{
    size_t max_payload = link_get_status(write->store->link)->max_payload_bytes;

    if (bucket->max_value_size >= 0 && write->value_bytes > (size_t)bucket->max_value_size) {
        error_set(error, ERROR_TOO_LARGE,
                  "the value has %zu bytes; the bucket takes up to %" PRId64 " (max_value_size)", write->value_bytes,
                  bucket->max_value_size);
        return false;
    }
    if (max_payload > 0 && write->value_bytes > max_payload) {
        error_set(error, ERROR_TOO_LARGE, "the value has %zu bytes; the NATS server takes up to %zu (max_payload)",
                  write->value_bytes, max_payload);
        return false;
    }
    if (write->ttl_s > 0 && !bucket->allows_ttl) {
        if (write->store->jetstream.is_known && write->store->jetstream.level < JETSTREAM_LEVEL_TTL)
            error_set(error, ERROR_UNSUPPORTED, "a TTL per key needs nats-server 2.11 or later");
        else
            error_set(error, ERROR_UNSUPPORTED, "the bucket takes no TTL per key; bucket.update switches it on");
        return false;
    }
    return true;
}

static bool prepare(struct write *write)
{
    size_t prefix_length = strlen(write->handle->put_prefix);
    char *subject = arena_alloc(write->arena, prefix_length + strlen(write->key) + 1);

    write->wire_headers =
        arena_alloc(write->arena, (write->header_count + OWN_HEADERS_MAX) * sizeof(*write->wire_headers));
    if (subject == NULL || write->wire_headers == NULL)
        return false;
    strcpy(stpcpy(subject, write->handle->put_prefix), write->key);
    write->subject = subject;
    write->expected = write->condition == WRITE_IF_AT_REVISION ? write->revision : 0;
    snprintf(write->ttl_text, sizeof(write->ttl_text), "%" PRId64 "s", write->ttl_s);
    return true;
}

static void on_handle(void *arg, struct bucket *bucket, const struct error *error)
{
    struct write *write = arg;
    struct error failure;

    write->handle = bucket;
    if (error != NULL) {
        finish(write, 0, error);
        return;
    }
    if (!check_bucket(write, bucket, &failure)) {
        finish(write, 0, &failure);
        return;
    }
    if (!prepare(write)) {
        finish_out_of_memory(write);
        return;
    }
    start_request(write);
}

void write_start(struct store *store, struct arena *arena, struct write *write)
{
    write->store = store;
    write->arena = arena;
    bucket_open(store, &write->wait, write->bucket, write->deadline_ms, on_handle, write);
}
