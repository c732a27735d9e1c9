#include "daemon/store/follow/watch_beginning.h"

#include "daemon/store/follow/filter.h"
#include "daemon/store/follow/horizon.h"
#include "daemon/store/follow/local_copy_read.h"
#include "daemon/store/follow/state.h"
#include "daemon/store/follow/watch.h"

#include <stdlib.h>
#include <string.h>

/* Filters of a reading's consumer at most. With more, everything is read and filtered here. */
#define READING_FILTERS_MAX 16u

/* Before a replicated bucket is read a second time: a follower that is further behind is not in the cluster. */
#define CONFIRM_AFTER_MS 200u

/* Before something is retried that the server refused. */
#define RETRY_MS 250u

/* Values of single keys that are delivered at once. With more, the walk delivers them as the client reads. */
#define AT_ONCE_BYTES_MAX (256u * 1024u)

static void beginning_walk(struct watch *watch);
static void beginning_read_stream(struct watch *watch);
static void beginning_finish_reading(struct watch *watch);
static void beginning_start_fetch(struct watch *watch);
static void beginning_confirm(struct watch *watch);

static struct watch *watch_of_beginning(struct watch_beginning *beginning)
{
    return (struct watch *)((char *)beginning - offsetof(struct watch, beginning));
}

static void beginning_finish(struct watch *watch)
{
    watch->beginning.step = WATCH_BEGUN;
    watch_note_begun(watch);
}

static void on_beginning_timer(struct timer *timer)
{
    struct watch_beginning *beginning =
        (struct watch_beginning *)((char *)timer - offsetof(struct watch_beginning, timer));
    struct watch *watch = watch_of_beginning(beginning);

    if (beginning->step == WATCH_FETCHING)
        beginning_start_fetch(watch);
    else if (beginning->step == WATCH_CONFIRMING)
        beginning_confirm(watch);
    else
        beginning_read_stream(watch);
}

static void beginning_continue_later(struct watch *watch, enum watch_step step, unsigned after_ms)
{
    struct store *store = watch->store;

    watch->beginning.step = step;
    timer_start(store->timers, &watch->beginning.timer, uv_now(store->loop) + after_ms, on_beginning_timer);
}

/* --- Single entries -------------------------------------------------------------------------------- */

/* Get the entry that beginning.get names. */
static void beginning_start_get(struct watch *watch, get_done_fn *done)
{
    struct get *get = &watch->beginning.get;

    get->bucket_name = watch->copy->name;
    get->with_markers = true;
    get->deadline_ms = uv_now(watch->store->loop) + watch->store->conf->calls.timeout_ms;
    get->done = done;
    get->arg = watch;
    get_start(watch->store, watch->beginning.arena, get);
}

/* Empty the arena of beginning.get. False: out of memory. */
static bool beginning_clear_arena(struct watch_beginning *beginning)
{
    if (beginning->arena == NULL) {
        beginning->arena = calloc(1, sizeof(*beginning->arena));
        if (beginning->arena == NULL || !arena_init(beginning->arena, 1024)) {
            free(beginning->arena);
            beginning->arena = NULL;
            return false;
        }
    }
    arena_clear(beginning->arena);
    return true;
}

/* A request has failed: try again, unless it will always be denied. */
static void beginning_fail(struct watch *watch, enum watch_step step, const struct error *error)
{
    if (error->code == ERROR_PERMISSION_DENIED)
        watch_end(watch, error);
    else
        beginning_continue_later(watch, step, RETRY_MS);
}

/* --- From the cache -------------------------------------------------------------------------------- */

static void on_value_fetched(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct watch *watch = arg;

    if (error != NULL) {
        beginning_fail(watch, WATCH_FETCHING, error);
        return;
    }
    watch->beginning.step = WATCH_WALKING;
    /* If the entry is gone, it was overwritten, and the walk meets the key again; or it was removed. */
    if (entry != NULL)
        watch_deliver_first(watch, entry);
    watch_continue(watch); /* not within this answer */
}

static void beginning_start_fetch(struct watch *watch)
{
    struct get *get = &watch->beginning.get;
    const char *key = get->key;
    uint64_t revision = get->revision;

    watch->beginning.step = WATCH_FETCHING;
    memset(get, 0, sizeof(*get));
    get->key = key;
    get->revision = revision;
    get->must_be_current = true;
    beginning_start_get(watch, on_value_fetched);
}

/* Fetch a value that was evicted. */
static void beginning_fetch(struct watch *watch, const struct cache_key *key)
{
    struct watch_beginning *beginning = &watch->beginning;

    if (!beginning_clear_arena(beginning)) {
        watch_beginning_leave_cache(watch);
        return;
    }
    beginning->get.revision = key->revision;
    beginning->get.key = arena_strdup(beginning->arena, cache_key_name(key));
    if (beginning->get.key == NULL)
        watch_beginning_leave_cache(watch);
    else
        beginning_start_fetch(watch);
}

/* Only a watch that resumes from a revision can find out whether markers are missing. */
static bool beginning_can_confirm(const struct watch *watch)
{
    return watch->from == WATCH_REVISION && watch->from_revision > 1;
}

/* A value of a deleted key was delivered, and its marker was removed before it could be. */
static void beginning_end_incomplete(struct watch *watch)
{
    struct error error;

    error_set(&error, ERROR_REVISION_GONE,
              "while this watch began, delete markers were removed (bucket.compact, marker_ttl) or expired "
              "(limit_marker_ttl) before it was delivered them; start it again");
    watch_end(watch, &error);
}

/* Everything in memory was delivered: all that the feed has delivered, and what a load has read ahead of it. */
static void beginning_finish_walk(struct watch *watch)
{
    if (watch->beginning.may_miss_markers && !beginning_can_confirm(watch)) {
        beginning_end_incomplete(watch);
        return;
    }
    watch_note_delivered(watch, feed_position(&watch->copy->feed));
    beginning_finish(watch);
}

/* Deliver the keys that follow the cursor, as long as there are time and room. */
static void beginning_walk(struct watch *watch)
{
    struct cache_view view;

    for (bool is_first = true; watch->ops->has_room(watch->arg); is_first = false) {
        if (!is_first && jobs_slice_is_over(watch->store->jobs)) {
            watch_continue(watch);
            return;
        }
        struct cache_key *key = cache_cursor_next(&watch->beginning.cursor);
        if (key == NULL) {
            cache_cursor_end(&watch->beginning.cursor);
            beginning_finish_walk(watch);
            return;
        }
        if (!watch_matches(watch, cache_key_name(key)))
            continue;
        if (!cache_has_value(key)) {
            beginning_fetch(watch, key);
            return;
        }
        cache_read(key, &view);
        watch_deliver_first(watch, &view.entry);
    }
    watch->ops->await_room(watch->arg);
}

static int compare_key_revisions(const void *a, const void *b)
{
    const struct cache_key *one = *(struct cache_key *const *)a, *other = *(struct cache_key *const *)b;

    return (one->revision > other->revision) - (one->revision < other->revision);
}

/*
 * If all filters are single keys whose values are in memory, deliver just these. Return false if there is another
 * filter, if a value was evicted, or if the values are too many bytes to be delivered at once.
 */
static bool beginning_deliver_keys(struct watch *watch)
{
    struct cache_key *keys[WATCH_FILTERS_MAX];
    struct cache_view view;
    size_t count = 0, bytes = 0;

    for (size_t i = 0; i < watch->filter_count; i++) {
        const char *filter = watch->filters[i];
        if (!filter_is_key(filter))
            return false;
        struct cache_key *key = cache_find(&watch->copy->contents.cache, filter, strlen(filter));
        if (key == NULL)
            continue;
        bytes += key->value_bytes;
        if (!cache_has_value(key) || bytes > AT_ONCE_BYTES_MAX)
            return false;
        keys[count++] = key;
    }
    if (count > 0)
        qsort((void *)keys, count, sizeof(*keys), compare_key_revisions);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && keys[i] == keys[i - 1])
            continue; /* named twice */
        cache_read(keys[i], &view);
        watch_deliver_first(watch, &view.entry);
    }
    beginning_finish_walk(watch);
    return true;
}

static void beginning_start_walk(struct watch *watch)
{
    if (beginning_deliver_keys(watch))
        return;
    watch->beginning.step = WATCH_WALKING;
    cache_cursor_begin(&watch->copy->contents.cache, &watch->beginning.cursor);
    beginning_walk(watch);
}

void watch_beginning_leave_cache(struct watch *watch)
{
    struct watch_beginning *beginning = &watch->beginning;

    if (beginning->step != WATCH_WALKING && beginning->step != WATCH_FETCHING)
        return;
    watch_beginning_stop(watch);
    beginning_continue_later(watch, WATCH_PAUSING, 0); /* many watches may leave together */
}

/* --- From the stream ------------------------------------------------------------------------------- */

static void on_beginning_restart(void *arg)
{
    struct watch *watch = arg;
    struct consumer_scope *scope = &watch->beginning.reading.scope;

    watch->beginning.reading_position = feed_position(&watch->copy->feed);
    consumer_require(&watch->beginning.reading, watch->beginning.reading_position);
    if (watch->delivered > 0 && !scope->last_per_subject)
        scope->start_sequence = watch->delivered + 1;
}

static enum consumer_verdict on_beginning_message(void *arg, struct message *message,
                                                  const struct kv_delivery *delivery)
{
    struct watch *watch = arg;
    struct kv_entry entry;

    watch_note_move(watch);
    if (!kv_read_entry(message, message->subject, watch->copy->bucket->prefix, delivery->stream_sequence,
                       delivery->created_us, &entry) ||
        entry.revision <= watch->delivered || (!watch->beginning.is_narrow && !watch_matches(watch, entry.key)))
        return CONSUMER_MORE;
    watch_deliver_first(watch, &entry);
    contents_note_delivered(watch->copy, &entry);
    local_copy_note_revision(watch->store, watch->copy->name, entry.key, entry.revision, false);
    if (watch->ops->has_room(watch->arg))
        return CONSUMER_MORE;
    watch->ops->await_room(watch->arg);
    return CONSUMER_PAUSE;
}

static void on_beginning_read(void *arg, const struct error *error)
{
    struct watch *watch = arg;
    struct watch_beginning *beginning = &watch->beginning;

    watch_cancel_turn(watch);
    if (error != NULL) {
        beginning_fail(watch, WATCH_PAUSING, error);
        return;
    }
    if (watch->copy->feed.info.replicas > 1 && !beginning->is_confirmed) {
        beginning->is_confirmed = true;
        beginning_continue_later(watch, WATCH_PAUSING, CONFIRM_AFTER_MS);
        return;
    }
    watch_note_delivered(watch, beginning->reading_position);
    beginning_finish_reading(watch);
}

static const struct consumer_ops beginning_reading_ops = {on_beginning_restart, on_beginning_message,
                                                          on_beginning_read};

/* Make the subjects that the filters stand for. False: out of memory. */
static bool beginning_make_subjects(struct watch *watch)
{
    struct watch_beginning *beginning = &watch->beginning;
    const char *filters[WATCH_FILTERS_MAX];

    if (beginning->subjects != NULL)
        return true;
    memcpy((void *)filters, (const void *)watch->filters, watch->filter_count * sizeof(*filters));
    size_t count = filter_reduce(filters, watch->filter_count, READING_FILTERS_MAX);
    beginning->is_narrow = true;
    for (size_t i = 0; i < watch->filter_count; i++)
        beginning->is_narrow &= count > 1 || strcmp(filters[0], ">") != 0 || strcmp(watch->filters[i], ">") == 0;
    beginning->subjects = filter_make_subjects(watch->copy->bucket->prefix, filters, count);
    beginning->subject_count = beginning->subjects != NULL ? count : 0;
    return beginning->subjects != NULL;
}

/* Read what comes after what was delivered. */
static void beginning_read_stream(struct watch *watch)
{
    struct watch_beginning *beginning = &watch->beginning;
    struct error error;

    if (!beginning_make_subjects(watch)) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        watch_end(watch, &error);
        return;
    }
    struct consumer_scope scope = {.stream = watch->copy->bucket->stream,
                                   .filters = beginning->subjects,
                                   .filter_count = beginning->subject_count,
                                   .last_per_subject = watch->from == WATCH_LAST && watch->delivered == 0,
                                   .leaves_place = true,
                                   .start_sequence =
                                       watch->delivered > 0 ? watch->delivered + 1 : watch->from_revision};
    beginning->step = WATCH_READING;
    beginning->reading.request.limit = &watch->store->follow->creations;
    beginning->reading.request.owner = watch->owner;
    consumer_read(&watch->store->jetstream, &beginning->reading, &scope, UINT64_MAX, &beginning_reading_ops, watch);
}

/* --- Removed markers ------------------------------------------------------------------------------- */

void watch_beginning_note_removal(struct watch *watch, uint64_t revision)
{
    uint64_t known = watch->delivered;

    /* Without a history the watch was delivered no value of a key whose marker was there before. */
    if (watch->from != WATCH_REVISION && watch->copy->bucket->history == 1 && watch->beginning.begin_position > known)
        known = watch->beginning.begin_position;
    if (revision > known)
        watch->beginning.may_miss_markers = true;
}

static void on_horizon_confirmed(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct watch *watch = arg;

    if (error != NULL)
        beginning_fail(watch, WATCH_CONFIRMING, error);
    else if (watch->from_revision <= horizon_read(entry) ||
             watch_set_has_lost_since(&watch->copy->watches, watch->from_revision))
        watch_end_gone(watch);
    else
        beginning_finish_reading(watch);
}

/*
 * Look whether the reading missed delete markers. A compaction writes its horizon to the bucket before it removes the
 * first marker: see compact. So if the leader has no horizon at from_revision or later now, the reading missed none.
 */
static void beginning_confirm(struct watch *watch)
{
    struct watch_beginning *beginning = &watch->beginning;

    if (!beginning_clear_arena(beginning)) {
        beginning_continue_later(watch, WATCH_CONFIRMING, RETRY_MS);
        return;
    }
    beginning->step = WATCH_CONFIRMING;
    beginning->may_miss_markers = false;
    memset(&beginning->get, 0, sizeof(beginning->get));
    beginning->get.key = KV_COMPACTED_KEY;
    beginning->get.consistency = READ_LEADER;
    beginning_start_get(watch, on_horizon_confirmed);
}

/* All was read that there was. If the feed has delivered more by now, read what lies between. */
static void beginning_finish_reading(struct watch *watch)
{
    if (watch->beginning.may_miss_markers && beginning_can_confirm(watch))
        beginning_confirm(watch);
    else if (watch->beginning.may_miss_markers)
        beginning_end_incomplete(watch);
    else if (feed_position(&watch->copy->feed) <= watch->delivered)
        beginning_finish(watch);
    else
        beginning_read_stream(watch);
}

/* --- Life ------------------------------------------------------------------------------------------ */

void watch_beginning_start(struct watch *watch)
{
    struct local_copy *copy = watch->copy;
    uint64_t position = feed_position(&copy->feed);

    watch->beginning.step = WATCH_PAUSING;
    watch->beginning.begin_position = position;
    watch->beginning.may_miss_markers = beginning_can_confirm(watch);
    if (watch->from == WATCH_REVISION)
        watch->delivered = watch->from_revision - 1; /* which may be a future revision */
    if (watch->from == WATCH_UPDATES) {
        watch->delivered = position > copy->min_revisions.acked ? position : copy->min_revisions.acked;
        beginning_finish(watch);
    } else if (watch->from == WATCH_LAST && local_copy_can_answer(copy)) {
        beginning_start_walk(watch);
    } else {
        beginning_read_stream(watch);
    }
}

void watch_beginning_continue(struct watch *watch)
{
    watch_note_move(watch);
    if (watch->beginning.step == WATCH_WALKING)
        beginning_walk(watch);
    else if (watch->beginning.step == WATCH_READING)
        consumer_continue(&watch->beginning.reading);
}

void watch_beginning_stop(struct watch *watch)
{
    struct watch_beginning *beginning = &watch->beginning;

    watch_cancel_turn(watch);
    timer_stop(watch->store->timers, &beginning->timer);
    cache_cursor_end(&beginning->cursor);
    get_cancel(&beginning->get);
    consumer_stop(&beginning->reading);
    beginning->step = WATCH_BEGUN;
}

void watch_beginning_free(struct watch *watch)
{
    struct watch_beginning *beginning = &watch->beginning;

    filter_free_subjects(beginning->subjects, beginning->subject_count);
    beginning->subjects = NULL;
    if (beginning->arena != NULL)
        arena_destroy(beginning->arena);
    free(beginning->arena);
    beginning->arena = NULL;
}
