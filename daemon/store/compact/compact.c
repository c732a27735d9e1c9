#include "daemon/store/compact/compact.h"

#include "daemon/base/log.h"
#include "daemon/nats/stream_info.h"
#include "daemon/store/compact/progress.h"
#include "daemon/store/compact/schedule.h"
#include "daemon/store/compact/state.h"
#include "daemon/store/follow/horizon.h"
#include "daemon/store/follow/state.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Purges of all compactions that are in flight at a time. */
#define PURGES_MAX 4u

/* The shortest time for which to work on a chunk that is not full. */
#define HALF_TIME_MIN_MS 50u

#define COMPACT_OTHER_STREAM "the bucket's stream is another one now; call again to continue"
static void compact_continue(struct compact *compact);
static void compact_look_at_files(struct compact *compact);
static void compact_check_stream(struct compact *compact);

/* --- Life ------------------------------------------------------------------------------------------- */

static void compact_forget_files(struct compact *compact)
{
    if (compact->files != NULL)
        compact_files_forget(compact->files);
    compact->files = NULL;
}

static void compact_release(struct compact *compact)
{
    bool has_removed = compact->purges.has_removed;

    DL_DELETE2(compact->store->compact->compactions, compact, previous, next);
    turns_leave(&compact->store->compact->turns, &compact->turn);
    jobs_remove(compact->store->jobs, &compact->going_on);
    timer_stop(compact->store->timers, &compact->deadline);
    timer_stop(compact->store->timers, &compact->half_time);
    compact_copy_wait_cancel(&compact->copy);
    bucket_wait_cancel(&compact->wait);
    jetstream_cancel(&compact->info);
    consumer_stop(&compact->reading);
    compact_purges_end(&compact->purges);
    raise_horizon_stop(&compact->raise);
    compact_forget_files(compact);
    compact_chunk_free(&compact->chunk);
    compact_chunk_free(&compact->filling);
    if (has_removed)
        local_copy_note_compacted(compact->store, compact->bucket_name, compact->raise.horizon);
    if (compact->opened != NULL)
        bucket_release(compact->opened);
}

static bool compact_is_unsent(const struct arena_task *task)
{
    return !ARENA_TASK_OWNER(task, struct compact, task)->has_changed;
}

static void cancel_compact(struct arena_task *task)
{
    compact_release(ARENA_TASK_OWNER(task, struct compact, task));
}

/*
 * If something stays before the end of what is done, the next compaction continues there, one marker after the other.
 * Otherwise it begins with the first message, and removes thousands with a purge.
 */
static void compact_note_progress(const struct compact *compact)
{
    bool something_stays = compact->purges.is_past_barrier || compact->barrier > 0;
    bool begins_anew = compact->error.code == ERROR_NONE || !something_stays;

    if (compact->plan.incarnation != 0)
        compact_progress_note(compact->store, compact->bucket_name, compact->plan.incarnation,
                              begins_anew ? 0 : compact->done_to);
}

static void compact_finish(struct compact *compact)
{
    struct error *error = &compact->error;
    uint64_t removed = compact->purges.removed;

    arena_end_task(&compact->task);
    compact_note_progress(compact);
    if (error->code == ERROR_DEADLINE_EXCEEDED)
        error_set(error, ERROR_DEADLINE_EXCEEDED,
                  "timed out after removing %" PRIu64 " delete markers; call again to continue", removed);
    error->outcome = compact->purges.has_removed ? ERROR_OUTCOME_UNKNOWN : ERROR_OUTCOME_NONE;
    error->key = NULL;
    error->has_revision = false;
    compact_release(compact);
    compact->done(compact->arg, removed, error->code != ERROR_NONE ? error : NULL);
}

/* Note an error; the first one counts. What is in flight ends by itself, at the deadline at the latest. */
static void compact_fail(struct compact *compact, const struct error *error)
{
    if (compact->error.code == ERROR_NONE)
        compact->error = *error;
    compact_purges_fail(&compact->purges, error);
}

static void compact_fail_out_of_memory(struct compact *compact)
{
    struct error error;

    error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    compact_fail(compact, &error);
}

static bool compact_is_wanted(void *arg)
{
    const struct compact *compact = arg;

    return compact->is_wanted == NULL || compact->is_wanted(compact->arg);
}

static bool compact_has_failed(const struct compact *compact)
{
    return compact->error.code != ERROR_NONE;
}

static bool compact_is_working(const struct compact *compact)
{
    return compact->step > COMPACT_READING;
}

/* The chunk is done, or there was an error. May end the call. */
static void compact_end_work(struct compact *compact, const struct error *error)
{
    if (error != NULL)
        compact_fail(compact, error);
    else if (!compact_has_failed(compact) && !compact->reading.scope.last_per_subject)
        compact->done_to = compact->chunk_to;
    compact->step = COMPACT_READING;
    compact_continue(compact);
}

/* --- Work on a chunk -------------------------------------------------------------------------------- */

static void on_chunk_purged(void *arg, const struct error *error)
{
    struct compact *compact = arg;

    if (error == NULL && compact_purges_have_more(&compact->purges))
        compact_check_stream(compact);
    else if (compact->step == COMPACT_CLEARING && error == NULL)
        compact_look_at_files(compact);
    else
        compact_end_work(compact, error);
}

static void compact_start_purges(struct compact *compact)
{
    compact->step = COMPACT_PURGING;
    compact_purges_start(&compact->purges, &compact->chunk, false, compact->barrier);
}

static void on_horizon_raised(void *arg, const struct error *error)
{
    struct compact *compact = arg;

    if (error != NULL) {
        compact_end_work(compact, error);
        return;
    }
    if (!compact_has_failed(compact))
        local_copy_note_removal(compact->store, compact->bucket_name, compact_chunk_last_removable(&compact->chunk));
    compact_start_purges(compact);
}

static void compact_raise_horizon(struct compact *compact)
{
    uint64_t revision = compact_chunk_last_removable(&compact->chunk);

    if (revision == 0) { /* all markers are retained */
        compact_end_work(compact, NULL);
        return;
    }
    compact->step = COMPACT_RAISING;
    compact->has_changed = true;
    raise_horizon_start(&compact->raise, revision);
}

static void on_files_looked(void *arg)
{
    struct compact *compact = arg;

    compact->files = NULL;
    compact_raise_horizon(compact);
}

static void compact_look_at_files(struct compact *compact)
{
    compact->step = COMPACT_LOOKING;
    compact->files =
        compact_files_start(compact->store, compact->opened->stream, &compact->chunk, on_files_looked, compact);
    if (compact->files != NULL)
        return;
    compact_fail_out_of_memory(compact);
    compact_end_work(compact, NULL);
}

/* Set up the parts that work on chunks, after the bucket was opened and the stream is about to be read. */
static void compact_set_up_work(struct compact *compact)
{
    const struct bucket *bucket = compact->opened;

    compact->connection = connection_number(compact->store->connection);
    compact->raise = (struct raise_horizon){.store = compact->store,
                                            .bucket = compact->bucket_name,
                                            .owner = compact->arena->owner,
                                            .connection = compact->connection,
                                            .deadline_ms = compact->deadline_ms,
                                            .done = on_horizon_raised,
                                            .arg = compact};
    compact->purges.store = compact->store;
    compact->purges.stream = bucket->stream;
    compact->purges.prefix = bucket->prefix;
    compact->purges.owner = compact->arena->owner;
    compact->purges.connection = compact->connection;
    compact->purges.deadline_ms = compact->deadline_ms;
    /* What is not read, or was read by an earlier compaction, may have values. */
    compact->purges.is_past_barrier = bucket->history > 1 || compact->plan.has_others || compact->read_to > 0;
    compact->purges.is_wanted = compact_is_wanted;
    compact->purges.done = on_chunk_purged;
    compact->purges.arg = compact;
}

static void compact_begin_work(struct compact *compact)
{
    if (compact->plan.is_in_files && compact->opened->history > 1) {
        compact->step = COMPACT_CLEARING;
        compact->has_changed = true;
        compact_purges_start(&compact->purges, &compact->chunk, true, compact->barrier);
    } else if (compact->plan.is_in_files) {
        compact_look_at_files(compact);
    } else {
        compact_raise_horizon(compact);
    }
}

static void on_stream_checked(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct compact *compact = arg;
    struct stream_info info;
    struct error other;

    (void)err_code;
    if (answer != NULL) {
        stream_info_read(&compact->store->jetstream, answer, &info);
        error_set(&other, ERROR_UNAVAILABLE, COMPACT_OTHER_STREAM);
        error = info.incarnation != compact->plan.incarnation ? &other : NULL;
    }
    if (error != NULL || compact_has_failed(compact))
        compact_end_work(compact, error);
    else if (compact->step == COMPACT_CHECKING)
        compact_begin_work(compact);
    else
        compact_purges_continue(&compact->purges);
}

/*
 * Check that the stream is the one whose markers were read: another client may have deleted and recreated it. In the
 * new one the markers' sequences are those of other messages.
 */
static void compact_check_stream(struct compact *compact)
{
    memset(&compact->info, 0, sizeof(compact->info));
    jetstream_call(&compact->store->jetstream, &compact->info, "STREAM.INFO", compact->opened->stream, NULL,
                   compact->deadline_ms, on_stream_checked, compact);
}

/* Work on the markers that were read: a full chunk, or the last one. */
static void compact_work_on_chunk(struct compact *compact)
{
    struct compact_chunk worked_on = compact->chunk;

    compact->chunk = compact->filling;
    compact->filling = worked_on;
    compact_chunk_clear(&compact->filling);
    compact->chunk_to = compact->read_to;
    compact->step = COMPACT_CHECKING;
    compact_check_stream(compact);
}

/* Begin the next step while no chunk is being worked on. May end the call. */
static void compact_continue(struct compact *compact)
{
    bool is_full = compact_chunk_is_full(&compact->filling);
    struct error error;

    if (!compact_is_wanted(compact)) {
        error_set(&error, ERROR_UNAVAILABLE, "the client has left, or has cancelled the call");
        compact_fail(compact, &error);
    }
    if (compact_has_failed(compact) || (!compact->is_reading && compact->filling.count == 0))
        compact_finish(compact);
    else if (!compact->is_reading || is_full)
        compact_work_on_chunk(compact);
    else
        consumer_continue(&compact->reading);
}

/* --- Reading ---------------------------------------------------------------------------------------- */

static void on_markers_restart(void *arg)
{
    struct compact *compact = arg;
    struct error error;

    error_set(&error, ERROR_UNAVAILABLE, COMPACT_OTHER_STREAM);
    if (compact->reading.incarnation != compact->plan.incarnation)
        compact_fail(compact, &error);
    if (compact->read_to > 0 && !compact->reading.scope.last_per_subject)
        compact->reading.scope.start_sequence = compact->read_to + 1;
}

static void compact_note_barrier(struct compact *compact, uint64_t sequence)
{
    if (compact->barrier == 0)
        compact->barrier = sequence;
}

static bool run_compact_going_on(struct job *job)
{
    struct compact *compact = (struct compact *)((char *)job - offsetof(struct compact, going_on));

    if (!compact_is_working(compact))
        compact_continue(compact);
    return false;
}

static enum consumer_verdict on_marker_message(void *arg, struct message *message, const struct kv_delivery *delivery)
{
    struct compact *compact = arg;
    struct kv_entry entry;

    if (compact_has_failed(compact) || delivery->stream_sequence > compact->plan.last ||
        delivery->created_us > compact->plan.cutoff_us)
        return CONSUMER_ENOUGH;
    compact->read_to = delivery->stream_sequence;
    bool is_entry = kv_read_entry(message, message->subject, compact->opened->prefix, delivery->stream_sequence,
                                  delivery->created_us, &entry);
    if (!is_entry || entry.operation == KV_PUT || strcmp(entry.key, KV_COMPACTED_KEY) == 0) {
        compact_note_barrier(compact, delivery->stream_sequence);
        return CONSUMER_MORE;
    }
    if (!compact_chunk_add(&compact->filling, &entry, message->subject)) {
        compact_fail_out_of_memory(compact);
        return CONSUMER_ENOUGH;
    }
    if (!compact_chunk_is_full(&compact->filling))
        return CONSUMER_MORE;
    if (!compact_is_working(compact)) /* not from within this callback: it may end the call */
        jobs_add(compact->store->jobs, &compact->going_on, run_compact_going_on);
    return CONSUMER_PAUSE;
}

static void on_markers_read(void *arg, const struct error *error)
{
    struct compact *compact = arg;

    compact->is_reading = false;
    if (error != NULL)
        compact_fail(compact, error);
    jobs_remove(compact->store->jobs, &compact->going_on);
    if (!compact_is_working(compact))
        compact_continue(compact);
}

static void on_compact_half_time(struct timer *timer);

static void compact_set_half_time(struct compact *compact)
{
    uint64_t now_ms = uv_now(compact->store->loop), half_ms = (compact->deadline_ms - now_ms) / 2;

    if (compact->deadline_ms > now_ms && half_ms >= HALF_TIME_MIN_MS)
        timer_start(compact->store->timers, &compact->half_time, now_ms + half_ms, on_compact_half_time);
}

/* Work on what was read, while the reading continues. Without a marker there is no work. May end the call. */
static void on_compact_half_time(struct timer *timer)
{
    struct compact *compact = (struct compact *)((char *)timer - offsetof(struct compact, half_time));

    compact_set_half_time(compact);
    if (compact_is_working(compact) || compact_has_failed(compact))
        return;
    if (compact->filling.count > 0)
        compact_work_on_chunk(compact);
    else if (!compact->reading.scope.last_per_subject)
        compact->done_to = compact->read_to;
}

static const struct consumer_ops compact_reading_ops = {on_markers_restart, on_marker_message, on_markers_read};

/* In a bucket with a history, only the last message of a key shows whether it is deleted. */
static void compact_start_reading(struct compact *compact)
{
    struct consumer_scope scope = {.stream = compact->opened->stream,
                                   .filters = &compact->subject,
                                   .filter_count = 1,
                                   .last_per_subject = compact->opened->history > 1,
                                   .headers_only = true,
                                   .leaves_place = true};

    compact->step = COMPACT_READING;
    compact->is_reading = true;
    compact_set_up_work(compact);
    compact_set_half_time(compact);
    compact->reading.request.limit = &compact->store->follow->creations;
    request_set_caller(&compact->reading.request, compact->arena);
    consumer_read(&compact->store->jetstream, &compact->reading, &scope, compact->deadline_ms, &compact_reading_ops,
                  compact);
}

/* --- Starting --------------------------------------------------------------------------------------- */

static void on_copy_has_markers(void *arg, uint64_t last)
{
    struct compact *compact = arg;

    compact->plan.last = last;
    compact_start_reading(compact);
}

static void on_compact_info(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct compact *compact = arg;
    struct compact_plan *plan = &compact->plan;
    struct error refusal;

    (void)err_code;
    if (answer != NULL && !compact_plan_read(compact->store, answer, compact->older_than_s, plan, &refusal))
        error = &refusal;
    if (error != NULL)
        compact_fail(compact, error);
    if (error != NULL || (compact->needs_marker_ttl && plan->marker_ttl_s == 0)) {
        compact_finish(compact);
        return;
    }
    if (compact->opened->history <= 1)
        compact->done_to = compact_progress_find(compact->store, compact->bucket_name, plan->incarnation);
    compact->read_to = compact->done_to;
    compact->copy = (struct compact_copy_wait){.store = compact->store,
                                               .bucket = compact->opened,
                                               .deadline_ms = compact->deadline_ms,
                                               .done = on_copy_has_markers,
                                               .arg = compact};
    compact_copy_wait_start(&compact->copy, plan->last);
}

static void on_compact_bucket(void *arg, struct bucket *bucket, const struct error *error)
{
    struct compact *compact = arg;
    char *subject = NULL;

    compact->opened = bucket;
    if (error == NULL) {
        subject = arena_alloc(compact->arena, strlen(bucket->prefix) + 2);
        if (subject == NULL)
            compact_fail_out_of_memory(compact);
        else
            strcpy(stpcpy(subject, bucket->prefix), ">");
    } else {
        compact_fail(compact, error);
    }
    if (compact_has_failed(compact)) {
        compact_finish(compact);
        return;
    }
    compact->subject = subject;
    jetstream_call(&compact->store->jetstream, &compact->info, "STREAM.INFO", bucket->stream, NULL,
                   compact->deadline_ms, on_compact_info, compact);
}

/* End the call. A look at the files may take longer: it is forgotten. */
static void on_compact_deadline(struct timer *timer)
{
    struct compact *compact = (struct compact *)((char *)timer - offsetof(struct compact, deadline));
    struct error error;

    error_set(&error, ERROR_DEADLINE_EXCEEDED, "no time is left");
    compact_fail(compact, &error);
    if (compact->files != NULL || compact->step == COMPACT_WAITING)
        compact_finish(compact);
}

static void on_compact_turn(struct turn *turn)
{
    struct compact *compact = (struct compact *)((char *)turn - offsetof(struct compact, turn));

    compact->step = COMPACT_OPENING;
    bucket_open(compact->store, &compact->wait, compact->bucket_name, compact->arena->owner, compact->deadline_ms,
                on_compact_bucket, compact);
}

/* Return the number of a session's compactions. The daemon itself has at most one of each bucket. */
static unsigned compact_count_of_owner(const struct store *store, uint64_t owner)
{
    const struct compact *compact;
    unsigned count = 0;

    DL_FOREACH2(store->compact->compactions, compact, next)
    {
        count += owner != 0 && compact->arena->owner == owner;
    }
    return count;
}

void compact_start(struct store *store, struct arena *arena, struct compact *compact)
{
    struct error error;

    compact->store = store;
    compact->arena = arena;
    compact->going_on.owner = arena->owner;
    if (compact_count_of_owner(store, arena->owner) >= COMPACTIONS_MAX) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED,
                  "the limit of %u compactions of this session is reached; try again when one is done",
                  COMPACTIONS_MAX);
        error.outcome = ERROR_OUTCOME_NONE;
        compact->done(compact->arg, 0, &error);
        return;
    }
    timer_start(store->timers, &compact->deadline, compact->deadline_ms, on_compact_deadline);
    DL_APPEND2(store->compact->compactions, compact, previous, next);
    arena_begin_task(arena, &compact->task, cancel_compact);
    compact->task.is_unsent = compact_is_unsent;
    turns_wait(&store->compact->turns, &compact->turn, arena->owner, on_compact_turn);
}

/* Send nothing more to the bucket. The call ends from the loop. */
static void compact_give_up(struct compact *compact)
{
    jetstream_cancel(&compact->info);
    compact_purges_cancel(&compact->purges);
    raise_horizon_stop(&compact->raise);
    compact_forget_files(compact);
    if (compact_is_working(compact))
        compact->step = COMPACT_READING;
    jobs_add(compact->store->jobs, &compact->going_on, run_compact_going_on);
}

void compact_note_change(struct store *store, const char *bucket)
{
    struct compact *compact;
    struct error error;

    error_set(&error, ERROR_UNAVAILABLE, "the bucket was changed during the compaction; call again to continue");
    DL_FOREACH2(store->compact->compactions, compact, next)
    {
        if (compact->step == COMPACT_WAITING || strcmp(compact->bucket_name, bucket) != 0)
            continue;
        compact_fail(compact, &error);
        compact_give_up(compact);
    }
}

/* A compaction that began during the change may have read either stream. */
static void compact_note_changed(struct store *store, const char *bucket, bool is_known)
{
    (void)is_known;
    compact_note_change(store, bucket);
}

static const struct observer_ops compact_observer_ops = {.marker = compact_schedule_note_delete,
                                                         .opened = compact_schedule_note_opened,
                                                         .begin_change = compact_note_change,
                                                         .end_change = compact_note_changed};

int compact_init_all(struct store *store)
{
    struct compact_state *state = calloc(1, sizeof(*state));

    store->compact = state;
    if (state == NULL)
        return -1;
    state->turns.jobs = store->jobs;
    state->turns.max = COMPACTIONS_MAX;
    state->purges.max = PURGES_MAX;
    state->observer.ops = &compact_observer_ops;
    observe_add(store, &state->observer);
    return 0;
}

void compact_free_all(struct store *store)
{
    turns_end(&store->compact->turns);
    compact_progress_forget_all(store);
    free(store->compact);
    store->compact = NULL;
}
