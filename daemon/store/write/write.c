#include "daemon/store/write/write.h"

#include "daemon/base/backoff.h"
#include "daemon/base/clock.h"
#include "daemon/store/observe.h"
#include "daemon/store/write/bucket_writes.h"
#include "daemon/store/write/group_commit.h"
#include "daemon/store/write/repeat.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * If the server refused a condition that holds, the write is tried again: of concurrent writes one was first, or a
 * replica that lags has answered. It is tried this number of times at once, then with a backoff until the deadline.
 */
#define CONDITION_TRIES_AT_ONCE 4u

/* End everything that is in progress for the write. */
static void write_stop(struct write *write)
{
    bucket_request_stop(&write->request);
    timer_stop(write->store->timers, &write->try_timer);
    if (write->condition_read != NULL)
        condition_read_cancel(write->condition_read);
    inquiry_cancel(write->inquiry);
    write->inquiry = NULL;
    ledger_end_wait(&write->turn);
    ledger_release_key(&write->hold);
}

/* Reads from memory must see this revision. */
static void write_note_revision(const struct write *write, uint64_t revision, bool is_done)
{
    const struct bucket *bucket = write->request.bucket;

    observe_revision(write->store, write->bucket_name, write->operation.key, revision, is_done);
    if (bucket != NULL && bucket->is_mirror)
        observe_revision(write->store, bucket->origin, write->operation.key, revision, is_done);
}

void write_finish(struct write *write, uint64_t revision, const struct error *error)
{
    struct bucket *bucket = write->request.bucket;
    struct error complete;

    if (error != NULL) {
        complete = *error;
        journal_set_default_outcome(&write->journal, &complete);
        error = &complete;
    }
    write_stop(write);
    journal_end(write->store->journal, &write->journal, revision, error);
    arena_end_task(&write->task);
    room_end(write->store, write->admitted_bytes, error != NULL && error->outcome == ERROR_OUTCOME_UNKNOWN);
    if (write->group != NULL)
        group_commit_write_ended(write);
    if (error == NULL && revision > 0 && !write->is_of_former_stream) {
        bucket_note_sequence(write->store, bucket, revision);
        write_note_revision(write, revision, true);
        if (write->operation.kind != KV_PUT && !write->only_asks)
            observe_marker(write->store, bucket->name, bucket->marker_ttl_s);
    } else if (error != NULL && error->has_revision) {
        write_note_revision(write, error->revision, false);
    }
    write->done(write->arg, revision, error);
    if (bucket != NULL)
        bucket_release(bucket);
}

static void write_finish_out_of_memory(struct write *write)
{
    struct error error;

    error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    write_finish(write, 0, &error);
}

static void write_finish_in_doubt(struct write *write)
{
    write->error.outcome = ERROR_OUTCOME_UNKNOWN;
    write_finish(write, 0, &write->error);
}

/* --- Sending --------------------------------------------------------------------------------------- */

static struct write *write_of(struct request *request)
{
    return (struct write *)((char *)request - offsetof(struct write, request.base));
}

/* Return whether a copy of the write may be stored, of this call or of an earlier one. */
static bool write_is_in_doubt(const struct write *write)
{
    return request_is_in_doubt(&write->request.base) || write->is_beginning_in_doubt;
}

static enum connection_publish_result write_send_copy(struct write *write, unsigned attempt)
{
    struct message_header *headers = write->message.headers;
    size_t count = write->message.header_count;
    struct stream_state stream = bucket_stream(write->store, write->request.bucket);
    struct connection *connection = write->store->connection;
    char expected[24]; /* the connection's buffer has a copy */
    struct outcome outcome = write->outcome;

    outcome_sent(&outcome, clock_boot_ms(), connection_number(connection), &stream);
    repeat_note_sent(write, &outcome); /* before any byte of it can leave */
    ledger_note_ttl(bucket_writes_ledger(write->request.bucket), write->operation.ttl_s);
    operation_add_header(headers, &count, KV_HEADER_MSG_ID, write->id);
    if (write->has_condition) {
        snprintf(expected, sizeof(expected), "%" PRIu64, write->expected);
        operation_add_header(headers, &count, KV_HEADER_EXPECTED_SUBJECT, expected);
    }
    enum connection_publish_result result =
        request_publish(&write->request.base, write->message.subject, headers, count, write->operation.value,
                        write->operation.value_bytes);
    if (result != CONNECTION_PUBLISHED)
        return result;
    write->copy_attempt = attempt;
    write->outcome = outcome;
    return result;
}

static enum connection_publish_result write_send(struct request *request, unsigned attempt)
{
    struct write *write = write_of(request);

    if (inquiry_step(write->store, &write->outcome) == OUTCOME_ASK)
        return inquiry_ask(request, write->message.subject, write->id);
    return write_send_copy(write, attempt);
}

static void write_start_inquiry(struct write *write);

static void on_write_turn(struct ledger_wait *wait)
{
    request_resume(&((struct write *)((char *)wait - offsetof(struct write, turn)))->request.base);
}

/* Return whether no other write of the key is in doubt, so this one may be sent. Otherwise it waits for its turn. */
static bool write_takes_turn(struct write *write)
{
    struct ledger *ledger = bucket_writes_ledger(write->request.bucket);

    write->turn.resume = on_write_turn;
    if (!ledger_must_wait(ledger, &write->turn, write->operation.key))
        return true;
    request_suspend(&write->request.base);
    return false;
}

/*
 * The write is in doubt because of a copy that an earlier call has sent. If several writes of a key are, they take
 * turns: each may be sent again, on the condition that the key has not changed. Return whether it is this one's turn.
 */
static bool write_take_over_doubt(struct write *write)
{
    if (!write_takes_turn(write))
        return false;
    ledger_hold(bucket_writes_ledger(write->request.bucket), &write->hold, write->operation.key);
    request_set_doubt(&write->request.base, true);
    write->is_beginning_in_doubt = false;
    return true;
}

/* Return whether no other write of the key may be sent before this one has ended. */
static bool write_needs_hold(const struct write *write)
{
    /* If the daemon is killed, its server restarts too, and a later write of the key would replace the evidence. */
    bool may_lose_evidence = write->store->conf->nats.mode == CONF_NATS_EMBEDDED;

    return (write->journal.place != 0 || write->is_remembered) &&
           (may_lose_evidence || write->journal.first_sent_us > 0);
}

static enum request_readiness write_prepare(struct request *request)
{
    struct write *write = write_of(request);
    struct ledger *ledger = bucket_writes_ledger(write->request.bucket);

    if (write->is_beginning_in_doubt && !write_take_over_doubt(write))
        return REQUEST_SUSPENDED_OR_OVER;
    switch (inquiry_prepare(write->store, &write->outcome, request)) {
    case OUTCOME_WAIT:
        return REQUEST_NOT_READY;
    case OUTCOME_READ:
        request_suspend(request);
        write_start_inquiry(write);
        return REQUEST_SUSPENDED_OR_OVER;
    case OUTCOME_SEND:
        if (write->hold.key != NULL)
            return REQUEST_READY; /* it waited for its place */
        if (!write_takes_turn(write))
            return REQUEST_SUSPENDED_OR_OVER;
        if (!write_needs_hold(write))
            return REQUEST_READY;
        break;
    default:
        break;
    }
    ledger_hold(ledger, &write->hold, write->operation.key);
    return REQUEST_READY;
}

static void on_write_condition_read(void *arg, const struct kv_entry *entry, const struct error *error);

/* --- Conditions ------------------------------------------------------------------------------------ */

static void write_read_condition(struct write *write)
{
    if (write->condition_read == NULL)
        write->condition_read = arena_zalloc(write->arena, sizeof(*write->condition_read));
    if (write->condition_read == NULL) {
        write_finish_out_of_memory(write);
        return;
    }
    *write->condition_read = (struct condition_read){.bucket_name = write->bucket_name,
                                                     .key = write->operation.key,
                                                     .deadline_ms = write->deadline_ms,
                                                     .done = on_write_condition_read,
                                                     .arg = write};
    condition_read_start(write->store, write->arena, write->condition_read);
}

static void write_answer_condition_failed(struct write *write, uint64_t current)
{
    if (write->operation.condition == OPERATION_IF_PRESENT) {
        write_finish(write, 0, NULL);
        return;
    }
    operation_set_condition_error(&write->operation, current, &write->error);
    write_finish(write, 0, &write->error);
}

static void on_write_retry_condition(struct timer *timer)
{
    struct write *write = (struct write *)((char *)timer - offsetof(struct write, try_timer));

    if (uv_now(write->store->loop) < write->deadline_ms) {
        write_read_condition(write);
        return;
    }
    operation_set_refused_error(&write->error, write->condition_tries);
    write_finish(write, 0, &write->error);
}

static void write_retry_condition_later(struct write *write)
{
    const struct conf *conf = write->store->conf;
    uint64_t at_ms = uv_now(write->store->loop) + backoff_ms(write->condition_tries - CONDITION_TRIES_AT_ONCE,
                                                             conf->calls.retry_min_ms, conf->calls.retry_max_ms);

    timer_start(write->store->timers, &write->try_timer, at_ms < write->deadline_ms ? at_ms : write->deadline_ms,
                on_write_retry_condition);
}

/*
 * The key's last message, after the server refused the condition. The server compares sequences, and a delete marker
 * has one like any other message. If the condition holds in our sense, the write names the sequence that was read.
 */
static void on_write_condition_read(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct write *write = arg;

    if (error != NULL) {
        write->error = *error;
        write->error.outcome = ERROR_OUTCOME_NONE;
        write_finish(write, 0, &write->error);
        return;
    }
    uint64_t current = entry != NULL ? entry->revision : 0;
    if (write->ends_if_refused || !operation_condition_holds(&write->operation, entry)) {
        write_answer_condition_failed(write, current);
        return;
    }
    write->expected = current;
    if (++write->condition_tries <= CONDITION_TRIES_AT_ONCE)
        write_send_singly(write);
    else
        write_retry_condition_later(write);
}

/* --- In doubt -------------------------------------------------------------------------------------- */

/* No copy is stored, and the condition of the last one did not hold. */
static void write_conclude_refused(struct write *write)
{
    uint64_t current = write->refused_at;

    write_stop(write);
    if (write->operation.condition == OPERATION_IF_AT_REVISION && write->operation.revision > 0 && current > 0 &&
        current != write->operation.revision)
        write_answer_condition_failed(write, current);
    else
        write_read_condition(write);
}

/* No copy is stored. */
static void write_conclude_not_stored(struct write *write, const struct outcome_reading *reading)
{
    bool is_conditional = write->operation.condition != OPERATION_ALWAYS;

    if (write->only_asks) {
        write->expected = reading->sequence;
        write_finish(write, 0, NULL);
        return;
    }
    if (!repeat_may_send(write)) {
        operation_set_unknown_error(&write->error, write->operation.key, reading);
        write_finish_in_doubt(write);
        return;
    }
    /* The copy of an earlier call could still arrive, so the outcome stays unknown. */
    if (write->admitted_bytes == 0 &&
        !operation_admit(&write->operation, write->store, &write->admitted_bytes, &write->error)) {
        write_finish_in_doubt(write);
        return;
    }
    request_set_doubt(&write->request.base, false);
    ledger_release_key(&write->hold);
    if (write->copy_answer == WRITE_COPY_FAILED) {
        write->error.outcome = ERROR_OUTCOME_NONE;
        write_finish(write, 0, &write->error);
        return;
    }
    if (is_conditional && write->copy_answer == WRITE_COPY_REFUSED) {
        write_conclude_refused(write);
        return;
    }
    write->copy_answer = WRITE_COPY_UNANSWERED;
    write->has_condition = true;
    if (!is_conditional)
        write->expected = reading->sequence;
    write->turn.is_due = true; /* retry before the writes that wait for the key */
    request_resume(&write->request.base);
}

static void on_write_inquiry_done(void *arg, const struct outcome_reading *reading, const struct error *error)
{
    struct write *write = arg;

    write->inquiry = NULL;
    if (error != NULL) {
        operation_set_unread_error(&write->error, error);
        write_finish_in_doubt(write);
        return;
    }
    switch (outcome_read(&write->outcome, reading)) {
    case OUTCOME_STORED:
        write_finish(write, reading->our_sequence - write->inherited.messages_after, NULL);
        return;
    case OUTCOME_NOT_STORED:
        write_conclude_not_stored(write, reading);
        return;
    case OUTCOME_UNDECIDED: /* a single message has no half */
    case OUTCOME_PARTIAL:
    case OUTCOME_UNKNOWN:
        break;
    }
    if (write->copy_answer != WRITE_COPY_FAILED)
        operation_set_unknown_error(&write->error, write->operation.key, reading);
    write_finish_in_doubt(write);
}

static void write_start_inquiry(struct write *write)
{
    struct inquiry_subject subject = {.bucket = write->request.bucket,
                                      .key = write->operation.key,
                                      .id = write->id,
                                      .outcome = &write->outcome,
                                      .deadline_ms = write->deadline_ms,
                                      .owner = write->arena->owner};

    ledger_hold(bucket_writes_ledger(write->request.bucket), &write->hold, write->operation.key);
    write->inquiry = inquiry_start(write->store, &subject, on_write_inquiry_done, write);
    if (write->inquiry == NULL) /* out of memory: retry later, until the deadline */
        request_retry_later(&write->request.base, REQUEST_CONGESTED);
}

/* --- Acks ------------------------------------------------------------------------------------------ */

/* Take the next step at once. An inquiry that runs continues. */
static enum request_verdict write_retry_now(struct write *write)
{
    request_retry_now(&write->request.base);
    return REQUEST_MORE;
}

/* The copy's condition did not hold, so the copy is not stored. */
static enum request_verdict write_receive_condition_failed(struct write *write, const struct jetstream_error *failure)
{
    const char *number = strrchr(failure->description, ' ');
    bool is_reported = failure->err_code == JETSTREAM_WRONG_LAST_SEQUENCE && number != NULL;

    if (write->copy_answer != WRITE_COPY_FAILED)
        write->copy_answer = WRITE_COPY_REFUSED;
    write->refused_at = is_reported ? strtoull(number, NULL, 10) : 0;
    outcome_refused(&write->outcome);
    if (write->outcome.copies > 0)
        return write_retry_now(write);
    inquiry_cancel(write->inquiry);
    write->inquiry = NULL;
    ledger_release_key(&write->hold);
    write_conclude_refused(write);
    return REQUEST_DONE;
}

static enum request_verdict write_receive_failure(struct write *write, const struct jetstream_error *failure,
                                                  bool is_latest)
{
    struct request *request = &write->request.base;

    switch (failure->err_code) {
    case JETSTREAM_WRONG_LAST_SEQUENCE:
    case JETSTREAM_WRONG_LAST_SEQUENCE_CONSTANT:
        return write_receive_condition_failed(write, failure);
    case JETSTREAM_STREAM_NOT_FOUND:
        bucket_forget(write->store, write->bucket_name);
        break;
    default:
        break;
    }
    if (jetstream_temporary_trouble(failure) != REQUEST_NO_TROUBLE) {
        if (!is_latest)
            return REQUEST_MORE; /* the question about it was sent already */
        outcome_refused(&write->outcome);
        request_clear_latest_doubt(request);
        request_set_trouble(request, jetstream_temporary_trouble(failure));
        return REQUEST_RETRY;
    }
    jetstream_set_error(&write->error, failure);
    if (write->outcome.copies == 1 && jetstream_means_nothing_stored(failure)) {
        write->error.outcome = ERROR_OUTCOME_NONE;
        write_finish(write, 0, &write->error);
        return REQUEST_DONE;
    }
    write->copy_answer = WRITE_COPY_FAILED;
    return write_retry_now(write);
}

static enum request_verdict write_receive_ack(struct request *request, unsigned attempt, struct message *message)
{
    struct write *write = write_of(request);
    struct kv_ack ack;

    if (!kv_read_ack(message, &ack)) /* somebody else listens on the subject; wait for the stream's ack */
        return REQUEST_MORE;
    if (ack.err_code == 0) {
        write_finish(write, ack.sequence - write->inherited.messages_after, NULL);
        return REQUEST_DONE;
    }
    struct jetstream_error failure = {ack.code, ack.err_code, ack.description};
    bool is_latest = attempt == (request->attempts & REQUEST_ATTEMPT_MASK);
    if (attempt == (write->copy_attempt & REQUEST_ATTEMPT_MASK))
        return write_receive_failure(write, &failure, is_latest);
    /* The answer to an earlier question, or the outcome was determined meanwhile. */
    if (!is_latest || inquiry_step(write->store, &write->outcome) != OUTCOME_ASK)
        return REQUEST_MORE;
    enum outcome_verdict verdict;
    bool is_taken =
        inquiry_receive_answer(write->store, write->request.bucket, &write->outcome, request, &ack, &verdict);
    return is_taken ? write_retry_now(write) : REQUEST_RETRY; /* an error is no verdict: the next step decides */
}

static void write_fail(struct request *request, const struct error *error)
{
    struct write *write = write_of(request);

    write->error = *error;
    write->error.outcome = write_is_in_doubt(write) ? ERROR_OUTCOME_UNKNOWN : ERROR_OUTCOME_NONE;
    write_finish(write, 0, &write->error);
}

/* --- Starting -------------------------------------------------------------------------------------- */

static const struct request_ops write_ops = {.kind = "write",
                                             .prepare = write_prepare,
                                             .send = write_send,
                                             .reply = write_receive_ack,
                                             .fail = write_fail,
                                             .no_responders = bucket_request_on_no_responders};

void write_send_singly(struct write *write)
{
    /* The write has a new condition, so it gets a new id. */
    operation_make_id(write->store, write->id);
    memset(&write->outcome, 0, sizeof(write->outcome));
    write->has_condition = write->operation.condition != OPERATION_ALWAYS;
    write->copy_answer = WRITE_COPY_UNANSWERED;
    write->copy_attempt = 0;
    write->request.base.limit = group_commit_writes_limit(bucket_writes_group(write->request.bucket));
    bucket_request_start(&write->request, &write_ops);
}

void write_continue_in_doubt(struct write *write)
{
    write->has_condition = write->operation.condition != OPERATION_ALWAYS;
    write->is_beginning_in_doubt = true;
    write->request.base.limit = group_commit_writes_limit(bucket_writes_group(write->request.bucket));
    bucket_request_start(&write->request, &write_ops);
}

void write_submit(struct write *write)
{
    /* The condition is a sequence that only a read can tell. */
    if (write->operation.condition == OPERATION_IF_PRESENT)
        write_read_condition(write);
    else if (write->note_sent != NULL)
        write_send_singly(write);
    else
        group_commit_submit(write);
}

static struct write *write_of_bucket_request(struct bucket_request *request)
{
    return (struct write *)((char *)request - offsetof(struct write, request));
}

static void on_write_opened(struct bucket_request *request)
{
    struct write *write = write_of_bucket_request(request);
    struct error failure;

    if (!operation_check(&write->operation, write->store, request->bucket, &failure)) {
        write_finish(write, 0, &failure);
        return;
    }
    if (!operation_make_message(write->arena, &write->operation, request->bucket, &write->message)) {
        write_finish_out_of_memory(write);
        return;
    }
    write->expected = write->operation.revision;
    if (write->journal.id != NULL) {
        journal_describe(write->store->journal, &write->journal, write->bucket_name, strlen(write->bucket_name));
        repeat_describe_operation(write->store->journal, &write->journal, &write->operation);
    }
    repeat_begin(write);
}

static bool on_write_refreshed(struct bucket_request *request)
{
    /* The place is in a limit of the former bucket's group. */
    request_release_place(&request->base);
    request->base.limit = group_commit_writes_limit(bucket_writes_group(request->bucket));
    return true;
}

static void on_write_failed(struct bucket_request *request, const struct error *error)
{
    struct write *write = write_of_bucket_request(request);

    write->error = *error;
    if (write_is_in_doubt(write)) {
        operation_set_unread_error(&write->error, error);
        write_finish_in_doubt(write);
    } else {
        write_finish(write, 0, &write->error);
    }
}

static const struct bucket_request_ops write_bucket_ops = {
    .opened = on_write_opened, .refreshed = on_write_refreshed, .failed = on_write_failed};

/* Return whether nothing was sent to NATS. */
static bool write_is_unsent(const struct arena_task *task)
{
    const struct write *write = ARENA_TASK_OWNER(task, struct write, task);

    return write->place != WRITE_IN_BATCH && !write->request.base.was_sent && write->condition_tries == 0;
}

static void write_cancel(struct arena_task *task)
{
    struct write *write = ARENA_TASK_OWNER(task, struct write, task);

    write_stop(write);
    journal_cancel(write->store->journal, &write->journal);
    room_end(write->store, write->admitted_bytes, write->request.base.was_sent);
    if (write->group != NULL)
        group_commit_cancel(write);
    bucket_request_cancel(&write->request);
}

void write_start(struct store *store, struct arena *arena, struct write *write)
{
    write->store = store;
    write->arena = arena;
    arena_begin_task(arena, &write->task, write_cancel);
    write->task.is_unsent = write_is_unsent;
    bucket_request_open(&write->request, store, write->bucket_name, arena, write->deadline_ms, &write_bucket_ops);
}
