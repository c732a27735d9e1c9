#include "daemon/store/write/repeat.h"

#include <string.h>

/* How often a repeated call checks whether the first one has ended. */
#define EARLIER_CALL_CHECK_MS 20u

static void on_repeat_check(struct timer *timer)
{
    repeat_begin((struct write *)((char *)timer - offsetof(struct write, try_timer)));
}

static void repeat_finish_unknown(struct write *write)
{
    write->error.outcome = ERROR_OUTCOME_UNKNOWN;
    write_finish(write, 0, &write->error);
}

/* The client has lost its session, and the call that it made there has not ended. */
static void repeat_await_earlier_call(struct write *write)
{
    uint64_t now_ms = uv_now(write->store->loop), at_ms = now_ms + EARLIER_CALL_CHECK_MS;

    if (now_ms >= write->deadline_ms) {
        error_set(&write->error, ERROR_DEADLINE_EXCEEDED, "timed out waiting for the first call with this id");
        repeat_finish_unknown(write);
        return;
    }
    timer_start(write->store->timers, &write->try_timer, at_ms < write->deadline_ms ? at_ms : write->deadline_ms,
                on_repeat_check);
}

static void repeat_continue_in_doubt(struct write *write)
{
    memset(&write->outcome, 0, sizeof(write->outcome));
    inquiry_inherit_copy(write->store, &write->outcome, &write->inherited);
    strcpy(write->id, write->inherited.message_id);
    write_continue_in_doubt(write);
}

void repeat_begin(struct write *write)
{
    uint64_t revision;

    switch (journal_begin(write->store->journal, &write->journal, &revision, &write->inherited)) {
    case JOURNAL_NEW:
        write_submit(write);
        break;
    case JOURNAL_STORED:
        write_finish(write, revision, NULL);
        break;
    case JOURNAL_IN_DOUBT:
        repeat_continue_in_doubt(write);
        break;
    case JOURNAL_RUNNING:
        repeat_await_earlier_call(write);
        break;
    case JOURNAL_FORGOTTEN:
        error_set(&write->error, ERROR_UNAVAILABLE,
                  "whether this write is stored is unknown: the daemon does not remember its id; read the key");
        repeat_finish_unknown(write);
        break;
    }
}

void repeat_note_sent(struct write *write, const struct outcome *outcome)
{
    if (write->journal.place == 0)
        return;
    struct journal_copy copy = inquiry_describe_copy(outcome, (uint64_t)write->operation.ttl_s * 1000u);
    strcpy(copy.message_id, write->id);
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

void repeat_end(struct write *write, uint64_t revision, const struct error *error)
{
    enum journal_end end = JOURNAL_END_STORED;

    if (error != NULL)
        end = error->outcome == ERROR_OUTCOME_UNKNOWN ? JOURNAL_END_UNKNOWN : JOURNAL_END_NOT_STORED;
    journal_end(write->store->journal, &write->journal, end, revision);
}

void repeat_cancel(struct write *write)
{
    journal_end(write->store->journal, &write->journal, JOURNAL_END_UNKNOWN, 0);
}
