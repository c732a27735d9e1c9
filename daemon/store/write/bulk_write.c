#include "daemon/store/write/bulk_write.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Writes that a call starts in its turn. */
#define BULK_WRITE_TURN 16u

/* Of all calls. */
struct bulk_writes {
    struct bulk_windows windows;
    bool is_filling;
    struct job filling; /* after a call was cancelled: others have room */
    struct store *store;
};

struct bulk_slot {
    struct write write;
    struct bulk_write *bulk;
    struct bulk_slot *next_spare;
    size_t index;
};

struct error *bulk_copy_error(struct arena *arena, const struct error *error)
{
    static struct error out_of_memory = {
        .code = ERROR_RESOURCE_EXHAUSTED, .retryable = true, .outcome = ERROR_OUTCOME_NONE, .message = "out of memory"};
    struct error *copy = arena != NULL ? arena_alloc(arena, sizeof(*copy)) : NULL;

    if (copy == NULL)
        return &out_of_memory;
    *copy = *error;
    return copy;
}

static void bulk_write_fill_windows(struct store *store);
static void bulk_write_finish_if_done(struct bulk_write *bulk);

static void on_bulk_write_written(void *arg, uint64_t revision, const struct error *error)
{
    struct bulk_slot *slot = arg;
    struct bulk_write *bulk = slot->bulk;
    struct bulk_result *result = &bulk->results[slot->index];

    result->revision = revision;
    if (error != NULL) {
        result->error = bulk_copy_error(bulk->arena, error);
    }
    slot->next_spare = bulk->spare;
    bulk->spare = slot;
    struct store *store = bulk->store;
    bulk_claim_end_write(&bulk->claim);
    bulk_write_finish_if_done(bulk);
    bulk_write_fill_windows(store);
}

static struct bulk_slot *bulk_write_obtain_slot(struct bulk_write *bulk)
{
    struct bulk_slot *slot = bulk->spare;

    if (slot == NULL)
        return arena_alloc(bulk->arena, sizeof(*slot));
    bulk->spare = slot->next_spare;
    return slot;
}

/* A write that has not begun has no effect, unless the call repeats another one. */
static void bulk_write_set_over(struct bulk_write *bulk, enum error_code code, const char *message)
{
    error_set(&bulk->unbegun, code, "%s", message);
    bulk->unbegun.outcome = bulk->journal.first_sent_us != 0 ? ERROR_OUTCOME_UNKNOWN : ERROR_OUTCOME_NONE;
}

static void bulk_write_set_late(struct bulk_write *bulk)
{
    bulk_write_set_over(bulk, ERROR_DEADLINE_EXCEEDED,
                        "timed out waiting for earlier bulk writes; this call did not write the key, try again");
}

/* Return whether the call begins no further write: its error is set then. */
static bool bulk_write_is_over(struct bulk_write *bulk)
{
    if (bulk->unbegun.code != ERROR_NONE)
        return true;
    if (bulk->is_cancelled != NULL && bulk->is_cancelled(bulk->arg))
        bulk_write_set_over(bulk, ERROR_UNAVAILABLE, "the client has cancelled the call; the key was not written");
    else if (uv_now(bulk->store->loop) >= bulk->deadline_ms)
        bulk_write_set_late(bulk);
    return bulk->unbegun.code != ERROR_NONE;
}

static void bulk_write_start_next(struct bulk_write *bulk)
{
    if (bulk_write_is_over(bulk)) {
        bulk->results[bulk->next++].error = &bulk->unbegun;
        return;
    }
    struct bulk_slot *slot = bulk_write_obtain_slot(bulk);
    size_t index = bulk->next++;

    if (slot == NULL) {
        bulk->results[index].error = bulk_copy_error(NULL, NULL);
        return;
    }
    memset(slot, 0, sizeof(*slot));
    slot->bulk = bulk;
    slot->index = index;
    slot->write.bucket_name = bulk->bucket_name;
    slot->write.operation = bulk->operations[index];
    slot->write.deadline_ms = bulk->deadline_ms;
    slot->write.done = on_bulk_write_written;
    slot->write.arg = slot;
    slot->write.journal = bulk->journal;
    slot->write.journal.part = (uint32_t)index;
    bulk_claim_begin_write(&bulk->claim);
    write_start(bulk->store, bulk->arena, &slot->write);
}

/* --- Turns ----------------------------------------------------------------------------------------- */

/* Start some writes. They may end at once: whether the call is done is checked after its turn. */
static void bulk_write_begin_some(struct bulk_write *bulk)
{
    bulk->is_filling = true;
    for (unsigned begun = 0;
         begun < BULK_WRITE_TURN && bulk->next < bulk->count && bulk_claim_has_room(&bulk->claim);) {
        if (bulk->results[bulk->next].error != NULL) {
            bulk->next++;
        } else {
            bulk_write_start_next(bulk);
            begun++;
        }
    }
    bulk->is_filling = false;
}

/* The call whose turn it is starts some writes. If it has more, it waits for its next turn. */
static void bulk_write_use_turn(struct bulk_write *bulk)
{
    bulk_write_begin_some(bulk);
    bulk_claim_end_turn(&bulk->claim, bulk->next < bulk->count);
    bulk_write_finish_if_done(bulk);
}

static void bulk_write_finish_if_done(struct bulk_write *bulk)
{
    if (bulk->is_filling || bulk->next < bulk->count || bulk->claim.in_flight > 0)
        return;
    bulk_claim_end(&bulk->claim);
    timer_stop(bulk->store->timers, &bulk->deadline);
    arena_end_task(&bulk->task);
    bulk->done(bulk->arg);
}

static bool bulk_write_run_filling(struct job *job)
{
    struct bulk_writes *all = (struct bulk_writes *)((char *)job - offsetof(struct bulk_writes, filling));

    bulk_write_fill_windows(all->store);
    return false;
}

/* Start writes while there is room for them, for a slice of the turn. */
static void bulk_write_fill_windows(struct store *store)
{
    struct bulk_writes *all = store->bulk_writes;
    struct bulk_claim *claim;

    if (all->is_filling)
        return;
    all->is_filling = true;
    while (bulk_windows_step(&all->windows, &claim)) {
        if (claim != NULL)
            bulk_write_use_turn((struct bulk_write *)((char *)claim - offsetof(struct bulk_write, claim)));
        /* Writes that are refused at once, or come too late, never fill a window. */
        if (jobs_slice_is_over(store->jobs)) {
            jobs_add(store->jobs, &all->filling, bulk_write_run_filling);
            break;
        }
    }
    all->is_filling = false;
}

/*
 * Without room, the call has no turn in which it would see that it is late. Its writes in flight have the same
 * deadline. Each of the calls that are late together ends alone, so timers can cut that into slices.
 */
static void on_bulk_write_deadline(struct timer *timer)
{
    struct bulk_write *bulk = (struct bulk_write *)((char *)timer - offsetof(struct bulk_write, deadline));
    struct store *store = bulk->store;

    if (!bulk_write_is_over(bulk))
        bulk_write_set_late(bulk); /* the daemon ends */
    for (; bulk->next < bulk->count; bulk->next++) {
        if (bulk->results[bulk->next].error == NULL)
            bulk->results[bulk->next].error = &bulk->unbegun;
    }
    bulk_write_finish_if_done(bulk);
    bulk_write_fill_windows(store);
}

/* Its writes say theirs. After the first one has ended, the others are done, too. */
static bool bulk_write_is_unsent(const struct arena_task *task)
{
    const struct bulk_write *bulk = ARENA_TASK_OWNER(task, struct bulk_write, task);

    return bulk->next == bulk->claim.in_flight;
}

/* Other calls get its room in a job: a session that closes cancels all of its calls, and none is to start meanwhile. */
static void bulk_write_cancel(struct arena_task *task)
{
    struct bulk_write *bulk = ARENA_TASK_OWNER(task, struct bulk_write, task);
    struct store *store = bulk->store;

    bulk_claim_end(&bulk->claim);
    timer_stop(store->timers, &bulk->deadline);
    jobs_add(store->jobs, &store->bulk_writes->filling, bulk_write_run_filling);
}

void bulk_write(struct store *store, struct arena *arena, struct bulk_write *bulk)
{
    bulk->store = store;
    bulk->arena = arena;
    if (!bulk_claim_begin(&store->bulk_writes->windows, &bulk->claim, bulk->bucket_name, arena->owner)) {
        for (; bulk->next < bulk->count; bulk->next++) {
            if (bulk->results[bulk->next].error == NULL)
                bulk->results[bulk->next].error = bulk_copy_error(NULL, NULL);
        }
        bulk->done(bulk->arg);
        return;
    }
    arena_begin_task(arena, &bulk->task, bulk_write_cancel);
    bulk->task.is_unsent = bulk_write_is_unsent;
    timer_start(store->timers, &bulk->deadline, bulk->deadline_ms, on_bulk_write_deadline);
    bulk_write_fill_windows(store);
}

int bulk_write_init_all(struct store *store)
{
    store->bulk_writes = calloc(1, sizeof(*store->bulk_writes));
    if (store->bulk_writes == NULL)
        return -1;
    store->bulk_writes->store = store;
    return 0;
}

void bulk_write_free_all(struct store *store)
{
    if (store->bulk_writes != NULL)
        jobs_remove(store->jobs, &store->bulk_writes->filling);
    free(store->bulk_writes);
    store->bulk_writes = NULL;
}
