#include "daemon/store/follow/watch_cut.h"

#include "daemon/store/follow/changes.h"
#include "daemon/store/follow/local_copy.h"
#include "daemon/store/follow/state.h"
#include "daemon/store/follow/watch.h"

/* Pauses between questions. The longest one is after an error, or while the copy is checked. */
#define PAUSE_FIRST_MS 1u
#define PAUSE_LAST_MS  16u
#define PAUSE_ERROR_MS 250u

/* The feed should reach the leader's last sequence at once. If the last messages are gone, a new question says so. */
#define REACH_MS 1000u

static void watch_cut_ask(struct watch *watch);

static struct watch *watch_of_cut(struct watch_cut *cut)
{
    return (struct watch *)((char *)cut - offsetof(struct watch, cut));
}

static void on_cut_timer(struct timer *timer)
{
    watch_cut_ask(watch_of_cut((struct watch_cut *)((char *)timer - offsetof(struct watch_cut, timer))));
}

static void watch_cut_wait(struct watch *watch, enum watch_cut_phase phase, unsigned after_ms)
{
    watch->cut.phase = phase;
    timer_start(watch->store->timers, &watch->cut.timer, uv_now(watch->store->loop) + after_ms, on_cut_timer);
}

static void watch_cut_try_again(struct watch *watch)
{
    struct watch_cut *cut = &watch->cut;

    watch_cut_wait(watch, WATCH_CUT_PAUSING, cut->pause_ms);
    if (cut->pause_ms < PAUSE_LAST_MS)
        cut->pause_ms *= 2;
}

/* Return whether the copy knows what the bucket holds, apart from what the feed is about to deliver. */
static bool watch_cut_copy_is_sure(const struct local_copy *copy)
{
    return local_copy_is_following(copy) && !local_copy_is_changing(copy) && reconcile_is_trusted(&copy->reconcile);
}

static void on_cut_info(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct watch *watch = arg;
    struct feed *feed = &watch->copy->feed;
    struct feed_info info = {0};

    (void)err_code;
    (void)error; /* if the bucket is gone, the feed ends the watch */
    if (answer == NULL || !feed_is_live(feed) || !feed_is_of(feed, answer)) {
        watch_cut_wait(watch, WATCH_CUT_PAUSING, PAUSE_ERROR_MS);
        return;
    }
    feed_read_info(answer, &info);
    feed_note_last(feed, &info);
    watch->cut.target = info.last_sequence;
    watch_cut_wait(watch, WATCH_CUT_REACHING, REACH_MS);
    watch_set_await_progress(&watch->copy->watches, &watch->member);
    watch_cut_look(watch);
}

static void watch_cut_ask(struct watch *watch)
{
    struct local_copy *copy = watch->copy;
    struct watch_cut *cut = &watch->cut;

    watch_set_stop_awaiting(&copy->watches, &watch->member);
    if (!watch_cut_copy_is_sure(copy)) {
        watch_cut_wait(watch, WATCH_CUT_PAUSING, PAUSE_LAST_MS);
        return;
    }
    cut->phase = WATCH_CUT_ASKING;
    cut->gaps = copy->feed.gaps;
    cut->question = (struct jetstream_call){0};
    jetstream_call(&watch->store->jetstream, &cut->question, "STREAM.INFO", copy->bucket->stream, NULL,
                   uv_now(watch->store->loop) + watch->store->conf->calls.max_timeout_ms, on_cut_info, watch);
}

void watch_cut_start(struct watch *watch)
{
    watch_cut_stop(watch); /* the bucket may have been recreated */
    watch->cut.pause_ms = PAUSE_FIRST_MS;
    watch_cut_ask(watch);
}

void watch_cut_look(struct watch *watch)
{
    const struct feed *feed = &watch->copy->feed;
    struct watch_cut *cut = &watch->cut;

    if (cut->phase != WATCH_CUT_REACHING)
        return;
    if (feed->gaps != cut->gaps || !watch_cut_copy_is_sure(watch->copy)) {
        watch_set_stop_awaiting(&watch->copy->watches, &watch->member);
        watch_cut_try_again(watch);
        return;
    }
    if (watch->state != WATCH_LIVE || feed_position(feed) < cut->target || feed->position.batch.from != 0)
        return;
    watch_cut_stop(watch);
    watch->is_snapshot = false;
    uint64_t revision = feed_position(feed); /* 0: the bucket has never been written to */
    watch->ops->ready(watch->arg, &revision);
}

void watch_cut_stop(struct watch *watch)
{
    struct watch_cut *cut = &watch->cut;

    if (cut->phase == WATCH_CUT_OFF)
        return;
    if (cut->phase == WATCH_CUT_ASKING)
        jetstream_cancel(&cut->question);
    timer_stop(watch->store->timers, &cut->timer);
    watch_set_stop_awaiting(&watch->copy->watches, &watch->member);
    cut->phase = WATCH_CUT_OFF;
}
