#include "daemon/store/compact/schedule.h"

#include "daemon/base/backoff.h"
#include "daemon/base/log.h"
#include "daemon/base/table.h"
#include "daemon/store/compact/compact.h"
#include "daemon/store/compact/state.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The longest time between two compactions of a bucket. */
#define PERIOD_MAX_MS (3600u * 1000u)

/* The time until a compaction that was not finished is begun again. It doubles while nothing was removed. */
#define RETRY_MS 1000u

/* Buckets whose first use is noted. Further ones get a schedule at their next deletion. */
#define OPENED_MAX 10000u

#define ARENA_CHUNK_BYTES 2048u

/* What the markers are known from. */
enum compact_cause {
    COMPACT_NOTHING_DELETED, /* all was done, and nothing was deleted since */
    COMPACT_FIRST_USE,       /* there may be markers from before the daemon's start, and there are none since */
    COMPACT_DELETION
};

struct compact_schedule {
    UT_hash_handle hh; /* by the bucket's name */
    struct store *store;
    struct timer timer;
    enum compact_cause cause;
    uint64_t ttl_ms;    /* marker_ttl at the last deletion */
    uint64_t since_ms;  /* loop time of the last deletion, or of the first use */
    unsigned vain;      /* compactions in a row that were not finished, and removed nothing */
    struct arena arena; /* has the last compaction */
    bool has_arena;
    bool is_compacting;
    char bucket[KV_BUCKET_LENGTH_MAX + 1];
};

/* A bucket with a marker_ttl that was used since the daemon's start. */
struct compact_opened {
    UT_hash_handle hh;
    char bucket[];
};

static void on_compact_time(struct timer *timer);

/* Without deletions, compactions that find nothing are avoided: the second one follows when all markers are old. */
static uint64_t compact_schedule_period_ms(const struct compact_schedule *schedule)
{
    if (schedule->cause == COMPACT_FIRST_USE || schedule->ttl_ms < PERIOD_MAX_MS)
        return schedule->ttl_ms;
    return PERIOD_MAX_MS;
}

static void compact_schedule_wait(struct compact_schedule *schedule, uint64_t after_ms)
{
    timer_start(schedule->store->timers, &schedule->timer, uv_now(schedule->store->loop) + after_ms, on_compact_time);
}

/* Do not wait longer than this: marker_ttl may have been lowered. */
static void compact_schedule_wait_at_most(struct compact_schedule *schedule, uint64_t after_ms)
{
    if (!timer_is_set(&schedule->timer) || schedule->timer.expires_ms > uv_now(schedule->store->loop) + after_ms)
        compact_schedule_wait(schedule, after_ms);
}

static void compact_schedule_end_compaction(struct compact_schedule *schedule)
{
    if (schedule->has_arena)
        arena_destroy(&schedule->arena);
    schedule->has_arena = false;
    schedule->is_compacting = false;
}

static void compact_schedule_drop(struct compact_schedule *schedule)
{
    HASH_DEL(schedule->store->compact->schedules, schedule);
    timer_stop(schedule->store->timers, &schedule->timer);
    compact_schedule_end_compaction(schedule);
    free(schedule);
}

/* There was not enough time, or memory, or other compactions are in progress. */
static bool compact_is_unfinished(const struct error *error)
{
    return error != NULL && (error->code == ERROR_DEADLINE_EXCEEDED || error->code == ERROR_RESOURCE_EXHAUSTED);
}

/* There is nothing more to remove: the last marker was old enough, or the bucket can no longer be compacted. */
static bool compact_schedule_is_done(const struct compact_schedule *schedule, const struct error *error)
{
    uint64_t age_ms = uv_now(schedule->store->loop) - schedule->since_ms;

    if (error != NULL)
        return error->code == ERROR_BUCKET_NOT_FOUND || error->code == ERROR_UNSUPPORTED;
    if (schedule->cause == COMPACT_FIRST_USE)
        return age_ms >= schedule->ttl_ms;
    return age_ms >= schedule->ttl_ms + compact_schedule_period_ms(schedule);
}

static void on_schedule_compacted(void *arg, uint64_t removed, const struct error *error)
{
    struct compact_schedule *schedule = arg;
    uint64_t period_ms = compact_schedule_period_ms(schedule);
    bool is_done = compact_schedule_is_done(schedule, error), is_unfinished = compact_is_unfinished(error);

    schedule->is_compacting = false;
    schedule->vain = is_unfinished && removed == 0 ? schedule->vain + 1 : 0;
    uint64_t after_ms = is_unfinished ? backoff_bound_ms(schedule->vain + 1, RETRY_MS, period_ms) : period_ms;

    if (removed > 0)
        log_info("bucket %s: %" PRIu64 " delete markers older than marker_ttl (%" PRIu64 " s) were removed",
                 schedule->bucket, removed, schedule->ttl_ms / 1000);
    if (error != NULL && !is_done && (!is_unfinished || removed == 0))
        log_info("bucket %s: removing old delete markers failed: %s; trying again in %" PRIu64 " s", schedule->bucket,
                 error->message, after_ms / 1000);
    if (is_done)
        schedule->cause = COMPACT_NOTHING_DELETED;
    compact_schedule_wait(schedule, after_ms);
}

static void on_compact_time(struct timer *timer)
{
    struct compact_schedule *schedule =
        (struct compact_schedule *)((char *)timer - offsetof(struct compact_schedule, timer));
    struct store *store = schedule->store;

    compact_schedule_end_compaction(schedule);
    if (schedule->cause == COMPACT_NOTHING_DELETED) {
        compact_schedule_drop(schedule);
        return;
    }
    schedule->has_arena = arena_init(&schedule->arena, ARENA_CHUNK_BYTES);
    struct compact *compact = schedule->has_arena ? arena_zalloc(&schedule->arena, sizeof(*compact)) : NULL;
    if (compact == NULL) {
        compact_schedule_end_compaction(schedule);
        compact_schedule_wait(schedule, compact_schedule_period_ms(schedule));
        return;
    }
    *compact = (struct compact){.bucket_name = schedule->bucket,
                                .older_than_s = -1,
                                .needs_marker_ttl = true,
                                .deadline_ms = uv_now(store->loop) + store->conf->calls.max_timeout_ms,
                                .done = on_schedule_compacted,
                                .arg = schedule};
    schedule->is_compacting = true;
    compact_start(store, &schedule->arena, compact);
}

static struct compact_schedule *compact_schedule_find(const struct store *store, const char *bucket)
{
    struct compact_schedule *schedule = NULL;

    if (store->compact->schedules != NULL)
        HASH_FIND_STR(store->compact->schedules, bucket, schedule);
    return schedule;
}

static struct compact_schedule *compact_schedule_add(struct store *store, const char *bucket)
{
    struct compact_schedule *schedule = calloc(1, sizeof(*schedule));

    if (schedule == NULL)
        return NULL;
    schedule->store = store;
    strcpy(schedule->bucket, bucket);
    HASH_ADD_STR(store->compact->schedules, bucket, schedule);
    return schedule;
}

static void compact_schedule_set(struct compact_schedule *schedule, enum compact_cause cause, int64_t marker_ttl_s)
{
    schedule->cause = cause;
    schedule->ttl_ms = (uint64_t)marker_ttl_s * 1000;
    schedule->since_ms = uv_now(schedule->store->loop);
}

void compact_schedule_note_delete(struct store *store, const char *bucket, int64_t marker_ttl_s)
{
    struct compact_schedule *schedule;

    if (marker_ttl_s == 0 || store->compact->is_ending)
        return;
    schedule = compact_schedule_find(store, bucket);
    if (schedule == NULL)
        schedule = compact_schedule_add(store, bucket);
    if (schedule == NULL)
        return; /* the next deletion may find memory */
    compact_schedule_set(schedule, COMPACT_DELETION, marker_ttl_s);
    if (!schedule->is_compacting)
        compact_schedule_wait_at_most(schedule, compact_schedule_period_ms(schedule));
}

/* Note that the bucket was used. Return whether this is the first time since the daemon's start. */
static bool compact_note_first_use(struct compact_state *state, const char *bucket)
{
    size_t bytes = strlen(bucket) + 1;
    struct compact_opened *opened = NULL;

    if (state->opened != NULL)
        HASH_FIND_STR(state->opened, bucket, opened);
    if (opened != NULL || HASH_COUNT(state->opened) >= OPENED_MAX)
        return false;
    opened = malloc(sizeof(*opened) + bytes);
    if (opened == NULL)
        return false;
    memcpy(opened->bucket, bucket, bytes);
    HASH_ADD_STR(state->opened, bucket, opened);
    return true;
}

void compact_schedule_note_opened(struct store *store, const char *bucket, int64_t marker_ttl_s)
{
    if (marker_ttl_s == 0 || store->compact->is_ending || store->conf->nats.mode != CONF_NATS_EMBEDDED ||
        !compact_note_first_use(store->compact, bucket) || compact_schedule_find(store, bucket) != NULL)
        return;
    struct compact_schedule *schedule = compact_schedule_add(store, bucket);
    if (schedule == NULL)
        return;
    compact_schedule_set(schedule, COMPACT_FIRST_USE, marker_ttl_s);
    /* After a restart many buckets may be used for the first time at once: spread their compactions. */
    uint64_t first_ms = schedule->ttl_ms < PERIOD_MAX_MS ? schedule->ttl_ms : PERIOD_MAX_MS;
    compact_schedule_wait(schedule, first_ms + backoff_ms(1, first_ms, first_ms));
}

static void compact_forget_opened(struct compact_state *state)
{
    struct compact_opened *opened, *next;

    HASH_ITER(hh, state->opened, opened, next)
    {
        HASH_DEL(state->opened, opened);
        free(opened);
    }
}

void compact_schedule_end_all(struct store *store)
{
    store->compact->is_ending = true;
    while (store->compact->schedules != NULL)
        compact_schedule_drop(store->compact->schedules);
    compact_forget_opened(store->compact);
}
