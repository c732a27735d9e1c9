#include "daemon/store/write/txn.h"

#include "daemon/base/backoff.h"
#include "daemon/store/observe.h"
#include "daemon/store/write/repeat.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Reads of the conditions' keys in flight at a time. */
#define TXN_WINDOW 256u

/* The backoff between attempts after concurrent writes, with full jitter. */
#define TXN_PAUSE_MIN_MS 2u
#define TXN_PAUSE_MAX_MS 100u

/* A condition on one key. */
struct txn_condition {
    struct operation operation; /* key, condition and revision */
    uint64_t expected;          /* the sequence that the message names */
    size_t deadline;            /* index of the last message that may carry it */
    char *subject;
    struct txn *txn;
    struct condition_read read;
};

static void txn_finish(struct txn *txn, uint64_t first_revision, const struct error *error)
{
    struct bucket *bucket = txn->bucket;
    struct error complete;

    if (error != NULL) {
        complete = *error;
        journal_set_default_outcome(&txn->journal, &complete);
        error = &complete;
    }
    timer_stop(txn->store->timers, &txn->pause);
    arena_end_task(&txn->task);
    room_end(txn->store, txn->admitted_bytes, error != NULL && error->outcome == ERROR_OUTCOME_UNKNOWN);
    journal_end(txn->store->journal, &txn->journal, first_revision, error);
    for (size_t i = 0; error == NULL && !txn->is_of_former_stream && i < txn->operation_count; i++) {
        observe_revision(txn->store, txn->bucket_name, txn->operations[i].key, first_revision + i, true);
        if (txn->operations[i].kind != KV_PUT)
            observe_marker(txn->store, bucket->name, bucket->marker_ttl_s);
    }
    if (error != NULL && error->has_revision && error->key != NULL)
        observe_revision(txn->store, txn->bucket_name, error->key, error->revision, false);
    txn->done(txn->arg, first_revision, error);
    if (bucket != NULL)
        bucket_release(bucket);
}

static void txn_fail(struct txn *txn, enum error_code code, const char *sentence)
{
    error_set(&txn->error, code, "%s", sentence);
    txn_finish(txn, 0, &txn->error);
}

/* --- Conditions ------------------------------------------------------------------------------------ */

static bool txn_same_condition(const struct operation *a, const struct operation *b)
{
    return a->revision == b->revision; /* 0: the key must be absent */
}

/* Add a condition. Equal conditions on one key are one; different ones contradict each other. False: out of memory. */
static bool txn_add_condition(struct txn *txn, const struct operation *operation)
{
    uint32_t next = (uint32_t)txn->condition_count;
    struct txn_condition *condition = &txn->conditions[key_index_add(&txn->by_key, operation->key, next)];

    if (condition != &txn->conditions[next]) {
        txn->contradicts = txn->contradicts || !txn_same_condition(&condition->operation, operation);
        return true;
    }
    txn->condition_count++;
    memset(condition, 0, sizeof(*condition));
    condition->txn = txn;
    condition->operation.key = operation->key;
    condition->operation.condition = operation->condition;
    condition->operation.revision = operation->revision;
    condition->expected = operation->condition == OPERATION_IF_AT_REVISION ? operation->revision : 0;
    condition->deadline = txn->operation_count - 1;
    size_t size = strlen(txn->bucket->put_prefix) + strlen(operation->key) + 1;
    condition->subject = arena_alloc(txn->arena, size);
    if (condition->subject == NULL)
        return false;
    strcpy(stpcpy(condition->subject, txn->bucket->put_prefix), operation->key);
    return true;
}

static bool txn_collect_conditions(struct txn *txn)
{
    size_t most = txn->check_count + txn->operation_count;

    txn->conditions = arena_alloc(txn->arena, most * sizeof(*txn->conditions));
    if (txn->conditions == NULL || !key_index_init(&txn->by_key, txn->arena, most))
        return false;
    for (size_t i = 0; i < txn->operation_count; i++) {
        if (txn->operations[i].condition != OPERATION_ALWAYS && !txn_add_condition(txn, &txn->operations[i]))
            return false;
    }
    for (size_t i = 0; i < txn->check_count; i++) {
        struct operation check = {.key = txn->checks[i].key,
                                  .condition =
                                      txn->checks[i].revision == 0 ? OPERATION_IF_ABSENT : OPERATION_IF_AT_REVISION,
                                  .revision = txn->checks[i].revision};
        if (!txn_add_condition(txn, &check))
            return false;
    }
    /* A condition must not come after the first message that writes its key. */
    for (size_t i = txn->operation_count; i-- > 0;) {
        uint32_t index = key_index_find(&txn->by_key, txn->operations[i].key);
        if (index != KEY_INDEX_NONE)
            txn->conditions[index].deadline = i;
    }
    return true;
}

static void txn_clear_assignment(struct txn *txn)
{
    for (size_t i = 0; i < txn->batch.count; i++)
        txn->batch.messages[i].has_condition = false;
}

/* Assign a condition to the latest free message that its deadline allows. False: none is free. */
static bool txn_assign_condition(struct txn *txn, const struct txn_condition *condition)
{
    struct batch_message *messages = txn->batch.messages;
    size_t at = condition->deadline + 1;

    while (at > 0 && messages[at - 1].has_condition)
        at--;
    if (at == 0)
        return false;
    messages[at - 1].has_condition = true;
    messages[at - 1].expected = condition->expected;
    messages[at - 1].condition_subject =
        strcmp(messages[at - 1].operation->key, condition->operation.key) == 0 ? NULL : condition->subject;
    return true;
}

/*
 * Assign all conditions, each to the latest message. That finds an assignment if there is one (scheduling of unit jobs
 * with deadlines). False: there are too many conditions.
 */
static bool txn_assign_conditions(struct txn *txn)
{
    txn_clear_assignment(txn);
    for (size_t i = 0; i < txn->condition_count; i++) {
        if (!txn_assign_condition(txn, &txn->conditions[i]))
            return false;
    }
    return true;
}

/*
 * The keys were read, and the batch is stored only if the stream has no later message. But a purge of the bucket leaves
 * none. So conditions on keys that have a message are assigned, too, as many as there is room for.
 */
static void txn_assign_witnesses(struct txn *txn)
{
    size_t room = txn->batch.count;

    txn_clear_assignment(txn);
    for (size_t i = 0; room > 0 && i < txn->condition_count; i++)
        room -= txn->conditions[i].expected > 0 && txn_assign_condition(txn, &txn->conditions[i]);
}

/* --- Committing ------------------------------------------------------------------------------------ */

static void txn_verify(struct txn *txn);

static void on_txn_committed(void *arg, uint64_t first_sequence, unsigned err_code, const struct error *error)
{
    struct txn *txn = arg;

    txn->is_in_batch = false;
    if (txn->lacks_room && err_code == JETSTREAM_WRONG_LAST_SEQUENCE) {
        txn->error.outcome = ERROR_OUTCOME_UNKNOWN; /* the copy of the earlier call could still arrive */
        txn_finish(txn, 0, &txn->error);
    } else if (err_code == JETSTREAM_WRONG_LAST_SEQUENCE || err_code == JETSTREAM_WRONG_LAST_SEQUENCE_CONSTANT) {
        journal_note_refused(txn->store->journal, &txn->journal);
        txn_verify(txn);
    } else {
        txn_finish(txn, first_sequence, error);
    }
}

static void txn_prepare_batch(struct txn *txn)
{
    struct batch *batch = &txn->batch;

    txn->is_in_batch = true;
    memset(&batch->request, 0, sizeof(batch->request));
    batch->bucket = txn->bucket;
    batch->owner = txn->arena->owner;
    request_set_caller(&batch->request.base, txn->arena);
    batch->deadline_ms = txn->deadline_ms;
    batch->done = on_txn_committed;
    batch->arg = txn;
    batch->has_expected_last = txn->is_on_stream;
    batch->expected_last = txn->stream_sequence;
    if (txn->is_on_stream)
        txn_assign_witnesses(txn);
    else
        txn_assign_conditions(txn);
    /* The last message has the id that proves the batch. */
    batch->is_remembered = txn->journal.place != 0;
    batch->messages[batch->count - 1].journal = batch->is_remembered ? &txn->journal : NULL;
}

/* The batch has new conditions, so it gets a new id. */
static void txn_send(struct txn *txn)
{
    txn_prepare_batch(txn);
    batch_start(txn->store, &txn->batch);
}

/* --- Verifying ------------------------------------------------------------------------------------- */

/*
 * The server does not report which condition failed, nor whether the condition failed in our sense: it
 * compares sequences, and a delete marker has one like any other message. So the keys are read from the leader.
 */

static void txn_pause_and_verify(struct txn *txn);

static void txn_end_verifying(struct txn *txn)
{
    if (txn->error.code != ERROR_NONE) {
        txn_finish(txn, 0, &txn->error);
    } else if (txn->has_moved) {
        txn_pause_and_verify(txn);
    } else {
        txn_send(txn);
    }
}

static void txn_fill_window(struct txn *txn);

static void on_txn_condition_read(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct txn_condition *condition = arg;
    struct txn *txn = condition->txn;

    if (txn->error.code == ERROR_NONE && error != NULL) {
        txn->error = *error;
    } else if (txn->error.code == ERROR_NONE && !operation_condition_holds(&condition->operation, entry)) {
        operation_set_condition_error(&condition->operation, entry != NULL ? entry->revision : 0, &txn->error);
        txn->error.key = condition->operation.key;
    }
    condition->expected = entry != NULL ? entry->revision : 0;
    if (txn->is_on_stream && condition->expected > txn->stream_sequence)
        txn->has_moved = true;
    txn->in_flight--;
    txn_fill_window(txn);
}

static void txn_read_key(struct txn *txn, struct txn_condition *condition)
{
    condition->read = (struct condition_read){.bucket_name = txn->bucket_name,
                                              .key = condition->operation.key,
                                              .deadline_ms = txn->deadline_ms,
                                              .done = on_txn_condition_read,
                                              .arg = condition};
    txn->in_flight++;
    condition_read_start(txn->store, txn->arena, &condition->read);
}

static void txn_fill_window(struct txn *txn)
{
    if (txn->is_filling)
        return;
    txn->is_filling = true;
    while (txn->next < txn->condition_count && txn->in_flight < TXN_WINDOW && txn->error.code == ERROR_NONE)
        txn_read_key(txn, &txn->conditions[txn->next++]);
    txn->is_filling = false;
    if (txn->in_flight == 0 && (txn->next == txn->condition_count || txn->error.code != ERROR_NONE))
        txn_end_verifying(txn);
}

static void txn_read_conditions(struct txn *txn)
{
    txn->next = 0;
    txn->has_moved = false;
    memset(&txn->error, 0, sizeof(txn->error));
    txn_fill_window(txn);
}

/* The leader's last sequence. The keys are read after it, so they show the state at that sequence, or a newer one. */
static void on_txn_stream_sequence(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct txn *txn = arg;

    (void)err_code;
    if (answer == NULL) {
        txn_finish(txn, 0, error);
        return;
    }
    txn->stream_sequence = (uint64_t)json_integer_value(json_object_get(json_object_get(answer, "state"), "last_seq"));
    txn_read_conditions(txn);
}

static void txn_begin_verifying(struct txn *txn)
{
    if (!txn->is_on_stream) {
        txn_read_conditions(txn);
        return;
    }
    request_set_caller(&txn->info.request, txn->arena);
    jetstream_call(&txn->store->jetstream, &txn->info, "STREAM.INFO", txn->bucket->stream, NULL, txn->deadline_ms,
                   on_txn_stream_sequence, txn);
}

static void txn_verify(struct txn *txn)
{
    if (txn->tries++ > 1) {
        txn_pause_and_verify(txn);
        return;
    }
    txn_begin_verifying(txn);
}

static void on_txn_pause_over(struct timer *timer)
{
    struct txn *txn = (struct txn *)((char *)timer - offsetof(struct txn, pause));

    if (uv_now(txn->store->loop) >= txn->deadline_ms) {
        error_set(&txn->error, ERROR_DEADLINE_EXCEEDED,
                  "gave up after %u attempts: concurrent writes to the bucket; nothing was written, try again",
                  txn->tries);
        txn_finish(txn, 0, &txn->error);
        return;
    }
    txn_begin_verifying(txn);
}

static void txn_pause_and_verify(struct txn *txn)
{
    uint64_t at_ms = uv_now(txn->store->loop) + backoff_ms(txn->tries, TXN_PAUSE_MIN_MS, TXN_PAUSE_MAX_MS);

    if (at_ms > txn->deadline_ms)
        at_ms = txn->deadline_ms;
    timer_start(txn->store->timers, &txn->pause, at_ms, on_txn_pause_over);
}

/* --- Starting -------------------------------------------------------------------------------------- */

/* Refuse a bucket that does not allow atomic batches. False: the transaction has ended. */
static bool txn_check_batches(struct txn *txn)
{
    const struct jetstream *jetstream = &txn->store->jetstream;

    if (txn->bucket->allows_atomic)
        return true;
    if (jetstream->is_known && jetstream->level < JETSTREAM_LEVEL_ATOMIC)
        txn_fail(txn, ERROR_UNSUPPORTED, "transactions need nats-server 2.12 or later");
    else if (txn->bucket->is_mirror)
        txn_fail(txn, ERROR_UNSUPPORTED, "the bucket is a mirror; commit the transaction in the bucket that it copies");
    else
        txn_fail(txn, ERROR_UNSUPPORTED,
                 "the bucket does not allow atomic batches, which transactions need; bucket.update enables them");
    return false;
}

/* Check that the bucket allows each operation, and that a roll-up is the first on its key. False: see txn->error. */
static bool txn_check_operations(struct txn *txn)
{
    struct key_index written;
    bool is_well = true;

    if (!key_index_init(&written, txn->arena, txn->operation_count)) {
        error_set(&txn->error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return false;
    }
    for (uint32_t i = 0; is_well && i < txn->operation_count; i++) {
        const struct operation *operation = &txn->operations[i];
        bool is_first = key_index_add(&written, operation->key, i) == i;
        is_well = operation_check(operation, txn->store, txn->bucket, &txn->error);
        if (is_well && !is_first && operation_rolls_up(operation, txn->bucket)) {
            error_set(
                &txn->error, ERROR_INVALID_ARGUMENT,
                "a purge, and in a bucket with history a write with a TTL, must be the first operation on its key");
            is_well = false;
        }
        if (!is_well)
            txn->error.key = operation->key;
    }
    return is_well;
}

/* False: there is no room for all of it, see txn->error. */
static bool txn_admit(struct txn *txn)
{
    for (size_t i = 0; i < txn->operation_count; i++) {
        if (!operation_admit(&txn->operations[i], txn->store, &txn->admitted_bytes, &txn->error)) {
            txn->error.key = txn->operations[i].key;
            return false;
        }
    }
    return true;
}

static bool txn_make_messages(struct txn *txn)
{
    struct batch *batch = &txn->batch;

    batch->count = txn->operation_count;
    batch->messages = arena_zalloc(txn->arena, batch->count * sizeof(*batch->messages));
    if (batch->messages == NULL)
        return false;
    for (size_t i = 0; i < batch->count; i++) {
        batch->messages[i].operation = &txn->operations[i];
        if (!operation_make_message(txn->arena, &txn->operations[i], txn->bucket, &batch->messages[i].message))
            return false;
    }
    return true;
}

/* --- Transactions with an id ------------------------------------------------------------------------ */

static void txn_begin(struct txn *txn);

static void on_txn_earlier_call_check(struct timer *timer)
{
    txn_begin((struct txn *)((char *)timer - offsetof(struct txn, pause)));
}

/*
 * An earlier call has sent the batch. If it is not stored, a condition on the stream must be verified again, as if the
 * server had refused it. Other conditions are in the messages. Without room it is not sent again, only looked for.
 */
static void txn_continue_in_doubt(struct txn *txn, const struct journal_copy *copy)
{
    txn->lacks_room = !txn_admit(txn);
    bool ends_if_not_stored = txn->is_on_stream || txn->lacks_room;

    txn_prepare_batch(txn);
    txn->batch.has_expected_last = false;
    batch_start_in_doubt(txn->store, &txn->batch, copy, ends_if_not_stored ? JETSTREAM_WRONG_LAST_SEQUENCE : 0);
}

static void txn_describe(struct txn *txn)
{
    const struct journal *journal = txn->store->journal;
    const uint64_t counts[] = {txn->check_count, txn->operation_count};

    journal_describe(journal, &txn->journal, counts, sizeof(counts));
    journal_describe(journal, &txn->journal, txn->bucket_name, strlen(txn->bucket_name));
    for (size_t i = 0; i < txn->check_count; i++) {
        journal_describe(journal, &txn->journal, txn->checks[i].key, strlen(txn->checks[i].key));
        journal_describe(journal, &txn->journal, &txn->checks[i].revision, sizeof(txn->checks[i].revision));
    }
    for (size_t i = 0; i < txn->operation_count; i++)
        repeat_describe_operation(journal, &txn->journal, &txn->operations[i]);
}

/* Commit a transaction that is checked. */
static void txn_begin(struct txn *txn)
{
    struct journal_copy copy;
    uint64_t revision;

    enum journal_finding finding = journal_begin(txn->store->journal, &txn->journal, &revision, &copy);
    switch (finding) {
    case JOURNAL_NEW:
        if (txn->admitted_bytes == 0 && !txn_admit(txn)) {
            journal_forget(txn->store->journal, &txn->journal);
            txn_finish(txn, 0, &txn->error);
        } else if (txn->is_on_stream)
            txn_verify(txn);
        else
            txn_send(txn);
        break;
    case JOURNAL_STORED:
        txn->is_of_former_stream = revision > bucket_stream(txn->store, txn->bucket).last_sequence;
        txn_finish(txn, revision, NULL);
        break;
    case JOURNAL_IN_DOUBT:
        txn_continue_in_doubt(txn, &copy);
        break;
    case JOURNAL_RUNNING:
        if (!repeat_await_earlier_call(txn->store, &txn->pause, on_txn_earlier_call_check, txn->deadline_ms,
                                       &txn->error))
            txn_finish(txn, 0, &txn->error);
        break;
    case JOURNAL_FORGOTTEN:
    case JOURNAL_OTHER_CALL:
        repeat_set_error(finding, &txn->error);
        txn_finish(txn, 0, &txn->error);
        break;
    }
}

static void on_txn_bucket(void *arg, struct bucket *bucket, const struct error *error)
{
    struct txn *txn = arg;

    txn->bucket = bucket;
    if (error != NULL) {
        txn_finish(txn, 0, error);
        return;
    }
    if (!txn_check_batches(txn))
        return;
    if (!txn_check_operations(txn)) {
        txn_finish(txn, 0, &txn->error);
        return;
    }
    memset(&txn->error, 0, sizeof(txn->error));
    if (!txn_make_messages(txn) || !txn_collect_conditions(txn)) {
        txn_fail(txn, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    if (txn->contradicts) {
        txn_fail(txn, ERROR_CONFLICT,
                 "the transaction asks for two different revisions of one key, which cannot both hold");
        return;
    }
    txn->is_on_stream = !txn_assign_conditions(txn);
    txn_describe(txn);
    /* A call that was not sent before must not take a place in the journal if there is no room. */
    if (txn->journal.first_sent_us == 0 && !txn_admit(txn))
        txn_finish(txn, 0, &txn->error);
    else
        txn_begin(txn);
}

/* A batch that was refused has written nothing. */
static bool txn_is_unsent(const struct arena_task *task)
{
    const struct txn *txn = ARENA_TASK_OWNER(task, struct txn, task);

    return !txn->is_in_batch || !txn->batch.request.base.was_sent;
}

static void txn_cancel(struct arena_task *task)
{
    struct txn *txn = ARENA_TASK_OWNER(task, struct txn, task);

    bucket_wait_cancel(&txn->wait);
    journal_cancel(txn->store->journal, &txn->journal);
    room_end(txn->store, txn->admitted_bytes, !txn_is_unsent(task));
    batch_cancel(&txn->batch);
    jetstream_cancel(&txn->info);
    timer_stop(txn->store->timers, &txn->pause);
    for (size_t i = 0; txn->in_flight > 0 && i < txn->next; i++)
        condition_read_cancel(&txn->conditions[i].read);
    if (txn->bucket != NULL)
        bucket_release(txn->bucket);
}

void txn_commit(struct store *store, struct arena *arena, struct txn *txn)
{
    txn->store = store;
    txn->arena = arena;
    arena_begin_task(arena, &txn->task, txn_cancel);
    txn->task.is_unsent = txn_is_unsent;
    txn->wait.caller = txn->arena;
    bucket_open(store, &txn->wait, txn->bucket_name, txn->arena->owner, txn->deadline_ms, on_txn_bucket, txn);
}
