#include "daemon/store/write/repeat.h"

#include <string.h>

/* How often a repeated call checks whether the earlier one has ended. */
#define EARLIER_CALL_CHECK_MS 20u

static void on_repeat_check(struct timer *timer)
{
    repeat_begin((struct write *)((char *)timer - offsetof(struct write, try_timer)));
}

/* The client has lost its session, and the call that it made there has not ended. */
bool repeat_await_earlier_call(struct store *store, struct timer *timer, void (*again)(struct timer *timer),
                               uint64_t deadline_ms, struct error *error)
{
    uint64_t now_ms = uv_now(store->loop), at_ms = now_ms + EARLIER_CALL_CHECK_MS;

    if (now_ms >= deadline_ms) {
        error_set(error, ERROR_DEADLINE_EXCEEDED, "timed out waiting for the first call with this id");
        error->outcome = ERROR_OUTCOME_UNKNOWN;
        return false;
    }
    timer_start(store->timers, timer, at_ms < deadline_ms ? at_ms : deadline_ms, again);
    return true;
}

static void repeat_continue_in_doubt(struct write *write)
{
    memset(&write->outcome, 0, sizeof(write->outcome));
    inquiry_inherit_copy(write->store, &write->outcome, &write->inherited);
    strcpy(write->id, write->inherited.message_id);
    write_continue_in_doubt(write);
}

/* A call that was repeated has the same values: their beginnings and sizes tell it from another one. */
#define DESCRIBED_VALUE_BYTES 1024u

void repeat_describe_operation(const struct journal *journal, struct journal_call *call,
                               const struct operation *operation)
{
    const uint64_t numbers[] = {operation->kind, operation->condition, operation->revision, operation->value_bytes,
                                (uint64_t)operation->ttl_s};
    size_t described = operation->value_bytes < DESCRIBED_VALUE_BYTES ? operation->value_bytes : DESCRIBED_VALUE_BYTES;

    if (call->id == NULL)
        return;
    journal_describe(journal, call, numbers, sizeof(numbers));
    journal_describe(journal, call, operation->key, strlen(operation->key));
    journal_describe(journal, call, operation->value, described);
}

void repeat_set_error(enum journal_finding finding, struct error *error)
{
    switch (finding) {
    case JOURNAL_FORGOTTEN:
        error_set(error, ERROR_UNAVAILABLE,
                  "whether this call is stored is unknown: the daemon does not remember its id; read the keys");
        error->outcome = ERROR_OUTCOME_UNKNOWN;
        break;
    case JOURNAL_OTHER_CALL:
        error_set(error, ERROR_INVALID_ARGUMENT,
                  "another call has used this id; each call needs an id of its own, and a repeated one is unchanged");
        break;
    case JOURNAL_NEW:
    case JOURNAL_STORED:
    case JOURNAL_IN_DOUBT:
    case JOURNAL_RUNNING:
        break;
    }
}

/* Return whether there is room for the write. Otherwise it has ended. */
static bool repeat_admit(struct write *write)
{
    if (write->admitted_bytes > 0 ||
        operation_admit(&write->operation, write->store, &write->admitted_bytes, &write->error))
        return true;
    journal_forget(write->store->journal, &write->journal);
    write_finish(write, 0, &write->error);
    return false;
}

void repeat_begin(struct write *write)
{
    uint64_t revision;

    if (write->only_asks) {
        repeat_continue_in_doubt(write);
        return;
    }
    /* A call that was not sent before is not stored, and must not take a place in the journal if there is no room. */
    if (write->journal.first_sent_us == 0 && !repeat_admit(write))
        return;
    enum journal_finding finding = journal_begin(write->store->journal, &write->journal, &revision, &write->inherited);
    switch (finding) {
    case JOURNAL_NEW:
        if (repeat_admit(write))
            write_submit(write);
        break;
    case JOURNAL_STORED:
        write->is_of_former_stream = revision > bucket_stream(write->store, write->request.bucket).last_sequence;
        write_finish(write, revision, NULL);
        break;
    case JOURNAL_IN_DOUBT:
        repeat_continue_in_doubt(write);
        break;
    case JOURNAL_RUNNING:
        if (!repeat_await_earlier_call(write->store, &write->try_timer, on_repeat_check, write->deadline_ms,
                                       &write->error))
            write_finish(write, 0, &write->error);
        break;
    case JOURNAL_FORGOTTEN:
    case JOURNAL_OTHER_CALL:
        repeat_set_error(finding, &write->error);
        write_finish(write, 0, &write->error);
        break;
    }
}

void repeat_note_sent(struct write *write, const struct outcome *outcome)
{
    if (write->journal.place == 0 && !write->is_remembered)
        return;
    struct journal_copy copy = inquiry_describe_copy(outcome, (uint64_t)write->operation.ttl_s * 1000u);
    strcpy(copy.message_id, write->id);
    copy.has_condition = write->has_condition;
    copy.expected = write->expected;
    if (write->note_sent != NULL)
        write->note_sent(write, &copy);
    else
        journal_note_sent(write->store->journal, &write->journal, &copy);
}

/*
 * The id of a batch proves several writes, so it cannot be used for one of them. But a single copy with another id does
 * not keep out a batch that an external server still receives: the daemon that sent it was killed a moment ago.
 */
bool repeat_may_send(struct write *write)
{
    bool is_of_batch = write->inherited.is_of_batch;

    if (is_of_batch && write->store->conf->nats.mode != CONF_NATS_EMBEDDED)
        return false;
    if (is_of_batch) {
        operation_make_id(write->store, write->id);
        memset(&write->outcome, 0, sizeof(write->outcome));
    }
    memset(&write->inherited, 0, sizeof(write->inherited));
    return true;
}
