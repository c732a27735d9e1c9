#include "daemon/store/write/increment.h"

#include "daemon/store/write/counter.h"

#include <string.h>

static struct increment *increment_of(struct modify *modify)
{
    return (struct increment *)((char *)modify - offsetof(struct increment, modify));
}

static void on_increment_deadline(struct timer *timer)
{
    struct increment *increment = (struct increment *)((char *)timer - offsetof(struct increment, timer));
    bool is_connected = connection_is_up(increment->modify.store->connection);
    struct error error;

    if (counter_leave(increment)) {
        error_set(
            &error, ERROR_DEADLINE_EXCEEDED,
            "timed out: the NATS server has not answered this increment; read the key, or allow a longer timeout");
        error.outcome = ERROR_OUTCOME_UNKNOWN;
    } else {
        error_set(&error, is_connected ? ERROR_DEADLINE_EXCEEDED : ERROR_UNAVAILABLE,
                  "%s; nothing was added, try again",
                  is_connected ? "timed out waiting for the key's value, or for other writes to the key"
                               : "no connection to NATS");
        error.outcome = ERROR_OUTCOME_NONE;
    }
    modify_finish(&increment->modify, 0, 0, &error);
}

static void increment_begin(struct modify *modify)
{
    struct increment *increment = increment_of(modify);
    struct counter *counter = counter_obtain(modify->store, modify->arena, modify->bucket_name, modify->key);
    struct error error;

    if (counter == NULL) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        modify_finish(modify, 0, 0, &error);
        return;
    }
    timer_start(modify->store->timers, &increment->timer, modify->deadline_ms, on_increment_deadline);
    counter_join(counter, increment);
}

static void increment_end(struct modify *modify, uint64_t revision, int64_t value, const struct error *error)
{
    struct increment *increment = increment_of(modify);

    increment->done(increment->arg, value, revision, error);
}

static void increment_cancel(struct modify *modify)
{
    counter_leave(increment_of(modify));
}

static bool increment_is_unsent(const struct modify *modify)
{
    const struct increment *increment = (const struct increment *)modify; /* its first member */

    return !counter_may_have_sent(increment);
}

static const struct modify_ops increment_ops = {
    .begin = increment_begin, .done = increment_end, .cancel = increment_cancel, .is_unsent = increment_is_unsent};

void increment_start(struct store *store, struct arena *arena, struct increment *increment)
{
    struct modify *modify = &increment->modify;
    const int64_t numbers[] = {increment->delta, increment->initial, increment->ttl_s, increment->keep_ttl};

    if (modify->journal.id != NULL) {
        journal_describe(store->journal, &modify->journal, modify->bucket_name, strlen(modify->bucket_name));
        journal_describe(store->journal, &modify->journal, "increment", 9);
        journal_describe(store->journal, &modify->journal, modify->key, strlen(modify->key));
        journal_describe(store->journal, &modify->journal, numbers, sizeof(numbers));
    }
    modify->ops = &increment_ops;
    modify_start(store, arena, modify);
}
