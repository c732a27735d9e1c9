#include "daemon/store/compact/schedule.h"

#include "daemon/base/log.h"
#include "daemon/base/table.h"
#include "daemon/store/compact/compact.h"
#include "daemon/store/compact/state.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The longest time between two compactions of a bucket. */
#define EVERY_MS (3600u * 1000u)

/* The time until a compaction that was not finished is begun again. */
#define AGAIN_MS 1000u

#define ARENA_CHUNK_BYTES 2048u

struct compact_schedule {
    UT_hash_handle hh; /* by the bucket's name */
    struct store *store;
    struct timer timer;
    uint64_t ttl_ms;     /* marker_ttl at the last deletion */
    uint64_t deleted_ms; /* loop time of the last deletion */
    struct arena arena;  /* of the compaction that is under way */
    bool has_arena;
    struct compact compact;
    char bucket[KV_BUCKET_LENGTH_MAX + 1];
};

static void on_time(struct timer *timer);

static uint64_t period_ms(const struct compact_schedule *schedule)
{
    return schedule->ttl_ms < EVERY_MS ? schedule->ttl_ms : EVERY_MS;
}

static void wait(struct compact_schedule *schedule, uint64_t after_ms)
{
    timer_start(schedule->store->timers, &schedule->timer, uv_now(schedule->store->loop) + after_ms, on_time);
}

static void end_compaction(struct compact_schedule *schedule)
{
    if (schedule->has_arena)
        arena_destroy(&schedule->arena);
    schedule->has_arena = false;
}

static void drop(struct compact_schedule *schedule)
{
    HASH_DEL(schedule->store->compact->schedules, schedule);
    timer_stop(schedule->store->timers, &schedule->timer);
    end_compaction(schedule);
    free(schedule);
}

/* There was not enough time, or memory, or other compactions are under way. */
static bool is_unfinished(const struct error *error)
{
    return error != NULL && (error->code == ERROR_DEADLINE_EXCEEDED || error->code == ERROR_RESOURCE_EXHAUSTED);
}

/* There is nothing more to remove: the last marker was old enough, or the bucket cannot be compacted any more. */
static bool is_done(const struct compact_schedule *schedule, const struct error *error)
{
    if (error != NULL)
        return error->code == ERROR_BUCKET_NOT_FOUND || error->code == ERROR_UNSUPPORTED;
    return uv_now(schedule->store->loop) - schedule->deleted_ms >= schedule->ttl_ms + period_ms(schedule);
}

static void on_compacted(void *arg, uint64_t removed, const struct error *error)
{
    struct compact_schedule *schedule = arg;

    if (removed > 0)
        log_info("bucket %s: %" PRIu64 " delete markers older than marker_ttl (%" PRIu64 " s) were removed",
                 schedule->bucket, removed, schedule->ttl_ms / 1000);
    if (error != NULL && !is_unfinished(error) && !is_done(schedule, error))
        log_info("bucket %s: old delete markers could not be removed: %s; trying again in %" PRIu64 " s",
                 schedule->bucket, error->message, period_ms(schedule) / 1000);
    if (is_done(schedule, error))
        schedule->deleted_ms = 0;
    wait(schedule, is_unfinished(error) ? AGAIN_MS : period_ms(schedule));
}

static void on_time(struct timer *timer)
{
    struct compact_schedule *schedule =
        (struct compact_schedule *)((char *)timer - offsetof(struct compact_schedule, timer));
    struct store *store = schedule->store;

    end_compaction(schedule);
    if (schedule->deleted_ms == 0) { /* nothing was deleted since all was done */
        drop(schedule);
        return;
    }
    schedule->has_arena = arena_init(&schedule->arena, ARENA_CHUNK_BYTES);
    if (!schedule->has_arena) {
        wait(schedule, period_ms(schedule));
        return;
    }
    schedule->compact = (struct compact){.bucket = schedule->bucket,
                                         .older_than_s = -1,
                                         .needs_marker_ttl = true,
                                         .deadline_ms = uv_now(store->loop) + store->conf->calls.max_timeout_ms,
                                         .done = on_compacted,
                                         .arg = schedule};
    compact_start(store, &schedule->arena, &schedule->compact);
}

void compact_schedule_note_delete(struct store *store, const char *bucket, int64_t marker_ttl_s)
{
    struct compact_schedule *schedule = NULL;

    if (marker_ttl_s == 0 || store->compact->is_ending)
        return;
    if (store->compact->schedules != NULL)
        HASH_FIND_STR(store->compact->schedules, bucket, schedule);
    if (schedule == NULL) {
        schedule = calloc(1, sizeof(*schedule));
        if (schedule == NULL)
            return; /* the next deletion may find memory */
        schedule->store = store;
        strcpy(schedule->bucket, bucket);
        HASH_ADD_STR(store->compact->schedules, bucket, schedule);
    }
    schedule->ttl_ms = (uint64_t)marker_ttl_s * 1000;
    schedule->deleted_ms = uv_now(store->loop);
    if (!timer_is_set(&schedule->timer) && !schedule->has_arena)
        wait(schedule, period_ms(schedule));
}

void compact_schedule_end_all(struct store *store)
{
    store->compact->is_ending = true;
    while (store->compact->schedules != NULL)
        drop(store->compact->schedules);
}
