#include "daemon/store/follow/watch.h"

#include "daemon/store/follow/filter.h"
#include "daemon/store/follow/horizon.h"
#include "daemon/store/follow/local_copy.h"
#include "daemon/store/follow/state.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Filters of a reading's consumer at most; beyond, all is read and looked through here. */
#define READING_FILTERS_MAX 16u

/* Before a replicated bucket is looked at a second time: a follower that is further behind is not in the cluster. */
#define SETTLE_MS 200u

/* Before something is tried again that the server refused. */
#define RETRY_MS 250u

static void walk(struct watch *watch);
static void read_on(struct watch *watch);
static void go_on(struct watch *watch);

/* --- Telling --------------------------------------------------------------------------------------- */

static bool is_beginning(const struct watch *watch)
{
    return watch->state > WATCH_OPENING && watch->state < WATCH_LIVE;
}

static bool matches(const struct watch *watch, const char *key)
{
    return filter_any_matches(watch->filters, watch->filter_count, key);
}

/* Return whether the watch is told of such a change. What the daemon writes for itself is told to nobody. */
static bool is_wanted_by(const struct watch *watch, const char *key, enum kv_operation operation)
{
    if (operation == KV_PUT)
        return true;
    return !watch->ignores_deletes && strcmp(key, KV_COMPACTED_KEY) != 0;
}

static void note_told(struct watch *watch, uint64_t revision)
{
    if (revision > watch->told)
        watch->told = revision;
}

/* Tell an entry of the beginning. The watch waits for room between entries, so this one need not fit. */
static void give(struct watch *watch, const struct kv_entry *entry, uint64_t serial)
{
    if (is_wanted_by(watch, entry->key, entry->operation)) {
        watch->ops->entry(watch->arg, entry, serial, false);
        watch->store->follow->watch_stats.entries++;
    }
    note_told(watch, entry->revision);
}

/* End a watch that was too slow. revision: to go on from; 0: keys have vanished that no revision tells of. */
static void end_slow(struct watch *watch, uint64_t revision)
{
    struct error error;

    if (revision == 0) {
        error_set(&error, ERROR_REVISION_GONE,
                  "this watch fell behind its bucket by more than watches.buffer_bytes, and keys have vanished "
                  "meanwhile; begin it anew, without from_revision");
    } else {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED,
                  "this watch fell behind its bucket by more than watches.buffer_bytes; watch again with "
                  "from_revision %" PRIu64,
                  revision);
        error.has_revision = true;
        error.revision = revision;
    }
    watch_end(watch, &error);
}

/* Tell a change to a live watch. If it does not fit, the watch ends: the others do not wait for it. */
static void give_live(struct watch *watch, const struct kv_entry *entry, uint64_t serial, bool is_repeatable)
{
    if (!is_wanted_by(watch, entry->key, entry->operation))
        return;
    if (!watch->ops->entry(watch->arg, entry, serial, true)) {
        end_slow(watch, is_repeatable ? entry->revision : 0);
        return;
    }
    note_told(watch, entry->revision);
    watch->store->follow->watch_stats.entries++;
}

static bool run_going_on(struct job *job);

void watch_go_on(struct watch *watch)
{
    struct store *store = watch->store;

    if (watch->is_going_on)
        return;
    watch->is_going_on = true;
    DL_APPEND2(store->follow->ready_watches, watch, previous_ready, next_ready);
    jobs_add(store->jobs, &store->follow->telling, run_going_on);
}

static void stop_going_on(struct watch *watch)
{
    if (!watch->is_going_on)
        return;
    watch->is_going_on = false;
    DL_DELETE2(watch->store->follow->ready_watches, watch, previous_ready, next_ready);
}

/* From now on it is told of changes. What it did to begin is over. */
static void become_live(struct watch *watch)
{
    watch->state = WATCH_LIVE;
    if (!watch->is_ready)
        watch->ops->ready(watch->arg);
    watch->is_ready = true;
}

static void go_live(struct watch *watch)
{
    watch->copy->beginning_count--;
    become_live(watch);
}

/* All was read. If the feed is further by now, read what lies between. */
static void go_live_or_read_on(struct watch *watch)
{
    if (feed_position(&watch->copy->feed) <= watch->told)
        go_live(watch);
    else
        read_on(watch);
}

/* --- From the cache -------------------------------------------------------------------------------- */

static void on_retry(struct timer *timer);

static void retry_later(struct watch *watch, enum watch_state state, unsigned after_ms)
{
    watch->state = state;
    timer_start(watch->store->timers, &watch->timer, uv_now(watch->store->loop) + after_ms, on_retry);
}

static void on_fetched(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct watch *watch = arg;

    if (error != NULL) {
        retry_later(watch, WATCH_FETCHING, RETRY_MS);
        return;
    }
    watch->state = WATCH_WALKING;
    /* One that is gone was written anew, or removed: the walk meets it again, or never. */
    if (entry != NULL)
        give(watch, entry, ++watch->store->follow->entry_serial);
    watch_go_on(watch); /* not within this answer */
}

/* Gets the entry that watch->get names. */
static void start_get(struct watch *watch, read_entry_fn *done)
{
    watch->get.bucket = watch->copy->name;
    watch->get.with_markers = true;
    watch->get.deadline_ms = uv_now(watch->store->loop) + watch->store->conf->calls.timeout_ms;
    watch->get.done = done;
    watch->get.arg = watch;
    read_get(watch->store, watch->arena, &watch->get);
}

static void start_fetch(struct watch *watch)
{
    struct read_get get = watch->get;

    watch->state = WATCH_FETCHING;
    memset(&watch->get, 0, sizeof(watch->get));
    watch->get.key = get.key;
    watch->get.revision = get.revision;
    watch->get.must_be_current = true;
    start_get(watch, on_fetched);
}

/* Empties the arena of watch->get. False: out of memory. */
static bool ready_arena(struct watch *watch)
{
    if (watch->arena == NULL) {
        watch->arena = calloc(1, sizeof(*watch->arena));
        if (watch->arena == NULL || !arena_init(watch->arena, 1024)) {
            free(watch->arena);
            watch->arena = NULL;
            return false;
        }
    }
    arena_clear(watch->arena);
    return true;
}

static void fetch(struct watch *watch, const struct cache_key *key)
{
    if (!ready_arena(watch)) {
        watch_leave_cache(watch);
        return;
    }
    watch->get.revision = key->revision;
    watch->get.key = arena_strdup(watch->arena, cache_key_name(key));
    if (watch->get.key == NULL)
        watch_leave_cache(watch);
    else
        start_fetch(watch);
}

static void walk(struct watch *watch)
{
    struct cache_view view;

    while (watch->ops->has_room(watch->arg)) {
        struct cache_key *key = cache_cursor_next(&watch->cursor);
        if (key == NULL) {
            cache_cursor_end(&watch->copy->cache, &watch->cursor);
            watch->told = feed_position(&watch->copy->feed);
            go_live(watch);
            return;
        }
        if (!matches(watch, cache_key_name(key)))
            continue;
        if (!cache_has_value(key)) {
            fetch(watch, key);
            return;
        }
        cache_read(key, &view);
        give(watch, &view.entry, ++watch->store->follow->entry_serial);
    }
    watch->ops->await_room(watch->arg);
}

static int compare_revisions(const void *a, const void *b)
{
    const struct cache_key *one = *(struct cache_key *const *)a, *other = *(struct cache_key *const *)b;

    return (one->revision > other->revision) - (one->revision < other->revision);
}

/* Of single keys whose values are there nothing else needs to be looked at. False: it is not so. */
static bool tell_keys(struct watch *watch)
{
    struct cache_key *keys[WATCH_FILTERS_MAX];
    struct cache_view view;
    size_t count = 0;

    for (size_t i = 0; i < watch->filter_count; i++) {
        if (!filter_is_key(watch->filters[i]))
            return false;
        struct cache_key *key = cache_find(&watch->copy->cache, watch->filters[i], strlen(watch->filters[i]));
        if (key != NULL && !cache_has_value(key))
            return false;
        if (key != NULL)
            keys[count++] = key;
    }
    if (count > 0)
        qsort((void *)keys, count, sizeof(*keys), compare_revisions);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && keys[i] == keys[i - 1])
            continue; /* named twice */
        cache_read(keys[i], &view);
        give(watch, &view.entry, ++watch->store->follow->entry_serial);
    }
    watch->told = feed_position(&watch->copy->feed);
    go_live(watch);
    return true;
}

static void begin_walk(struct watch *watch)
{
    watch->state = WATCH_SETTLING; /* no cursor yet */
    if (tell_keys(watch))
        return;
    watch->state = WATCH_WALKING;
    cache_cursor_begin(&watch->copy->cache, &watch->cursor);
    walk(watch);
}

void watch_leave_cache(struct watch *watch)
{
    if (watch->state != WATCH_WALKING && watch->state != WATCH_FETCHING)
        return;
    stop_going_on(watch);
    timer_stop(watch->store->timers, &watch->timer);
    read_get_cancel(&watch->get);
    cache_cursor_end(&watch->copy->cache, &watch->cursor);
    read_on(watch);
}

/* --- From the stream ------------------------------------------------------------------------------- */

static void on_reading_restart(void *arg)
{
    struct watch *watch = arg;

    watch->reading_from = feed_position(&watch->copy->feed);
    if (watch->told > 0 && !watch->reading.scope.last_per_subject)
        watch->reading.scope.start_sequence = watch->told + 1;
}

static enum consumer_verdict on_reading_message(void *arg, struct message *message, const struct kv_delivery *delivery)
{
    struct watch *watch = arg;
    struct kv_entry entry;

    if (!kv_read_entry(message, message->subject, watch->copy->bucket->prefix, delivery->stream_sequence,
                       delivery->created_us, &entry) ||
        entry.revision <= watch->told || (!watch->is_narrow && !matches(watch, entry.key)))
        return CONSUMER_MORE;
    give(watch, &entry, ++watch->store->follow->entry_serial);
    local_copy_note_told(watch->copy, &entry);
    local_copy_note_revision(watch->store, watch->copy->name, entry.key, entry.revision, false);
    if (watch->ops->has_room(watch->arg))
        return CONSUMER_MORE;
    watch->ops->await_room(watch->arg);
    return CONSUMER_PAUSE;
}

/* --- Removed markers --- */

static void end_gone(struct watch *watch)
{
    struct error error;

    error_set(&error, ERROR_REVISION_GONE,
              "since revision %" PRIu64 " keys may have vanished without a trace (they expired, were purged, or their "
              "delete markers were removed): begin anew, without from_revision",
              watch->from_revision);
    watch_end(watch, &error);
}

/* A value of a deleted key was told, and its marker is gone before it could be. */
static void end_incomplete(struct watch *watch)
{
    struct error error;

    error_set(&error, ERROR_REVISION_GONE,
              "while this watch began, markers of deleted keys were removed (bucket.compact, marker_ttl) before it was "
              "told of them: begin it anew");
    watch_end(watch, &error);
}

void watch_note_removal(struct watch *watch, uint64_t revision)
{
    const struct local_copy *copy = watch->copy;
    uint64_t known = watch->told;

    if (!is_beginning(watch))
        return;
    /* Without a history nobody was told of a key whose marker was there before. */
    if (watch->from != WATCH_REVISION && copy->bucket->history == 1 && watch->began_at > known)
        known = watch->began_at;
    if (revision > known)
        watch->may_miss_markers = true;
}

static void on_horizon_read(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct watch *watch = arg;

    if (error != NULL) {
        retry_later(watch, WATCH_CONFIRMING, RETRY_MS);
        return;
    }
    if (watch->from_revision <= horizon_read(entry)) {
        end_gone(watch);
        return;
    }
    watch->is_complete = true;
    go_on(watch);
}

/*
 * Look whether the reading missed delete markers. A compaction writes its horizon to the bucket before it removes the
 * first marker: see compact. So if the leader has no horizon at from_revision or later now, the reading missed none.
 */
static void confirm(struct watch *watch)
{
    if (!ready_arena(watch)) {
        retry_later(watch, WATCH_CONFIRMING, RETRY_MS);
        return;
    }
    watch->state = WATCH_CONFIRMING;
    watch->may_miss_markers = false;
    memset(&watch->get, 0, sizeof(watch->get));
    watch->get.key = KV_COMPACTED_KEY;
    watch->get.consistency = READ_LEADER;
    start_get(watch, on_horizon_read);
}

static bool can_confirm(const struct watch *watch)
{
    return watch->from == WATCH_REVISION && watch->from_revision > 1;
}

/* All was read that there was. */
static void go_on(struct watch *watch)
{
    if (can_confirm(watch) && (!watch->is_complete || watch->may_miss_markers))
        confirm(watch);
    else if (watch->may_miss_markers)
        end_incomplete(watch);
    else
        go_live_or_read_on(watch);
}

static void on_reading_done(void *arg, const struct error *error)
{
    struct watch *watch = arg;
    struct local_copy *copy = watch->copy;

    stop_going_on(watch);
    if (error != NULL) {
        retry_later(watch, WATCH_SETTLING, RETRY_MS);
        return;
    }
    if (copy->feed.info.replicas > 1 && !watch->is_confirmed) {
        watch->is_confirmed = true;
        retry_later(watch, WATCH_SETTLING, SETTLE_MS);
        return;
    }
    note_told(watch, watch->reading_from);
    go_on(watch);
}

static const struct consumer_ops reading_ops = {on_reading_restart, on_reading_message, on_reading_done};

/* The subjects that the filters stand for. */
static bool make_subjects(struct watch *watch)
{
    const char *filters[WATCH_FILTERS_MAX];

    if (watch->subjects != NULL)
        return true;
    memcpy((void *)filters, (const void *)watch->filters, watch->filter_count * sizeof(*filters));
    size_t count = filter_reduce(filters, watch->filter_count, READING_FILTERS_MAX);
    watch->is_narrow = true;
    for (size_t i = 0; i < watch->filter_count; i++)
        watch->is_narrow &= count > 1 || strcmp(filters[0], ">") != 0 || strcmp(watch->filters[i], ">") == 0;
    watch->subjects = filter_make_subjects(watch->copy->bucket->prefix, filters, count);
    watch->subject_count = watch->subjects != NULL ? count : 0;
    return watch->subjects != NULL;
}

/* Reads what comes behind what was told. */
static void read_on(struct watch *watch)
{
    struct error error;

    if (!make_subjects(watch)) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        watch_end(watch, &error);
        return;
    }
    struct consumer_scope scope = {.stream = watch->copy->bucket->stream,
                                   .filters = watch->subjects,
                                   .filter_count = watch->subject_count,
                                   .last_per_subject = watch->from == WATCH_LAST && watch->told == 0,
                                   .leaves_place = true,
                                   .start_sequence = watch->told > 0 ? watch->told + 1 : watch->from_revision};
    watch->state = WATCH_READING;
    watch->reading.request.limit = &watch->store->follow->creations;
    watch->reading.request.owner = watch->owner;
    consumer_read(&watch->store->jetstream, &watch->reading, &scope, UINT64_MAX, &reading_ops, watch);
}

static void on_retry(struct timer *timer)
{
    struct watch *watch = (struct watch *)((char *)timer - offsetof(struct watch, timer));

    if (watch->state == WATCH_FETCHING)
        start_fetch(watch);
    else if (watch->state == WATCH_CONFIRMING)
        confirm(watch);
    else
        read_on(watch);
}

/* --- For replica ----------------------------------------------------------------------------------- */

/*
 * Keys have vanished since the revision that the watch goes on from, or may have: several times at one revision.
 * Whoever begins at the first one knows of none.
 */
static bool is_gone(const struct watch *watch)
{
    const struct local_copy *copy = watch->copy;

    if (watch->from != WATCH_REVISION || watch->from_revision <= 1)
        return false;
    return (copy->vanished_at > 0 && watch->from_revision <= copy->vanished_at + 1) ||
           watch->from_revision <= copy->compacted;
}

void watch_begin(struct watch *watch)
{
    struct local_copy *copy = watch->copy;
    uint64_t position = feed_position(&copy->feed);

    timer_stop(watch->store->timers, &watch->timer);
    if (is_gone(watch)) {
        end_gone(watch);
        return;
    }
    watch->epoch = copy->backlog.epoch;
    watch->began_at = position;
    watch->ops->started(watch->arg);
    copy->beginning_count++;
    if (watch->from == WATCH_REVISION)
        watch->told = watch->from_revision - 1; /* which may still lie ahead */
    if (watch->from == WATCH_UPDATES) {
        watch->told = position > copy->acked ? position : copy->acked;
        go_live(watch);
    } else if (watch->from == WATCH_LAST && local_copy_can_answer(copy)) {
        begin_walk(watch);
    } else {
        read_on(watch);
    }
}

void watch_tell(struct watch *watch, const struct kv_entry *entry, uint64_t serial)
{
    if (watch->state == WATCH_LIVE && entry->revision > watch->told)
        give_live(watch, entry, serial, true);
}

void watch_tell_again(struct watch *watch, const struct kv_entry *entry, uint64_t serial)
{
    if (watch->state == WATCH_LIVE)
        give_live(watch, entry, serial, false);
}

/* --- Behind ---------------------------------------------------------------------------------------- */

void watch_fall_behind(struct watch *watch, struct change *change)
{
    if (watch->state != WATCH_LIVE || (!change->is_again && change->revision <= watch->told))
        return;
    local_copy_leave_tree(watch->copy, watch);
    backlog_attach(watch->copy, watch, change);
    watch_go_on(watch);
}

void watch_lose(struct watch *watch, uint64_t revision)
{
    watch->is_lost = true;
    watch->lost_revision = revision;
    watch_go_on(watch);
}

/* Revisions of another epoch say nothing about this one: the bucket was recreated. */
static void enter_epoch(struct watch *watch, unsigned epoch)
{
    if (watch->epoch == epoch)
        return;
    watch->epoch = epoch;
    watch->told = 0;
}

static void tell_change(struct watch *watch, const struct change *change)
{
    enter_epoch(watch, change->epoch);
    bool is_new = change->is_again || change->revision > watch->told;
    if (!is_new || !is_wanted_by(watch, change->key, change->operation) || !matches(watch, change->key))
        return;
    watch->ops->packed(watch->arg, change->packed);
    watch->store->follow->watch_stats.entries++;
    note_told(watch, change->revision);
}

static void catch_up(struct watch *watch)
{
    struct local_copy *copy = watch->copy;
    struct error error;

    enter_epoch(watch, copy->backlog.epoch);
    if (local_copy_enter_tree(copy, watch))
        return;
    error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    watch_end(watch, &error);
}

/* Tell the changes that it is behind, as long as there are time and room. */
static void tell_changes(struct watch *watch)
{
    struct change *change = watch->behind;
    bool has_room = true, has_time = true;

    while (change != NULL && has_time && (has_room = watch->ops->has_room(watch->arg))) {
        tell_change(watch, change);
        change = change->next;
        has_time = !jobs_slice_is_over(watch->store->jobs);
    }
    backlog_move(watch->copy, watch, change);
    if (change == NULL)
        catch_up(watch);
    else if (!has_room)
        watch->ops->await_room(watch->arg);
    else
        watch_go_on(watch);
}

static bool run_going_on(struct job *job)
{
    struct store *store = ((struct follow_state *)((char *)job - offsetof(struct follow_state, telling)))->store;
    struct watch *watch;

    while ((watch = store->follow->ready_watches) != NULL) {
        stop_going_on(watch);
        if (watch->is_lost)
            end_slow(watch, watch->lost_revision);
        else if (watch->state == WATCH_WALKING)
            walk(watch);
        else if (watch->state == WATCH_READING)
            consumer_go_on(&watch->reading);
        else if (watch->behind != NULL)
            tell_changes(watch);
        if (jobs_slice_is_over(store->jobs))
            return store->follow->ready_watches != NULL;
    }
    return false;
}

/* Stops what it does to begin. */
static void stop_beginning(struct watch *watch)
{
    timer_stop(watch->store->timers, &watch->timer);
    stop_going_on(watch);
    if (!is_beginning(watch))
        return;
    if (watch->state == WATCH_WALKING || watch->state == WATCH_FETCHING)
        cache_cursor_end(&watch->copy->cache, &watch->cursor);
    read_get_cancel(&watch->get);
    consumer_stop(&watch->reading);
    watch->copy->beginning_count--;
}

void watch_follow_anew(struct watch *watch)
{
    /* One that is behind is told of the old bucket's changes first. */
    if (watch->state <= WATCH_OPENING || watch->behind != NULL || watch->is_lost)
        return;
    stop_beginning(watch);
    watch->told = 0;
    watch->epoch = watch->copy->backlog.epoch;
    become_live(watch);
}

/* --- Life ------------------------------------------------------------------------------------------ */

static void on_opening_too_long(struct timer *timer)
{
    struct watch *watch = (struct watch *)((char *)timer - offsetof(struct watch, timer));
    const struct error *trouble = local_copy_trouble(watch->copy);
    struct error error;

    if (trouble->code != ERROR_NONE)
        error = *trouble;
    else
        error_set(&error, ERROR_UNAVAILABLE, "the bucket could not be followed in time; try again later");
    watch_end(watch, &error);
}

void watch_start(struct store *store, struct watch *watch, const char *bucket, uint64_t deadline_ms)
{
    struct error error;

    watch->store = store;
    watch->copy = local_copy_obtain(store, bucket, REPLICA_FOR_WATCH, &error);
    if (watch->copy == NULL) {
        watch->ops->ended(watch->arg, &error);
        return;
    }
    if (!local_copy_add_watch(watch->copy, watch)) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        watch->ops->ended(watch->arg, &error);
        return;
    }
    store->follow->watch_stats.open++;
    store->follow->watch_stats.total++;
    watch->state = WATCH_OPENING;
    if (local_copy_is_following(watch->copy))
        watch_begin(watch);
    else
        timer_start(store->timers, &watch->timer, deadline_ms, on_opening_too_long);
}

void watch_stop(struct watch *watch)
{
    if (watch->state == WATCH_OVER)
        return;
    stop_beginning(watch);
    watch->state = WATCH_OVER;
    local_copy_remove_watch(watch->copy, watch);
    watch->store->follow->watch_stats.open--;
    filter_free_subjects(watch->subjects, watch->subject_count);
    watch->subjects = NULL;
    if (watch->arena != NULL)
        arena_destroy(watch->arena);
    free(watch->arena);
    watch->arena = NULL;
}

/* The first revision that the watch was not told; 0: it missed changes that no revision tells of. */
static uint64_t next_revision(const struct watch *watch)
{
    uint64_t position = feed_position(&watch->copy->feed);

    if (watch->is_lost)
        return watch->lost_revision;
    if (watch->behind != NULL)
        return backlog_resume_revision(watch->copy, watch->behind);
    return (watch->state == WATCH_LIVE && position > watch->told ? position : watch->told) + 1;
}

void watch_end(struct watch *watch, const struct error *error)
{
    struct error complete = *error;

    if (!complete.has_revision && complete.code != ERROR_REVISION_GONE && watch->state > WATCH_OPENING) {
        complete.revision = next_revision(watch);
        complete.has_revision = complete.revision > 0;
    }
    if (watch->state > WATCH_OPENING)
        watch->store->follow->watch_stats.ended++;
    watch_stop(watch);
    watch->ops->ended(watch->arg, &complete);
}
