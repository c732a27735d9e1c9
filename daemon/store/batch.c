#include "daemon/store/batch.h"

#include "daemon/store/group.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ADR-50, "Error handling" */
enum { ATOMIC_INCOMPLETE = 10176 };

/* In place of an err_code: the server has dropped one of its messages, for want of a permission. */
enum { BATCH_DENIED = 1 };

static struct batch *batch_of(struct request *request)
{
    return (struct batch *)((char *)request - offsetof(struct batch, request));
}

static void finish(struct batch *batch, uint64_t first_sequence, unsigned err_code, const struct error *error)
{
    request_end(&batch->request);
    bucket_wait_cancel(&batch->wait);
    batch->done(batch->arg, first_sequence, err_code, error);
}

/* --- Sending --------------------------------------------------------------------------------------- */

/* What each message of a batch needs in text beside what the operation made. */
struct batch_texts {
    char batch_id[64];
    char sequence[16];
    char expected[24];
    char expected_last[24];
};

static size_t add_batch_headers(const struct batch *batch, size_t index, struct batch_texts *texts)
{
    const struct batch_message *message = &batch->messages[index];
    struct message_header *headers = message->message.headers;
    size_t count = message->message.header_count;

    if (index == 0)
        operation_add_header(headers, &count, KV_HEADER_MSG_ID, batch->id);
    if (batch->settle)
        return count;
    if (index == 0 && batch->has_expected_last) {
        snprintf(texts->expected_last, sizeof(texts->expected_last), "%" PRIu64, batch->expected_last);
        operation_add_header(headers, &count, KV_HEADER_EXPECTED_STREAM, texts->expected_last);
    }
    if (message->has_condition) {
        snprintf(texts->expected, sizeof(texts->expected), "%" PRIu64, message->expected);
        operation_add_header(headers, &count, KV_HEADER_EXPECTED_SUBJECT, texts->expected);
        if (message->condition_subject != NULL)
            operation_add_header(headers, &count, KV_HEADER_EXPECTED_OTHER, message->condition_subject);
    }
    snprintf(texts->sequence, sizeof(texts->sequence), "%zu", index + 1);
    operation_add_header(headers, &count, KV_HEADER_BATCH_ID, texts->batch_id);
    operation_add_header(headers, &count, KV_HEADER_BATCH_SEQUENCE, texts->sequence);
    if (index + 1 == batch->count)
        operation_add_header(headers, &count, KV_HEADER_BATCH_COMMIT, "1");
    return count;
}

static enum link_publish_result send_batch(struct request *request, unsigned attempt)
{
    struct batch *batch = batch_of(request);
    struct batch_texts texts;
    size_t count = batch->settle ? 1 : batch->count;

    /* A batch that was begun and not finished must not be taken for this one. */
    snprintf(texts.batch_id, sizeof(texts.batch_id), "%s-%u", batch->id, attempt);
    for (size_t i = 0; i < count; i++) {
        const struct batch_message *message = &batch->messages[i];
        const struct operation *operation = message->operation;
        size_t headers = add_batch_headers(batch, i, &texts);
        enum link_publish_result result;

        if (i + 1 == count || batch->asks_each)
            result = request_publish(request, message->message.subject, message->message.headers, headers,
                                     operation->value, operation->value_bytes);
        else
            result = link_publish(batch->store->link, message->message.subject, NULL, message->message.headers, headers,
                                  operation->value, operation->value_bytes);
        if (result != LINK_PUBLISHED)
            return result;
    }
    return LINK_PUBLISHED;
}

/* --- Acks ------------------------------------------------------------------------------------------ */

static enum request_verdict take_refusal(struct batch *batch, const struct kv_ack *ack)
{
    struct request *request = &batch->request;
    struct jetstream_error failure = {ack->code, ack->err_code, ack->description};
    struct error error;

    if (ack->err_code == JETSTREAM_ATOMIC_DUPLICATE) {
        if (!batch->settle) {
            batch->settle = true;
            batch->settle_after = request->attempts;
            request_hurry(request);
        }
        return REQUEST_MORE;
    }
    /* A message was lost; or the server has refused one of the first, which it tells only where it was asked to. */
    if (ack->err_code == ATOMIC_INCOMPLETE) {
        batch->asks_each = true;
        request_retry_reason(request, REQUEST_NO_ANSWER);
        return REQUEST_RETRY;
    }
    if (jetstream_healable(&failure) != REQUEST_NO_TROUBLE) {
        request_retry_reason(request, jetstream_healable(&failure));
        if (request->attempts == 1)
            request_clear_doubt(request);
        return REQUEST_RETRY;
    }
    if (ack->err_code == JETSTREAM_ATOMIC_DISABLED)
        error_set(&error, ERROR_UNSUPPORTED,
                  "the bucket takes no atomic batches, which transactions need; bucket.update switches them on");
    else
        jetstream_set_error(&error, &failure);
    error.outcome = ERROR_OUTCOME_NONE;
    finish(batch, 0, ack->err_code, &error);
    return REQUEST_DONE;
}

static enum request_verdict take_ack(struct request *request, unsigned attempt, struct message *message)
{
    struct batch *batch = batch_of(request);
    struct kv_ack ack;

    /* To a message before the last one: it was taken. */
    if (message->payload_bytes == 0)
        return REQUEST_MORE;
    if (!kv_read_ack(message, &ack)) /* somebody else listens on the subject; the stream's ack is yet to come */
        return REQUEST_MORE;
    /* Asked more than once, any answer to the question will do: one may be late. */
    if (ack.err_code == 0 && batch->settle && attempt > batch->settle_after) {
        finish(batch, ack.sequence, 0, NULL);
        return REQUEST_DONE;
    }
    if (ack.err_code == 0) {
        /* The batch's messages are consecutive, and the ack tells the last one (ADR-50). */
        finish(batch, ack.sequence - (batch->count - 1), 0, NULL);
        return REQUEST_DONE;
    }
    /* Of an earlier attempt only that a copy has landed is news. */
    if (attempt != (request->attempts & REQUEST_ATTEMPT_MASK) && ack.err_code != JETSTREAM_ATOMIC_DUPLICATE)
        return REQUEST_MORE;
    return take_refusal(batch, &ack);
}

static void fail_batch(struct request *request, const struct error *error)
{
    struct batch *batch = batch_of(request);
    struct error failure = *error;

    failure.outcome = request_is_in_doubt(request) ? ERROR_OUTCOME_UNKNOWN : ERROR_OUTCOME_NONE;
    bool is_denied = failure.code == ERROR_PERMISSION_DENIED && failure.outcome == ERROR_OUTCOME_NONE;
    finish(batch, 0, is_denied ? BATCH_DENIED : 0, &failure);
}

static bool publishes(const struct request *request, const char *subject)
{
    const struct batch *batch = (const struct batch *)((const char *)request - offsetof(struct batch, request));
    size_t count = batch->settle ? 1 : batch->count;

    for (size_t i = 0; i < count; i++) {
        if (strcmp(batch->messages[i].message.subject, subject) == 0)
            return true;
    }
    return false;
}

/* --- A bucket that changed ------------------------------------------------------------------------- */

static void on_handle_again(void *arg, struct bucket *bucket, const struct error *error)
{
    struct batch *batch = arg;

    if (error == NULL) {
        /* It is there; what the old handle says of it was good enough to make the messages. */
        bucket_release(bucket);
        request_resume(&batch->request);
        return;
    }
    struct error failure = *error;
    if (request_is_in_doubt(&batch->request))
        failure.outcome = ERROR_OUTCOME_UNKNOWN;
    finish(batch, 0, 0, &failure);
}

static bool found_nobody(struct request *request)
{
    struct batch *batch = batch_of(request);

    bucket_forget(batch->store, batch->bucket->name);
    bucket_open(batch->store, &batch->wait, batch->bucket->name, request->deadline_ms, on_handle_again, batch);
    return false;
}

static const struct request_ops batch_ops = {
    .send = send_batch, .reply = take_ack, .fail = fail_batch, .no_responders = found_nobody, .publishes = publishes};

void batch_cancel(struct batch *batch)
{
    request_end(&batch->request);
    bucket_wait_cancel(&batch->wait);
}

void batch_start(struct store *store, struct batch *batch)
{
    batch->store = store;
    batch->settle = false;
    batch->asks_each = false;
    batch->request.limit = group_batches_limit(batch->bucket->group);
    batch->request.weight = BATCH_WEIGHT(batch->count);
    batch->request.owner = batch->owner;
    store_make_write_id(store, batch->id);
    request_start(&store->requests, &batch->request, &batch_ops,
                  bucket_bound_deadline(store, batch->bucket, batch->deadline_ms));
}
