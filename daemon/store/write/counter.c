#include "daemon/store/write/counter.h"

#include "daemon/base/backoff.h"
#include "daemon/base/clock.h"
#include "daemon/base/table.h"
#include "daemon/store/observe.h"
#include "daemon/store/read/get.h"
#include "daemon/store/write/counter_value.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Increments in one write. Their answers take about a millisecond of the loop's time. */
#define COMBINED_MAX 512u
/* Increments that are looked at for one write: those with another TTL are left out. */
#define EXAMINED_MAX 4096u

/* After a conflict, the increments are tried again at once this number of times, then with a backoff. */
#define CONFLICTS_AT_ONCE 4u

/* Counters without increments that are kept for their next one, which then needs no read. */
#define IDLE_MAX 256u

#define COUNTER_CHUNK_BYTES 2048u

enum counter_state {
    COUNTER_DECIDING, /* about its next step */
    COUNTER_IDLE,     /* nobody waits */
    COUNTER_QUEUED,   /* it continues with the job */
    COUNTER_READING,
    COUNTER_WRITING,
    COUNTER_PAUSED /* after conflicts */
};

/* One key that is incremented. */
struct counter {
    UT_hash_handle hh;               /* by name */
    struct counter *next, *previous; /* in the list of those that are queued, or of those that are idle */
    struct store *store;
    enum counter_state state;
    struct fair_queue waiting;
    struct increment *lists[INCREMENT_PLACES]; /* of those that neither wait nor are outside, by their place */
    uint64_t latest_deadline_ms;               /* of those that have waited */

    struct counter_value value;
    /* It was read after the increments below this number had come: it may be the reason to refuse them. */
    uint64_t read_for;
    uint64_t next_number;

    unsigned conflicts; /* in a row */
    struct timer pause;
    bool has_arena;
    struct arena arena; /* of the read or write in progress */
    struct get get;
    struct write write;
    char text[24]; /* the value that is being written */
    int64_t new_number, new_expires_us;
    const char *bucket_name, *key; /* in name, and after it */
    size_t name_bytes;
    char name[]; /* the bucket and the key, with a NUL each */
};

struct counters {
    struct counter *by_name;       /* uthash */
    struct counter *queued, *idle; /* lists, the oldest first */
    size_t idle_count;
    struct job continuing;
    struct counter_stats stats;
};

/* --- Lists of increments --------------------------------------------------------------------------- */

static void counter_move(struct increment *increment, enum increment_place place)
{
    struct counter *counter = increment->counter;
    bool was_written = increment->place == INCREMENT_WRITTEN, is_written = place == INCREMENT_WRITTEN;

    if (increment->place == INCREMENT_WAITING)
        fair_queue_remove(&increment->turn);
    else if (increment->place != INCREMENT_OUTSIDE)
        DL_DELETE2(counter->lists[increment->place], increment, previous, next);
    if (was_written)
        arena_note_answered(increment->modify.arena, uv_now(counter->store->loop));
    increment->place = place;
    if (place == INCREMENT_OUTSIDE)
        timer_stop(counter->store->timers, &increment->timer);
    else if (place != INCREMENT_WAITING)
        DL_APPEND2(counter->lists[place], increment, previous, next);
    if (is_written)
        arena_note_sent(increment->modify.arena, uv_now(counter->store->loop));
}

/* Let those of a place wait again, before those that wait and in their order. */
static void counter_take_back(struct counter *counter, enum increment_place place)
{
    while (counter->lists[place] != NULL) {
        struct increment *last = counter->lists[place]->previous; /* utlist: the head's is the tail */
        counter_move(last, INCREMENT_WAITING);
        fair_queue_put_back(&counter->waiting, &last->turn, last->modify.arena->owner);
    }
}

/* Return the increment whose turn it is; NULL: none waits. */
static struct increment *counter_first_waiting(const struct counter *counter)
{
    struct fair_queue_entry *first = fair_queue_first(&counter->waiting);

    return first != NULL ? (struct increment *)((char *)first - offsetof(struct increment, turn)) : NULL;
}

static void counter_finish_one(struct increment *increment, uint64_t revision, const struct error *error)
{
    int64_t value = increment->value;

    counter_move(increment, INCREMENT_OUTSIDE);
    modify_finish(&increment->modify, revision, value, error);
}

/* End all of a place; the callbacks may remove others from it. */
static void counter_finish_all(struct counter *counter, enum increment_place place, uint64_t revision,
                               const struct error *error)
{
    while (counter->lists[place] != NULL)
        counter_finish_one(counter->lists[place], revision, error);
}

/* --- Counters -------------------------------------------------------------------------------------- */

static void counter_leave_list(struct counter *counter)
{
    struct counters *all = counter->store->counters;

    if (counter->state == COUNTER_QUEUED)
        DL_DELETE2(all->queued, counter, previous, next);
    if (counter->state == COUNTER_IDLE) {
        DL_DELETE2(all->idle, counter, previous, next);
        all->idle_count--;
    }
}

static void counter_end_arena(struct counter *counter)
{
    if (!counter->has_arena)
        return;
    counter->has_arena = false;
    arena_destroy(&counter->arena);
}

/* Free a counter that is in no list. */
static void counter_free(struct counter *counter)
{
    assert(counter_first_waiting(counter) == NULL && counter->lists[INCREMENT_WRITTEN] == NULL);
    counter_end_arena(counter);
    timer_stop(counter->store->timers, &counter->pause);
    HASH_DEL(counter->store->counters->by_name, counter);
    free(counter);
}

static void counter_become_idle(struct counter *counter)
{
    struct counters *all = counter->store->counters;

    counter->state = COUNTER_IDLE;
    counter->latest_deadline_ms = 0;
    DL_APPEND2(all->idle, counter, previous, next);
    if (++all->idle_count <= IDLE_MAX)
        return;
    struct counter *oldest = all->idle;
    counter_leave_list(oldest);
    counter_free(oldest);
}

static bool counters_run(struct job *job);

static void counter_queue(struct counter *counter)
{
    struct counters *all = counter->store->counters;

    timer_stop(counter->store->timers, &counter->pause);
    counter->state = COUNTER_QUEUED;
    DL_APPEND2(all->queued, counter, previous, next);
    jobs_add_shared(counter->store->jobs, &all->continuing, counters_run);
}

struct counter *counter_obtain(struct store *store, struct arena *arena, const char *bucket_name, const char *key)
{
    struct counters *all = store->counters;
    size_t bucket_bytes = strlen(bucket_name) + 1, key_bytes = strlen(key) + 1;
    struct counter *counter, *known = NULL;

    counter = calloc(1, sizeof(*counter) + bucket_bytes + key_bytes);
    if (counter == NULL)
        return NULL;
    memcpy(counter->name, bucket_name, bucket_bytes);
    memcpy(counter->name + bucket_bytes, key, key_bytes);
    counter->name_bytes = bucket_bytes + key_bytes;
    HASH_FIND(hh, all->by_name, counter->name, counter->name_bytes, known);
    if (known != NULL) {
        free(counter);
        return known;
    }
    counter->store = store;
    counter->bucket_name = counter->name;
    counter->key = counter->name + bucket_bytes;
    HASH_ADD(hh, all->by_name, name, counter->name_bytes, counter);
    counter_become_idle(counter);
    arena_charge(arena, sizeof(*counter) + counter->name_bytes + COUNTER_CHUNK_BYTES);
    return counter;
}

/* --- Reading --------------------------------------------------------------------------------------- */

/* End those that wait with an error, up to a turn's number. Those with a later deadline continue. */
static void counter_refuse_waiting(struct counter *counter, uint64_t deadline_ms, const struct error *error)
{
    struct increment *increment;
    unsigned examined = 0, refused = 0;

    while (refused < COMBINED_MAX && examined++ < EXAMINED_MAX &&
           (increment = counter_first_waiting(counter)) != NULL) {
        bool is_refused = increment->modify.deadline_ms <= deadline_ms;
        counter_move(increment, is_refused ? INCREMENT_REFUSED : INCREMENT_LEFT);
        refused += is_refused;
    }
    counter_take_back(counter, INCREMENT_LEFT);
    counter_finish_all(counter, INCREMENT_REFUSED, 0, error);
}

/* Begin something in an arena of its own, for the session whose turn it is. */
static bool counter_begin_arena(struct counter *counter)
{
    struct error error;

    counter_end_arena(counter);
    counter->has_arena = arena_init(&counter->arena, COUNTER_CHUNK_BYTES);
    if (!counter->has_arena) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        counter_refuse_waiting(counter, UINT64_MAX, &error);
        counter_queue(counter);
        return false;
    }
    const struct arena *first = counter_first_waiting(counter)->modify.arena;
    counter->arena.owner = first->owner;
    counter->arena.call_id = first->call_id;
    return true;
}

static void on_counter_read(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct counter *counter = arg;

    if (error != NULL) {
        struct error copy = *error;
        counter->value.kind = COUNTER_VALUE_UNKNOWN;
        counter_refuse_waiting(counter, copy.retryable ? counter->get.deadline_ms : UINT64_MAX, &copy);
        counter_queue(counter);
        return;
    }
    counter_value_read(&counter->value, counter->store, counter->bucket_name, entry);
    counter_queue(counter);
}

static void counter_read(struct counter *counter)
{
    counter->read_for = counter->next_number;
    memset(&counter->get, 0, sizeof(counter->get));
    counter->state = COUNTER_READING;
    counter->get.bucket_name = counter->bucket_name;
    counter->get.key = counter->key;
    counter->get.consistency = READ_DIRECT;
    counter->get.must_be_current = true;
    counter->get.with_markers = true;
    counter->get.deadline_ms = counter->latest_deadline_ms;
    counter->get.done = on_counter_read;
    counter->get.arg = counter;
    get_start(counter->store, &counter->arena, &counter->get);
}

/* --- Writing --------------------------------------------------------------------------------------- */

static int64_t counter_ttl_of(const struct counter *counter, const struct increment *increment)
{
    return increment->keep_ttl && counter->value.expires_us > 0 ? 0 : increment->ttl_s;
}

/*
 * Return the place of an increment, after those that are written already. LEFT: it waits for the next write. An
 * overflow after others is judged when they are stored.
 */
static enum increment_place counter_judge(struct counter *counter, struct increment *increment)
{
    const struct increment *first = counter->lists[INCREMENT_WRITTEN];
    const struct increment *last = first != NULL ? first->previous : NULL; /* the head's previous one is the tail */
    int64_t present = counter->value.kind == COUNTER_VALUE_ABSENT ? increment->initial : counter->value.number;
    int64_t before = last != NULL ? last->value : present;

    if (!modify_may_write_at(&increment->modify, counter->value.revision))
        return INCREMENT_CHECKED;
    if (counter->value.kind == COUNTER_VALUE_TEXT)
        return INCREMENT_REFUSED;
    if (first != NULL && counter_ttl_of(counter, increment) != counter_ttl_of(counter, first))
        return INCREMENT_LEFT;
    if (!__builtin_add_overflow(before, increment->delta, &increment->value))
        return INCREMENT_WRITTEN;
    return first != NULL ? INCREMENT_LEFT : INCREMENT_REFUSED;
}

/*
 * Choose increments for the next write, in the order of their turns. Return whether a value that was not read would
 * refuse one: then it must be read first.
 */
static bool counter_choose(struct counter *counter)
{
    struct increment *increment;
    unsigned examined = 0, taken = 0;
    bool must_read = false;

    while (taken < COMBINED_MAX && examined++ < EXAMINED_MAX && (increment = counter_first_waiting(counter)) != NULL) {
        enum increment_place place = counter_judge(counter, increment);
        must_read = place == INCREMENT_REFUSED && increment->number >= counter->read_for;
        if (must_read)
            break;
        counter_move(increment, place);
        taken += place == INCREMENT_WRITTEN;
    }
    counter_take_back(counter, INCREMENT_LEFT);
    return must_read;
}

static void on_counter_pause_over(struct timer *timer)
{
    counter_queue((struct counter *)((char *)timer - offsetof(struct counter, pause)));
}

/* Somebody else has written to the key: nothing is stored. */
static void counter_note_conflict(struct counter *counter)
{
    const struct conf *conf = counter->store->conf;

    counter->store->counters->stats.conflicts++;
    counter->value.kind = COUNTER_VALUE_UNKNOWN;
    counter_take_back(counter, INCREMENT_WRITTEN);
    if (++counter->conflicts <= CONFLICTS_AT_ONCE) {
        counter_queue(counter);
        return;
    }
    counter->state = COUNTER_PAUSED;
    timer_start(counter->store->timers, &counter->pause,
                uv_now(counter->store->loop) + backoff_ms(counter->conflicts - CONFLICTS_AT_ONCE,
                                                          conf->calls.retry_min_ms, conf->calls.retry_max_ms),
                on_counter_pause_over);
}

static void on_counter_written(void *arg, uint64_t revision, const struct error *error)
{
    struct counter *counter = arg;

    if (error != NULL && error->code == ERROR_CONFLICT && error->outcome != ERROR_OUTCOME_UNKNOWN) {
        counter_note_conflict(counter);
        return;
    }
    counter->conflicts = 0;
    if (error != NULL) {
        struct error copy = *error;
        counter->value.kind = COUNTER_VALUE_UNKNOWN;
        counter_finish_all(counter, INCREMENT_WRITTEN, 0, &copy);
    } else {
        counter_value_write(&counter->value, counter->store, counter->bucket_name, counter->new_number, revision,
                            counter->new_expires_us);
        counter_finish_all(counter, INCREMENT_WRITTEN, revision, NULL);
    }
    counter_queue(counter);
}

static void counter_note_sent(struct write *write, const struct journal_copy *copy)
{
    struct counter *counter = (struct counter *)((char *)write - offsetof(struct counter, write));
    struct increment *increment;

    DL_FOREACH2(counter->lists[INCREMENT_WRITTEN], increment, next)
    {
        modify_note_sent(&increment->modify, copy, increment->value);
    }
}

static void counter_set_ttl(struct counter *counter, struct operation *operation)
{
    int64_t ttl_s = counter_ttl_of(counter, counter->lists[INCREMENT_WRITTEN]);

    if (ttl_s == 0) {
        operation_keep_ttl(operation, counter->value.expires_us);
        counter->new_expires_us = operation->expires_us;
    } else {
        operation->ttl_s = ttl_s;
        counter->new_expires_us = clock_epoch_us() + ttl_s * 1000000;
    }
}

/* Write the sum of those that were chosen. */
static void counter_write(struct counter *counter)
{
    struct write *write = &counter->write;
    struct counters *all = counter->store->counters;
    struct increment *increment;

    memset(write, 0, sizeof(*write));
    counter->new_number = counter->lists[INCREMENT_WRITTEN]->previous->value;
    write->bucket_name = counter->bucket_name;
    write->operation.key = counter->key;
    write->operation.kind = KV_PUT;
    write->operation.condition = OPERATION_IF_AT_REVISION;
    write->operation.revision = counter->value.revision;
    write->operation.value = counter->text;
    write->operation.value_bytes =
        (size_t)snprintf(counter->text, sizeof(counter->text), "%" PRId64, counter->new_number);
    counter_set_ttl(counter, &write->operation);
    DL_FOREACH2(counter->lists[INCREMENT_WRITTEN], increment, next)
    {
        if (increment->modify.deadline_ms > write->deadline_ms)
            write->deadline_ms = increment->modify.deadline_ms;
        write->is_remembered = write->is_remembered || increment->modify.journal.place != 0;
        all->stats.increments++;
    }
    all->stats.writes++;
    write->note_sent = counter_note_sent;
    write->ends_if_refused = true;
    write->done = on_counter_written;
    write->arg = counter;
    counter->state = COUNTER_WRITING;
    write_start(counter->store, &counter->arena, write);
}

/* End those that were refused, and let those check that must. The callbacks may remove others. */
static void counter_end_refused(struct counter *counter, const struct error *error)
{
    counter_finish_all(counter, INCREMENT_REFUSED, 0, error);
    while (counter->lists[INCREMENT_CHECKED] != NULL) {
        struct increment *increment = counter->lists[INCREMENT_CHECKED];
        counter_move(increment, INCREMENT_OUTSIDE);
        modify_check(&increment->modify);
    }
}

static bool on_counter_found(void *arg, const struct kv_entry *entry)
{
    struct counter *counter = arg;

    counter_value_read(&counter->value, counter->store, counter->bucket_name, entry);
    return counter_value_is_usable(&counter->value, counter->store, counter->bucket_name);
}

/* Return whether the next write may be based on the value that is known, or that memory has. */
static bool counter_knows_value(struct counter *counter)
{
    return counter_value_is_usable(&counter->value, counter->store, counter->bucket_name) ||
           (counter->conflicts == 0 && counter_first_waiting(counter) != NULL &&
            observe_find(counter->store, counter->bucket_name, counter->key, on_counter_found, counter));
}

/* Take the next step for those that wait. */
static void counter_continue(struct counter *counter)
{
    struct error refusal;

    counter_leave_list(counter);
    counter->state = COUNTER_DECIDING;
    if (counter_first_waiting(counter) != NULL && !counter_begin_arena(counter))
        return;
    bool is_known = counter_knows_value(counter);
    bool must_read = counter_first_waiting(counter) != NULL && (!is_known || counter_choose(counter));
    counter->read_for = 0;
    counter_value_set_refusal(&counter->value, &refusal);
    if (must_read)
        counter_read(counter);
    else if (counter->lists[INCREMENT_WRITTEN] != NULL)
        counter_write(counter);
    counter_end_refused(counter, &refusal);
    if (counter->state != COUNTER_DECIDING)
        return;
    if (counter_first_waiting(counter) != NULL) {
        counter_queue(counter);
        return;
    }
    counter_end_arena(counter);
    counter_become_idle(counter);
}

static bool counters_run(struct job *job)
{
    struct counters *all = (struct counters *)((char *)job - offsetof(struct counters, continuing));

    while (all->queued != NULL) {
        struct store *store = all->queued->store;
        counter_continue(all->queued);
        if (jobs_slice_is_over(store->jobs))
            break;
    }
    return all->queued != NULL;
}

/* --- Joining and leaving --------------------------------------------------------------------------- */

/* Return whether the write of the counter was not sent yet: then it can be made again without an increment. */
static bool counter_write_is_unsent(const struct counter *counter)
{
    return counter->state == COUNTER_WRITING && arena_is_unsent(&counter->arena);
}

bool counter_leave(struct increment *increment)
{
    struct counter *counter = increment->counter;
    bool is_sent = increment->place == INCREMENT_WRITTEN;

    if (increment->place == INCREMENT_OUTSIDE)
        return false;
    if (is_sent && counter_write_is_unsent(counter)) {
        counter_end_arena(counter);
        counter_take_back(counter, INCREMENT_WRITTEN);
        counter_queue(counter);
        is_sent = false;
    }
    counter_move(increment, INCREMENT_OUTSIDE);
    return is_sent;
}

void counter_join(struct counter *counter, struct increment *increment)
{
    uint64_t deadline_ms = increment->modify.deadline_ms;

    increment->counter = counter;
    increment->number = counter->next_number++;
    increment->place = INCREMENT_WAITING;
    fair_queue_append(&counter->waiting, &increment->turn, increment->modify.arena->owner);
    if (deadline_ms > counter->latest_deadline_ms)
        counter->latest_deadline_ms = deadline_ms;
    if (counter->state == COUNTER_IDLE) {
        counter_leave_list(counter);
        counter_queue(counter);
    }
}

bool counter_may_have_sent(const struct increment *increment)
{
    return increment->place == INCREMENT_WRITTEN && !counter_write_is_unsent(increment->counter);
}

/* --- For the facade -------------------------------------------------------------------------------- */

int counter_init_all(struct store *store)
{
    store->counters = calloc(1, sizeof(*store->counters));
    return store->counters != NULL ? 0 : -1;
}

void counter_flush_all(struct store *store)
{
    while (store->counters->queued != NULL)
        counter_continue(store->counters->queued);
}

void counter_free_all(struct store *store)
{
    struct counters *all = store->counters;

    jobs_remove(store->jobs, &all->continuing);
    while (all->idle != NULL) {
        struct counter *counter = all->idle;
        counter_leave_list(counter);
        counter_free(counter);
    }
    free(all);
    store->counters = NULL;
}

const struct counter_stats *counter_statistics(const struct store *store)
{
    return &store->counters->stats;
}
