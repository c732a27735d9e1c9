#include "daemon/store/follow/watch.h"

#include "daemon/store/follow/filter.h"
#include "daemon/store/follow/local_copy.h"
#include "daemon/store/follow/state.h"

#include <inttypes.h>
#include <string.h>
#include <utlist.h>

/* For how long a watch waits for what was acknowledged before it. The feed should deliver it at once. */
#define REACHING_MS 1000u

/* --- Delivery -------------------------------------------------------------------------------------- */

bool watch_matches(const struct watch *watch, const char *key)
{
    return filter_any_matches(watch->filters, watch->filter_count, key);
}

/* Return whether the watch is delivered such a change. What the daemon writes for itself is delivered to nobody. */
static bool watch_wants(const struct watch *watch, const char *key, enum kv_operation operation)
{
    return (operation == KV_PUT || !watch->ignores_deletes) && !kv_is_reserved(key);
}

void watch_deliver_first(struct watch *watch, const struct kv_entry *entry)
{
    if (watch_wants(watch, entry->key, entry->operation)) {
        watch->ops->entry(watch->arg, entry, ++watch->store->follow->entry_serial, false, false);
        watch->store->follow->watch_stats.entries++;
    }
    watch_note_delivered(watch, entry->revision);
}

/* End a watch that has missed changes. */
static void watch_end_lost(struct watch *watch)
{
    uint64_t revision = watch->resume_revision;
    struct error error;

    if (watch->was_beginning) {
        error_set(
            &error, ERROR_REVISION_GONE,
            "keys vanished while this watch was delivered the first entries, which may have been among them; start "
            "it again without from_revision");
    } else if (revision == 0) {
        error_set(
            &error, ERROR_REVISION_GONE,
            "this watch was too slow (watches.buffer_bytes, limits.out_bytes), and missed keys that vanished; start "
            "it again without from_revision");
    } else {
        error_set(
            &error, ERROR_RESOURCE_EXHAUSTED,
            "this watch fell behind its bucket by more than watches.buffer_bytes or limits.out_bytes allow; start "
            "it again with from_revision %" PRIu64,
            revision);
        error.has_revision = true;
        error.revision = revision;
    }
    watch_end(watch, &error);
}

/*
 * The watch has fallen behind by too much. It ends when its turn comes: the end of many watches with many filters takes
 * long. revision: to resume from; 0: keys have vanished, which no revision has.
 */
static void watch_lose(struct watch *watch, uint64_t revision)
{
    watch->was_beginning = watch->state == WATCH_BEGINNING;
    if (watch->was_beginning) {
        watch_beginning_stop(watch);
        watch->copy->watches.beginning_count--;
    }
    watch->state = WATCH_LOST;
    watch->resume_revision = revision;
    watch_continue(watch);
}

/* Deliver a change to a live watch. If it does not fit, the watch ends: the others do not wait for it. */
static void watch_deliver_live(struct watch *watch, const struct kv_entry *entry, uint64_t serial, bool is_unrecorded)
{
    if (!watch_wants(watch, entry->key, entry->operation))
        return;
    if (!watch->ops->entry(watch->arg, entry, serial, true, is_unrecorded)) {
        watch_lose(watch, is_unrecorded ? 0 : entry->revision);
        return;
    }
    watch_note_delivered(watch, entry->revision);
    watch->store->follow->watch_stats.entries++;
}

void watch_note_begun(struct watch *watch)
{
    watch->copy->watches.beginning_count--;
    watch->state = WATCH_LIVE;
    if (watch->is_snapshot)
        watch_cut_start(watch);
    else
        watch->ops->ready(watch->arg, NULL);
}

/* --- Turns ----------------------------------------------------------------------------------------- */

static bool run_delivering(struct job *job);

void watch_continue(struct watch *watch)
{
    struct follow_state *follow = watch->store->follow;

    if (watch->previous_ready != NULL)
        return;
    DL_APPEND2(follow->ready_watches, watch, previous_ready, next_ready);
    jobs_add_shared(watch->store->jobs, &follow->delivering, run_delivering);
}

void watch_cancel_turn(struct watch *watch)
{
    if (watch->previous_ready == NULL)
        return;
    DL_DELETE2(watch->store->follow->ready_watches, watch, previous_ready, next_ready);
    watch->previous_ready = NULL;
}

/* Revisions of another epoch say nothing about this one: the bucket was recreated. */
static void watch_enter_epoch(struct watch *watch, unsigned epoch)
{
    if (watch->epoch == epoch)
        return;
    watch->epoch = epoch;
    watch->delivered = 0;
}

static void watch_deliver_change(struct watch *watch, const struct backlog_change *change)
{
    watch_enter_epoch(watch, change->epoch);
    bool is_new = change->is_unrecorded || change->revision > watch->delivered;
    if (!is_new || !watch_wants(watch, change->key, change->operation) || !watch_matches(watch, change->key))
        return;
    watch->ops->packed(watch->arg, change->packed, change->is_unrecorded);
    watch->store->follow->watch_stats.entries++;
    watch_note_delivered(watch, change->revision);
}

/* The watch was delivered all changes of the backlog. */
static void watch_return_to_live(struct watch *watch)
{
    struct backlog *backlog = &watch->copy->watches.backlog;

    watch->state = WATCH_LIVE;
    watch_enter_epoch(watch, backlog->epoch);
    backlog_move(backlog, &watch->member.backlog, NULL);
    watch_cut_look(watch);
}

/* Deliver the changes that the watch is behind, as long as there are time and room. */
static void watch_catch_up(struct watch *watch)
{
    struct backlog_change *change = watch->member.backlog.change;
    bool has_room = true, has_time = true;

    while (change != NULL && has_time && (has_room = watch->ops->has_room(watch->arg))) {
        watch_deliver_change(watch, change);
        change = change->next;
        has_time = !jobs_slice_is_over(watch->store->jobs);
    }
    if (change == NULL) {
        watch_return_to_live(watch);
        return;
    }
    backlog_move(&watch->copy->watches.backlog, &watch->member.backlog, change);
    if (!has_room)
        watch->ops->await_room(watch->arg);
    else
        watch_continue(watch);
}

static void watch_begin_if_current(struct watch *watch);

static void watch_run(struct watch *watch)
{
    if (watch->state == WATCH_OPENING)
        watch_begin_if_current(watch);
    else if (watch->state == WATCH_BEGINNING)
        watch_beginning_continue(watch);
    else if (watch->state == WATCH_BEHIND)
        watch_catch_up(watch);
    else if (watch->state == WATCH_LOST)
        watch_end_lost(watch);
}

static bool run_delivering(struct job *job)
{
    struct follow_state *follow = (struct follow_state *)((char *)job - offsetof(struct follow_state, delivering));
    struct watch *watch;

    while ((watch = follow->ready_watches) != NULL) {
        watch_cancel_turn(watch);
        watch_run(watch);
        if (jobs_slice_is_over(follow->store->jobs))
            return follow->ready_watches != NULL;
    }
    return false;
}

/* --- A member of the set --------------------------------------------------------------------------- */

static struct watch *watch_of_member(struct watch_member *member)
{
    return (struct watch *)((char *)member - offsetof(struct watch, member));
}

/* Keys have vanished since the revision that the watch resumes from, or may have. */
static bool watch_is_gone(const struct watch *watch)
{
    return watch->from == WATCH_REVISION && watch->from_revision > 1 &&
           watch_set_has_lost_since(&watch->copy->watches, watch->from_revision);
}

void watch_end_gone(struct watch *watch)
{
    struct error error;

    error_set(&error, ERROR_REVISION_GONE,
              "since revision %" PRIu64 " keys may have vanished without a trace (expired, purged, or their delete "
              "markers were removed); start the watch again without from_revision",
              watch->from_revision);
    watch_end(watch, &error);
}

static void watch_begin(struct watch *watch)
{
    timer_stop(watch->store->timers, &watch->timer);
    if (watch_is_gone(watch)) {
        watch_end_gone(watch);
        return;
    }
    watch->state = WATCH_BEGINNING;
    watch->epoch = watch->copy->watches.backlog.epoch;
    watch->copy->watches.beginning_count++;
    watch_note_move(watch);
    watch->ops->started(watch->arg);
    watch_beginning_start(watch);
}

static void on_opening_timeout(struct timer *timer);

/* The messages that the watch has waited for are gone: later ones have replaced them, or they were removed. */
static void on_reaching_timeout(struct timer *timer)
{
    struct watch *watch = (struct watch *)((char *)timer - offsetof(struct watch, timer));

    watch->must_reach = 0;
    timer_start(watch->store->timers, &watch->timer, watch->deadline_ms, on_opening_timeout);
    watch_begin_if_current(watch);
}

/*
 * Begin, unless the feed has yet to deliver what was acknowledged before the watch was started: that would be missing
 * at the beginning, and come after ready.
 */
static void watch_begin_if_current(struct watch *watch)
{
    struct watch_set *set = &watch->copy->watches;
    uint64_t until_ms = uv_now(watch->store->loop) + REACHING_MS;

    if (watch->state != WATCH_OPENING)
        return;
    if (!local_copy_is_following(watch->copy)) {
        if (local_copy_error(watch->copy)->code == ERROR_PERMISSION_DENIED)
            watch_end(watch, local_copy_error(watch->copy));
        return;
    }
    if (feed_position(&watch->copy->feed) < watch->must_reach) {
        watch_set_await_progress(set, &watch->member);
        timer_start(watch->store->timers, &watch->timer, until_ms < watch->deadline_ms ? until_ms : watch->deadline_ms,
                    on_reaching_timeout);
        return;
    }
    watch_set_stop_awaiting(set, &watch->member);
    /* What the comparison finds changed is no update: it was there before. The watches begin after it. */
    if (watch->from == WATCH_UPDATES && reconcile_is_comparing(&watch->copy->reconcile))
        return;
    watch_begin(watch);
}

static void on_member_begin(struct watch_member *member)
{
    struct watch *watch = watch_of_member(member);

    watch_begin_if_current(watch);
}

/*
 * Return whether the watch has begun. One that begins is delivered later changes by its readings, but may miss a change
 * that has no message. The change need not be of a key that the watch matches.
 */
static bool watch_has_begun(struct watch *watch, const char *key, enum kv_operation operation, bool is_unrecorded)
{
    if (watch->state == WATCH_BEGINNING && is_unrecorded && watch_wants(watch, key, operation) &&
        watch_matches(watch, key))
        watch_lose(watch, 0);
    return watch->state == WATCH_LIVE;
}

/*
 * Return whether a watch that begins was delivered the change by its reading, ahead of the feed. Then the copy keeps
 * it: otherwise a comparison with the stream would take it for news.
 */
static bool watch_has_read(const struct watch *watch, const char *key, uint64_t revision, bool is_unrecorded)
{
    return watch->state == WATCH_BEGINNING && !is_unrecorded && revision <= watch->delivered &&
           watch_matches(watch, key);
}

static bool on_member_deliver(struct watch_member *member, const struct kv_entry *entry, uint64_t serial,
                              bool is_unrecorded)
{
    struct watch *watch = watch_of_member(member);

    if (!watch_has_begun(watch, entry->key, entry->operation, is_unrecorded))
        return watch_has_read(watch, entry->key, entry->revision, is_unrecorded);
    if (is_unrecorded || entry->revision > watch->delivered)
        watch_deliver_live(watch, entry, serial, is_unrecorded);
    return true;
}

static bool on_member_fall_behind(struct watch_member *member, struct backlog_change *change)
{
    struct watch *watch = watch_of_member(member);

    if (!watch_has_begun(watch, change->key, change->operation, change->is_unrecorded))
        return watch_has_read(watch, change->key, change->revision, change->is_unrecorded);
    if (change->is_unrecorded || change->revision > watch->delivered) {
        watch->state = WATCH_BEHIND;
        backlog_attach(&watch->copy->watches.backlog, &member->backlog, change);
        watch_continue(watch);
    }
    return true;
}

static void on_member_lose(struct watch_member *member, uint64_t revision)
{
    watch_lose(watch_of_member(member), revision);
}

static void on_member_pack(struct watch_member *member, const struct kv_entry *entry, uint64_t serial,
                           struct watch_packed packed[WATCH_FORMS])
{
    struct watch *watch = watch_of_member(member);

    watch->ops->pack(watch->arg, entry, serial, packed);
}

static bool on_member_has_room(struct watch_member *member)
{
    struct watch *watch = watch_of_member(member);

    return watch->state != WATCH_LIVE || watch->ops->has_room(watch->arg);
}

static void on_member_recreate(struct watch_member *member)
{
    struct watch *watch = watch_of_member(member);

    /* A watch that is behind is delivered the old bucket's changes first. */
    if (watch->state != WATCH_BEGINNING && watch->state != WATCH_LIVE)
        return;
    watch->delivered = 0;
    watch->epoch = watch->copy->watches.backlog.epoch;
    if (watch->state == WATCH_BEGINNING) {
        watch_beginning_stop(watch);
        watch_note_begun(watch);
    }
}

static bool on_member_begins(struct watch_member *member, uint64_t since_ms)
{
    const struct watch *watch = watch_of_member(member);

    return watch->state == WATCH_BEGINNING && watch->moved_ms >= since_ms;
}

static void on_member_note_removal(struct watch_member *member, uint64_t revision)
{
    struct watch *watch = watch_of_member(member);

    if (watch->state == WATCH_BEGINNING)
        watch_beginning_note_removal(watch, revision);
}

static void on_member_progress(struct watch_member *member)
{
    struct watch *watch = watch_of_member(member);

    if (watch->state != WATCH_OPENING)
        watch_cut_look(watch);
    else if (feed_position(&watch->copy->feed) >= watch->must_reach)
        watch_continue(watch); /* many may wait for the same change */
}

static void on_member_leave_cache(struct watch_member *member)
{
    struct watch *watch = watch_of_member(member);

    if (watch->state == WATCH_BEGINNING)
        watch_beginning_leave_cache(watch);
}

static void on_member_end(struct watch_member *member, const struct error *error)
{
    watch_end(watch_of_member(member), error);
}

static const struct watch_member_ops watch_member_ops = {.begin = on_member_begin,
                                                         .deliver = on_member_deliver,
                                                         .fall_behind = on_member_fall_behind,
                                                         .lose = on_member_lose,
                                                         .pack = on_member_pack,
                                                         .has_room = on_member_has_room,
                                                         .recreate = on_member_recreate,
                                                         .begins = on_member_begins,
                                                         .note_removal = on_member_note_removal,
                                                         .leave_cache = on_member_leave_cache,
                                                         .progress = on_member_progress,
                                                         .end = on_member_end};

/* --- Life ------------------------------------------------------------------------------------------ */

static void on_opening_timeout(struct timer *timer)
{
    struct watch *watch = (struct watch *)((char *)timer - offsetof(struct watch, timer));
    const struct error *cause = local_copy_error(watch->copy);
    struct error error;

    if (cause->code != ERROR_NONE)
        error = *cause;
    else
        error_set(&error, ERROR_UNAVAILABLE, "timed out waiting for the bucket's changes to be followed; try again");
    watch_end(watch, &error);
}

/* Watch a bucket. known: NULL, or the bucket as it was looked up just now. */
static void watch_open(struct watch *watch, const char *bucket_name, struct bucket *known)
{
    struct store *store = watch->store;
    struct error error;

    watch->copy =
        local_copy_obtain(store, bucket_name, known, LOCAL_COPY_FOR_WATCH, fair_queue_user(watch->owner), &error);
    if (watch->copy == NULL) {
        watch->ops->ended(watch->arg, &error);
        return;
    }
    watch->member.ops = &watch_member_ops;
    watch->member.filters = watch->filters;
    watch->member.filter_count = watch->filter_count;
    watch->member.wants_previous = watch->wants_previous;
    if (!watch_set_add(&watch->copy->watches, &watch->member)) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        watch->ops->ended(watch->arg, &error);
        return;
    }
    store->follow->watch_stats.open++;
    store->follow->watch_stats.total++;
    watch->state = WATCH_OPENING;
    watch->must_reach = watch->copy->min_revisions.acked;
    timer_start(store->timers, &watch->timer, watch->deadline_ms, on_opening_timeout);
    watch_begin_if_current(watch);
}

static void on_watch_looked_up(void *arg, struct bucket *bucket, const struct error *error)
{
    struct watch *watch = arg;

    watch->state = WATCH_OVER;
    if (error != NULL) {
        watch->ops->ended(watch->arg, error);
        return;
    }
    watch_open(watch, bucket->name, bucket);
    bucket_release(bucket);
}

void watch_start(struct store *store, struct watch *watch, const char *bucket, uint64_t deadline_ms)
{
    watch->store = store;
    watch->deadline_ms = deadline_ms;
    if (local_copy_find(store, bucket) != NULL) {
        watch_open(watch, bucket, NULL);
        return;
    }
    watch->state = WATCH_LOOKING_UP;
    bucket_open(store, &watch->look_up, bucket, watch->owner, deadline_ms, on_watch_looked_up, watch);
}

void watch_stop(struct watch *watch)
{
    if (watch->state == WATCH_LOOKING_UP)
        bucket_wait_cancel(&watch->look_up);
    if (watch->state <= WATCH_LOOKING_UP) {
        watch->state = WATCH_OVER;
        return;
    }
    timer_stop(watch->store->timers, &watch->timer);
    watch_cancel_turn(watch);
    if (watch->state == WATCH_BEGINNING) {
        watch_beginning_stop(watch);
        watch->copy->watches.beginning_count--;
    }
    watch_beginning_free(watch);
    watch_cut_stop(watch);
    watch->state = WATCH_OVER;
    watch_set_remove(&watch->copy->watches, &watch->member);
    local_copy_note_use(watch->copy);
    watch->store->follow->watch_stats.open--;
}

/* Return the first revision that the watch was not delivered; 0: it missed changes that no revision has. */
static uint64_t watch_next_revision(const struct watch *watch)
{
    uint64_t position = feed_position(&watch->copy->feed);

    if (watch->state == WATCH_LOST)
        return watch->resume_revision;
    if (watch->state == WATCH_BEHIND)
        return backlog_resume_revision(&watch->copy->watches.backlog, watch->member.backlog.change);
    return (watch->state == WATCH_LIVE && position > watch->delivered ? position : watch->delivered) + 1;
}

void watch_end(struct watch *watch, const struct error *error)
{
    struct error complete = *error;

    if (!complete.has_revision && complete.code != ERROR_REVISION_GONE && watch->state > WATCH_OPENING) {
        complete.revision = watch_next_revision(watch);
        complete.has_revision = complete.revision > 0;
    }
    if (watch->state > WATCH_OPENING)
        watch->store->follow->watch_stats.ended++;
    watch_stop(watch);
    watch->ops->ended(watch->arg, &complete);
}
