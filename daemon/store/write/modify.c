#include "daemon/store/write/modify.h"

#include "daemon/store/observe.h"
#include "daemon/store/write/repeat.h"

#include <string.h>

void modify_finish(struct modify *modify, uint64_t revision, int64_t value, const struct error *error)
{
    struct error complete;

    if (error != NULL) {
        complete = *error;
        journal_set_default_outcome(&modify->journal, &complete);
        error = &complete;
    }
    timer_stop(modify->store->timers, &modify->timer);
    journal_end(modify->store->journal, &modify->journal, revision, error);
    arena_end_task(&modify->task);
    modify->ops->done(modify, revision, value, error);
}

/* --- Copies of earlier calls ----------------------------------------------------------------------- */

/* The copy of an earlier call is stored. Reads from memory must see it, unless the stream is another one now. */
static void modify_finish_stored(struct modify *modify, uint64_t revision)
{
    const struct bucket *bucket = bucket_find_known(modify->store, modify->bucket_name);

    if (bucket != NULL && revision <= bucket_stream(modify->store, bucket).last_sequence)
        observe_revision(modify->store, modify->bucket_name, modify->key, revision, true);
    modify_finish(modify, revision, modify->inherited.value, NULL);
}

/* A write that is never sent: it determines what became of the copy. */
struct modify_question {
    struct write write;
    struct modify *modify;
};

static void on_modify_checked(void *arg, uint64_t revision, const struct error *error)
{
    struct modify_question *question = arg;
    struct modify *modify = question->modify;
    const struct journal_copy *copy = &modify->inherited;

    if (error != NULL) {
        struct error unknown = *error;
        unknown.outcome = ERROR_OUTCOME_UNKNOWN;
        modify_finish(modify, 0, 0, &unknown);
    } else if (revision > 0) {
        modify_finish(modify, revision, copy->value, NULL);
    } else {
        /*
         * The condition of the copy still holds, so it could be stored yet: a server may still have it in its socket
         * if the daemon that sent it was killed. A write that requires the same revision keeps it out.
         */
        modify->is_bound = copy->has_condition && copy->expected == question->write.expected;
        modify->ops->begin(modify);
    }
}

bool modify_may_write_at(const struct modify *modify, uint64_t revision)
{
    return !modify->is_bound || modify->inherited.expected == revision;
}

void modify_check(struct modify *modify)
{
    struct modify_question *question = arena_zalloc(modify->arena, sizeof(*question));
    struct error error;

    if (question == NULL) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        error.outcome = ERROR_OUTCOME_UNKNOWN;
        modify_finish(modify, 0, 0, &error);
        return;
    }
    question->modify = modify;
    struct write *write = &question->write;
    write->bucket_name = modify->bucket_name;
    write->operation.key = modify->key;
    write->operation.kind = KV_DELETE; /* it needs no room */
    write->operation.value = "";
    write->deadline_ms = modify->deadline_ms;
    write->only_asks = true;
    write->inherited = modify->inherited;
    write->done = on_modify_checked;
    write->arg = question;
    write_start(modify->store, modify->arena, write);
}

/* --- Beginning ------------------------------------------------------------------------------------- */

static void modify_begin(struct modify *modify);

static void on_modify_timer(struct timer *timer)
{
    modify_begin((struct modify *)((char *)timer - offsetof(struct modify, timer)));
}

static void modify_begin(struct modify *modify)
{
    uint64_t revision;
    struct error error;

    enum journal_finding finding =
        journal_begin(modify->store->journal, &modify->journal, &revision, &modify->inherited);
    switch (finding) {
    case JOURNAL_NEW:
        modify->ops->begin(modify);
        break;
    case JOURNAL_STORED:
        modify_finish_stored(modify, revision);
        break;
    case JOURNAL_IN_DOUBT:
        modify_check(modify);
        break;
    case JOURNAL_RUNNING:
        if (!repeat_await_earlier_call(modify->store, &modify->timer, on_modify_timer, modify->deadline_ms, &error))
            modify_finish(modify, 0, 0, &error);
        break;
    case JOURNAL_FORGOTTEN:
    case JOURNAL_OTHER_CALL:
        repeat_set_error(finding, &error);
        modify_finish(modify, 0, 0, &error);
        break;
    }
}

void modify_note_sent(struct modify *modify, const struct journal_copy *copy, int64_t value)
{
    struct journal_copy own = *copy;

    own.value = value;
    journal_note_sent(modify->store->journal, &modify->journal, &own);
}

static bool modify_is_unsent(const struct arena_task *task)
{
    const struct modify *modify = ARENA_TASK_OWNER(task, struct modify, task);

    return modify->ops->is_unsent(modify);
}

static void modify_cancel(struct arena_task *task)
{
    struct modify *modify = ARENA_TASK_OWNER(task, struct modify, task);

    timer_stop(modify->store->timers, &modify->timer);
    modify->ops->cancel(modify);
    journal_cancel(modify->store->journal, &modify->journal);
}

void modify_start(struct store *store, struct arena *arena, struct modify *modify)
{
    modify->store = store;
    modify->arena = arena;
    arena_begin_task(arena, &modify->task, modify_cancel);
    modify->task.is_unsent = modify_is_unsent;
    modify_begin(modify);
}
