#include "daemon/store/write/batch.h"

#include "daemon/base/clock.h"
#include "daemon/store/write/bucket_writes.h"
#include "daemon/store/write/group_commit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ADR-50, "Error handling" */
enum { ATOMIC_INCOMPLETE = 10176 };

/* Instead of an err_code: the server dropped a message of the batch, because a permission is missing. */
enum { BATCH_DENIED = 1 };

static struct batch *batch_of(struct request *request)
{
    return (struct batch *)((char *)request - offsetof(struct batch, request.base));
}

/* Return whether a copy of the batch may be stored, of this call or of an earlier one. */
static bool batch_is_in_doubt(const struct batch *batch)
{
    return request_is_in_doubt(&batch->request.base) || batch->is_beginning_in_doubt;
}

/* --- Its keys -------------------------------------------------------------------------------------- */

/* Hold all keys: no other write may overwrite what the batch may have stored. Without memory, keys are not held. */
static void batch_hold_keys(struct batch *batch)
{
    if (batch->holds == NULL)
        batch->holds = calloc(batch->count, sizeof(*batch->holds));
    for (size_t i = 0; batch->holds != NULL && i < batch->count; i++)
        ledger_hold(bucket_writes_ledger(batch->bucket), &batch->holds[i], batch->messages[i].operation->key);
}

static void batch_release_keys(struct batch *batch)
{
    for (size_t i = 0; batch->holds != NULL && i < batch->count; i++)
        ledger_release_key(&batch->holds[i]);
    free(batch->holds);
    batch->holds = NULL;
}

static void on_batch_turn(struct ledger_wait *wait)
{
    request_resume(&((struct batch *)((char *)wait - offsetof(struct batch, turn)))->request.base);
}

/* Return whether the batch waits for one of its keys. Afterwards all of them are checked again. */
static bool batch_must_wait(struct batch *batch)
{
    batch->turn.resume = on_batch_turn;
    for (size_t i = 0; i < batch->count; i++) {
        if (ledger_must_wait(bucket_writes_ledger(batch->bucket), &batch->turn, batch->messages[i].operation->key))
            return true;
    }
    return false;
}

/* End everything that is in progress for the batch. */
static void batch_stop(struct batch *batch)
{
    bucket_request_cancel(&batch->request);
    inquiry_cancel(batch->inquiry);
    batch->inquiry = NULL;
    ledger_end_wait(&batch->turn);
    batch_release_keys(batch);
}

static void batch_finish(struct batch *batch, uint64_t first_sequence, unsigned err_code, const struct error *error)
{
    batch_stop(batch);
    if (error == NULL)
        bucket_note_sequence(batch->store, batch->bucket, first_sequence + (batch->count - 1));
    batch->done(batch->arg, first_sequence, err_code, error);
}

static void batch_finish_stored(struct batch *batch, uint64_t last_sequence)
{
    /* The messages are consecutive (ADR-50). */
    batch_finish(batch, last_sequence - (batch->count - 1), 0, NULL);
}

static void batch_finish_in_doubt(struct batch *batch)
{
    batch->error.outcome = ERROR_OUTCOME_UNKNOWN;
    batch_finish(batch, 0, 0, &batch->error);
}

/* --- Sending --------------------------------------------------------------------------------------- */

/* The header values of a message of a batch, beside those of the operation. */
struct batch_texts {
    char batch_id[64];
    char sequence[16];
    char expected[24];
    char expected_last[24];
};

/* Return the id of the first or of the last message. */
static const char *batch_id_of(const struct batch *batch, size_t index)
{
    return index == 0 ? batch->id : batch->last_id;
}

static size_t batch_add_headers(const struct batch *batch, size_t index, struct batch_texts *texts)
{
    const struct batch_message *message = &batch->messages[index];
    struct message_header *headers = message->message.headers;
    size_t count = message->message.header_count;

    if (index == 0 || index + 1 == batch->count)
        operation_add_header(headers, &count, KV_HEADER_MSG_ID, batch_id_of(batch, index));
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

/* Return how long the first and the last message stay, which have the ids; 0: as long as nobody removes them. */
static uint64_t batch_lives_ms(const struct batch *batch)
{
    int64_t first_s = batch->messages[0].operation->ttl_s, last_s = batch->messages[batch->count - 1].operation->ttl_s;

    return 1000u * (uint64_t)(first_s > 0 && (last_s == 0 || first_s < last_s) ? first_s : last_s);
}

/* The id of the last message proves the whole batch. outcome: as it will be when the copy is sent. */
static void batch_note_sent(const struct batch *batch, const struct outcome *outcome)
{
    struct journal_copy copy = inquiry_describe_copy(outcome, batch_lives_ms(batch));

    copy.is_of_batch = true;
    strcpy(copy.message_id, batch_id_of(batch, batch->count - 1));
    for (size_t i = 0; batch->is_remembered && i < batch->count; i++) {
        if (batch->messages[i].journal == NULL)
            continue;
        copy.messages_after = (uint32_t)(batch->count - 1 - i);
        journal_note_sent(batch->store->journal, batch->messages[i].journal, &copy);
    }
}

static enum connection_publish_result batch_send_copy(struct batch *batch, unsigned attempt)
{
    struct request *request = &batch->request.base;
    struct stream_state stream = bucket_stream(batch->store, batch->bucket);
    struct connection *connection = batch->store->connection;
    struct batch_texts texts;
    struct outcome outcome = batch->outcome;

    outcome_sent(&outcome, clock_boot_ms(), connection_number(connection), &stream);
    batch_note_sent(batch, &outcome); /* before any byte of it can leave */
    /* The server must not take this copy for the rest of an unfinished one. */
    snprintf(texts.batch_id, sizeof(texts.batch_id), "%s-%u", batch->id, attempt);
    for (size_t i = 0; i < batch->count; i++) {
        const struct batch_message *message = &batch->messages[i];
        const struct operation *operation = message->operation;
        size_t headers = batch_add_headers(batch, i, &texts);
        enum connection_publish_result result;

        ledger_note_ttl(bucket_writes_ledger(batch->bucket), operation->ttl_s);
        if (i + 1 == batch->count || batch->asks_each)
            result = request_publish(request, message->message.subject, message->message.headers, headers,
                                     operation->value, operation->value_bytes);
        else
            result = connection_publish(connection, message->message.subject, NULL, message->message.headers, headers,
                                        operation->value, operation->value_bytes);
        if (result != CONNECTION_PUBLISHED)
            return result; /* without its last message, nothing is stored */
    }
    batch->copy_attempt = attempt;
    batch->outcome = outcome;
    return CONNECTION_PUBLISHED;
}

static enum connection_publish_result batch_send(struct request *request, unsigned attempt)
{
    struct batch *batch = batch_of(request);
    enum outcome_step step = inquiry_step(batch->store, &batch->outcome);
    size_t index = step == OUTCOME_ASK_FIRST ? 0 : batch->count - 1;

    if (step == OUTCOME_SEND)
        return batch_send_copy(batch, attempt);
    return inquiry_ask(request, batch->messages[index].message.subject, batch_id_of(batch, index));
}

static void batch_start_inquiry(struct batch *batch, enum outcome_step step);

static enum request_readiness batch_prepare(struct request *request)
{
    struct batch *batch = batch_of(request);
    if (batch->is_beginning_in_doubt)
        request_set_doubt(request, true);
    batch->is_beginning_in_doubt = false;
    enum outcome_step step = inquiry_prepare(batch->store, &batch->outcome, request);

    switch (step) {
    case OUTCOME_WAIT:
        return REQUEST_NOT_READY;
    case OUTCOME_READ:
    case OUTCOME_READ_FIRST:
        request_suspend(request);
        batch_start_inquiry(batch, step);
        return REQUEST_SUSPENDED_OR_OVER;
    case OUTCOME_SEND:
        if (batch->holds != NULL)
            return REQUEST_READY; /* it waited for its place */
        if (batch_must_wait(batch)) {
            request_suspend(request);
            return REQUEST_SUSPENDED_OR_OVER;
        }
        if (!batch->is_remembered || batch->store->conf->nats.mode != CONF_NATS_EMBEDDED)
            return REQUEST_READY;
        break; /* hold the keys, as a single write with an id does: see write_needs_hold */
    case OUTCOME_ASK:
    case OUTCOME_ASK_FIRST:
        break;
    }
    batch_hold_keys(batch);
    return REQUEST_READY;
}

/* --- In doubt -------------------------------------------------------------------------------------- */

/* Act on a verdict. False: the batch continues with the next step. */
static bool batch_apply_verdict(struct batch *batch, enum outcome_verdict verdict, uint64_t our_sequence)
{
    switch (verdict) {
    case OUTCOME_UNDECIDED:
        return false;
    case OUTCOME_STORED:
        batch_finish_stored(batch, our_sequence);
        return true;
    case OUTCOME_NOT_STORED:
        request_set_doubt(&batch->request.base, false);
        batch_release_keys(batch);
        batch->turn.is_due = true; /* retry before the writes that wait for these keys */
        if (!batch->has_failed)
            return false;
        batch->error.outcome = ERROR_OUTCOME_NONE;
        batch_finish(batch, 0, batch->err_code, &batch->error);
        return true;
    case OUTCOME_PARTIAL:
        error_set(&batch->error, ERROR_UNAVAILABLE,
                  "the NATS server stopped while it stored these writes: some are stored, and the outcome of the "
                  "others is unknown");
        break;
    case OUTCOME_UNKNOWN:
        break;
    }
    batch_finish_in_doubt(batch);
    return true;
}

/* The error names no key and no revision: what was read is one key of many. */
static void batch_set_unknown_error(struct batch *batch, const struct outcome_reading *reading)
{
    operation_set_unknown_error(&batch->error, NULL, reading);
    batch->error.has_revision = false;
}

static void on_batch_inquiry_done(void *arg, const struct outcome_reading *reading, const struct error *error)
{
    struct batch *batch = arg;

    batch->inquiry = NULL;
    if (error != NULL) {
        operation_set_unread_error(&batch->error, error);
        batch_finish_in_doubt(batch);
        return;
    }
    enum outcome_verdict verdict = outcome_read(&batch->outcome, reading);
    if (verdict == OUTCOME_UNKNOWN && !batch->has_failed)
        batch_set_unknown_error(batch, reading);
    if (!batch_apply_verdict(batch, verdict, reading->our_sequence))
        request_resume(&batch->request.base);
}

static void batch_start_inquiry(struct batch *batch, enum outcome_step step)
{
    size_t index = step == OUTCOME_READ_FIRST ? 0 : batch->count - 1;
    struct inquiry_subject subject = {.bucket = batch->bucket,
                                      .key = batch->messages[index].operation->key,
                                      .id = batch_id_of(batch, index),
                                      .outcome = &batch->outcome,
                                      .deadline_ms = batch->deadline_ms,
                                      .owner = batch->owner};

    batch_hold_keys(batch);
    batch->inquiry = inquiry_start(batch->store, &subject, on_batch_inquiry_done, batch);
    if (batch->inquiry == NULL) /* out of memory: retry later, until the deadline */
        request_retry_later(&batch->request.base, REQUEST_CONGESTED);
}

/* --- Acks ------------------------------------------------------------------------------------------ */

/* Take the next step at once. An inquiry that runs continues. */
static enum request_verdict batch_retry_now(struct batch *batch)
{
    request_retry_now(&batch->request.base);
    return REQUEST_MORE;
}

/* The copy is not stored, and the cause is temporary: retry. */
static enum request_verdict batch_retry(struct batch *batch, enum request_trouble trouble, bool is_latest)
{
    if (!is_latest)
        return REQUEST_MORE; /* the question about it was sent already */
    request_set_trouble(&batch->request.base, trouble);
    outcome_refused(&batch->outcome);
    request_clear_latest_doubt(&batch->request.base);
    return REQUEST_RETRY;
}

/* The server refused a copy. */
static enum request_verdict batch_receive_refusal(struct batch *batch, const struct kv_ack *ack, bool is_latest)
{
    struct jetstream_error failure = {ack->code, ack->err_code, ack->description};

    /* An earlier copy is stored, or a part of it. */
    if (ack->err_code == JETSTREAM_ATOMIC_DUPLICATE)
        return batch_retry_now(batch);
    /* A message was lost, or the server refused one of the first, which it reports only if asked to. */
    if (ack->err_code == ATOMIC_INCOMPLETE) {
        batch->asks_each = true;
        return batch_retry(batch, REQUEST_NO_ANSWER, is_latest);
    }
    if (jetstream_is_closing(&failure) && is_latest) { /* a part may be stored: ask */
        request_set_trouble(&batch->request.base, REQUEST_NO_LEADER);
        return REQUEST_RETRY;
    }
    if (jetstream_temporary_trouble(&failure) != REQUEST_NO_TROUBLE)
        return batch_retry(batch, jetstream_temporary_trouble(&failure), is_latest);
    if (ack->err_code == JETSTREAM_ATOMIC_DISABLED)
        error_set(&batch->error, ERROR_UNSUPPORTED,
                  "the bucket does not allow atomic batches, which transactions need; bucket.update enables them");
    else
        jetstream_set_error(&batch->error, &failure);
    batch->err_code = ack->err_code;
    if (batch->outcome.copies == 1 && jetstream_means_nothing_stored(&failure)) {
        batch->error.outcome = ERROR_OUTCOME_NONE;
        batch_finish(batch, 0, ack->err_code, &batch->error);
        return REQUEST_DONE;
    }
    batch->has_failed = true;
    return batch_retry_now(batch);
}

/* The answer to the question about an id. */
static enum request_verdict batch_receive_id_answer(struct batch *batch, const struct kv_ack *ack)
{
    enum outcome_verdict verdict;

    if (!inquiry_receive_answer(batch->store, batch->bucket, &batch->outcome, &batch->request.base, ack, &verdict))
        return REQUEST_RETRY;
    return batch_apply_verdict(batch, verdict, ack->sequence) ? REQUEST_DONE : batch_retry_now(batch);
}

static enum request_verdict batch_receive_ack(struct request *request, unsigned attempt, struct message *message)
{
    struct batch *batch = batch_of(request);
    struct kv_ack ack;

    /* A message before the last one was accepted. */
    if (message->payload_bytes == 0)
        return REQUEST_MORE;
    if (!kv_read_ack(message, &ack)) /* somebody else listens on the subject; wait for the stream's ack */
        return REQUEST_MORE;
    bool is_latest = attempt == (request->attempts & REQUEST_ATTEMPT_MASK);
    if (attempt == (batch->copy_attempt & REQUEST_ATTEMPT_MASK) || ack.batch_count > 0) {
        if (ack.err_code != 0)
            return batch_receive_refusal(batch, &ack, is_latest);
        batch_finish_stored(batch, ack.sequence);
        return REQUEST_DONE;
    }
    enum outcome_step step = inquiry_step(batch->store, &batch->outcome);
    /* The answer to an earlier question, or the outcome was determined meanwhile. */
    if (!is_latest || (step != OUTCOME_ASK && step != OUTCOME_ASK_FIRST))
        return REQUEST_MORE;
    return batch_receive_id_answer(batch, &ack);
}

static void batch_fail(struct request *request, const struct error *error)
{
    struct batch *batch = batch_of(request);
    struct error failure = *error;

    failure.outcome = batch_is_in_doubt(batch) ? ERROR_OUTCOME_UNKNOWN : ERROR_OUTCOME_NONE;
    bool is_denied = failure.code == ERROR_PERMISSION_DENIED && failure.outcome == ERROR_OUTCOME_NONE;
    batch_finish(batch, 0, is_denied ? BATCH_DENIED : 0, &failure);
}

static bool batch_publishes(const struct request *request, const char *subject)
{
    const struct batch *batch = (const struct batch *)((const char *)request - offsetof(struct batch, request.base));

    for (size_t i = 0; i < batch->count; i++) {
        if (strcmp(batch->messages[i].message.subject, subject) == 0)
            return true;
    }
    return false;
}

/* --- A bucket that changed ------------------------------------------------------------------------- */

static void on_batch_bucket_failed(struct bucket_request *request, const struct error *error)
{
    struct batch *batch = (struct batch *)((char *)request - offsetof(struct batch, request));

    batch->error = *error;
    if (batch_is_in_doubt(batch)) {
        operation_set_unread_error(&batch->error, error);
        batch_finish_in_doubt(batch);
    } else {
        batch_finish(batch, 0, 0, &batch->error);
    }
}

/* After another look-up the messages stay as they are. */
static const struct bucket_request_ops batch_bucket_ops = {.failed = on_batch_bucket_failed};

static const struct request_ops batch_ops = {.kind = "batch",
                                             .prepare = batch_prepare,
                                             .send = batch_send,
                                             .reply = batch_receive_ack,
                                             .fail = batch_fail,
                                             .no_responders = bucket_request_on_no_responders,
                                             .publishes = batch_publishes};

void batch_cancel(struct batch *batch)
{
    batch_stop(batch);
}

static void batch_init(struct store *store, struct batch *batch)
{
    batch->store = store;
    batch->asks_each = false;
    batch->has_failed = false;
    batch->is_beginning_in_doubt = false;
    batch->copy_attempt = 0;
    memset(&batch->outcome, 0, sizeof(batch->outcome));
    batch->outcome.is_batch = batch->count > 1;
    batch->request.base.limit = group_commit_batches_limit(bucket_writes_group(batch->bucket));
    batch->request.base.weight = BATCH_WEIGHT(batch->count);
    bucket_request_use(&batch->request, store, batch->bucket, batch->owner, batch->deadline_ms, &batch_bucket_ops);
}

void batch_start(struct store *store, struct batch *batch)
{
    batch_init(store, batch);
    operation_make_id(store, batch->id);
    snprintf(batch->last_id, sizeof(batch->last_id), "%s-l", batch->id);
    bucket_request_start(&batch->request, &batch_ops);
}

void batch_start_in_doubt(struct store *store, struct batch *batch, const struct journal_copy *copy, unsigned err_code)
{
    size_t length = strlen(copy->message_id);

    batch_init(store, batch);
    inquiry_inherit_copy(store, &batch->outcome, copy);
    batch->is_beginning_in_doubt = true;
    strcpy(batch->last_id, copy->message_id);
    if (batch->count > 1) /* without "-l" */
        length -= 2;
    memcpy(batch->id, copy->message_id, length);
    batch->id[length] = '\0';
    batch->has_failed = err_code != 0;
    batch->err_code = err_code;
    error_set(&batch->error, ERROR_UNAVAILABLE,
              "whether this transaction is stored is unknown: the daemon was restarted before it answered; read the "
              "keys");
    bucket_request_start(&batch->request, &batch_ops);
}
