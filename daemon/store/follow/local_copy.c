#include "daemon/store/follow/local_copy.h"

#include "daemon/base/log.h"
#include "daemon/store/follow/changes.h"
#include "daemon/store/follow/horizon.h"
#include "daemon/store/follow/local_copy_read.h"
#include "daemon/store/follow/state.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* A copy that nobody uses stays for this long, because watches end and start again. */
#define KEEP_UNUSED_MS 5000u

/* If as many buckets are followed as may be: how often a copy is replaced by that of another bucket that is read, and
 * how long it must have been unused. */
#define REPLACE_EVERY_MS 100u
#define UNUSED_MS        1000u

/* --- The feed's events ----------------------------------------------------------------------------- */

static void local_copy_note_recreated(struct local_copy *copy)
{
    contents_invalidate(&copy->contents);
    copy->min_revisions.acked = 0;
    min_revision_clear(&copy->min_revisions);
    watch_set_recreate(&copy->watches);
}

static void local_copy_tell_doubt(struct local_copy *copy)
{
    if (copy->listener != NULL)
        copy->listener->doubt(copy->listener);
}

static void on_feed_begin(void *arg, bool is_recreated)
{
    struct local_copy *copy = arg;

    reconcile_begin(copy, is_recreated);
    if (is_recreated) {
        local_copy_note_recreated(copy);
        local_copy_tell_doubt(copy);
    }
    if (contents_are_too_large(copy))
        contents_give_up(copy);
    else
        local_copy_fail_vain_waits(copy);
    if (is_recreated || contents_have_values(&copy->contents))
        reconcile_load(copy);
    else
        feed_go(&copy->feed,
                &(struct feed_place){.sequence = copy->feed.info.last_sequence, .stored_us = copy->feed.info.last_us});
}

/* Markers up to this revision are about to be removed, or were just removed. */
static void local_copy_raise_horizon(struct local_copy *copy, uint64_t revision)
{
    bool is_reading = copy->contents.state != CONTENTS_COMPLETE && reconcile_is_loading(&copy->reconcile);

    watch_set_note_removal(&copy->watches, revision);
    if (is_reading)
        reconcile_distrust(copy); /* the load may have met a value whose marker it will not meet */
}

/*
 * A host is about to remove delete markers. If it is another host, the markers may be gone before the feed delivers
 * them, and deleted keys would stay in memory.
 */
static void local_copy_receive_horizon(struct local_copy *copy, uint64_t horizon)
{
    local_copy_raise_horizon(copy, horizon);
    if (!local_copy_is_exclusive(copy))
        reconcile_distrust(copy);
}

/*
 * Add to a change what is known of the key's entry before it. After the bucket was recreated, or may have lost
 * messages, the keys in memory are not those of the stream until it was read again.
 */
static void local_copy_add_previous(struct local_copy *copy, struct kv_entry *entry, struct cache_view *view)
{
    if (!reconcile_is_trusted(&copy->reconcile) || reconcile_is_loading(&copy->reconcile))
        return;
    struct cache_key *key = cache_find(&copy->contents.cache, entry->key, strlen(entry->key));
    if (key == NULL) {
        entry->has_previous = copy->contents.state == CONTENTS_COMPLETE;
        return;
    }
    if (key->revision >= entry->revision)
        return;
    entry->has_previous = true;
    entry->previous = key->revision;
    if (copy->watches.values_wanted == 0 || cache_operation(key) != KV_PUT || !cache_has_value(key) ||
        !contents_have_values(&copy->contents))
        return;
    cache_read(key, view);
    entry->previous_value = view->entry.value;
    entry->previous_bytes = view->entry.value_bytes;
}

static bool local_copy_deliver(struct local_copy *copy, const struct kv_entry *entry)
{
    struct kv_entry change = *entry;
    struct cache_view view;

    if (copy->watches.count > 0)
        local_copy_add_previous(copy, &change, &view);
    return watch_set_deliver(&copy->watches, &change);
}

static bool local_copy_has_entry(const void *arg, const char *key, uint64_t revision)
{
    return contents_revision_of(&((const struct local_copy *)arg)->contents, key) >= revision;
}

static void local_copy_drop_reached(struct local_copy *copy)
{
    min_revision_drop_reached(&copy->min_revisions, feed_position(&copy->feed), local_copy_has_entry, copy);
}

static void local_copy_receive_change(struct local_copy *copy, const struct kv_entry *entry)
{
    bool is_wanted = local_copy_deliver(copy, entry);

    local_copy_tell_listener(copy, entry);
    if (strcmp(entry->key, KV_COMPACTED_KEY) == 0)
        local_copy_receive_horizon(copy, horizon_read(entry));
    if (is_wanted || contents_have_values(&copy->contents))
        contents_keep(copy, entry);
    if (is_wanted && copy->feed.position.batch.from != 0)
        local_copy_note_revision(copy->store, copy->name, entry->key, entry->revision, false);
    min_revision_trust(&copy->min_revisions, entry->key, entry->revision);
}

static void on_feed_entry(void *arg, const struct kv_entry *entry)
{
    struct local_copy *copy = arg;

    /* Only in a cluster, where what is gone may arrive: other servers deliver what was there a moment ago. */
    if (copy->feed.info.replicas <= 1 || !feed_info_lacks(&copy->feed.info, entry->revision))
        local_copy_receive_change(copy, entry);
    local_copy_drop_reached(copy);
    local_copy_wake_waits(copy);
    watch_set_note_progress(&copy->watches);
}

/* Count the times that the feed's consumer was recreated. Return whether it was since the last call. */
static bool local_copy_count_resyncs(struct local_copy *copy)
{
    unsigned resyncs = copy->feed.resyncs - copy->seen_resyncs;

    copy->store->follow->watch_stats.resyncs += resyncs;
    copy->seen_resyncs = copy->feed.resyncs;
    return resyncs > 0;
}

static void on_feed_caught_up(void *arg, int64_t question_us, bool has_another_keeper)
{
    struct local_copy *copy = arg;

    if (question_us != 0) {
        log_warning("bucket %s: its server may have lost messages: comparing all keys", copy->name);
        reconcile_compare(copy, question_us);
        local_copy_tell_doubt(copy);
    }
    local_copy_drop_reached(copy);
    contents_complete(copy);
    bool is_resynced = local_copy_count_resyncs(copy);
    if (is_resynced)
        reconcile_request_check(&copy->reconcile);
    local_copy_begin_watches(copy);
    /* The feed never delivers what was written and has expired meanwhile. */
    if (is_resynced && contents_have_values(&copy->contents) && local_copy_is_exclusive(copy))
        reconcile_distrust(copy);
    reconcile_load_if_wanted(copy);
    if (copy->listener != NULL)
        copy->listener->caught_up(copy->listener, has_another_keeper);
}

static void local_copy_set_over(struct local_copy *copy);
static void local_copy_start_ending(struct local_copy *copy);

static void on_feed_ended(void *arg, const struct error *error)
{
    struct local_copy *copy = arg;

    reconcile_stop(copy);
    copy->feed.error = *error;
    local_copy_set_over(copy);
    local_copy_start_ending(copy);
}

static const struct feed_ops local_copy_feed_ops = {on_feed_begin, on_feed_entry, on_feed_caught_up, on_feed_ended};

/* --- For compact ----------------------------------------------------------------------------------- */

void local_copy_note_removal(struct store *store, const char *bucket, uint64_t revision)
{
    struct local_copy *copy = local_copy_find(store, bucket);

    if (copy != NULL)
        local_copy_raise_horizon(copy, revision);
}

void local_copy_note_compacted(struct store *store, const char *bucket, uint64_t revision)
{
    struct local_copy *copy = local_copy_find(store, bucket);

    if (copy == NULL)
        return;
    watch_set_note_compacted(&copy->watches, revision);
    reconcile_request_check(&copy->reconcile);
    reconcile_check_if_due(copy);
}

/* --- Opening and closing --------------------------------------------------------------------------- */

struct local_copy *local_copy_find(struct store *store, const char *bucket)
{
    struct local_copy *copy = store->follow->found_local_copy;

    /* Most calls ask for the bucket of the last one. */
    if (copy != NULL && strcmp(copy->name, bucket) == 0)
        return copy;
    HASH_FIND_STR(store->follow->local_copies, bucket, copy);
    if (copy != NULL)
        store->follow->found_local_copy = copy;
    return copy;
}

static void local_copy_remove_from_table(struct local_copy *copy)
{
    struct follow_state *follow = copy->store->follow;

    if (follow->next_ticking == copy)
        follow->next_ticking = copy->hh.next;
    HASH_DEL(follow->local_copies, copy);
    follow->found_local_copy = NULL;
}

/* The bucket does not exist. If it is created again, it gets another copy, while the watches of this one end. */
static void local_copy_set_over(struct local_copy *copy)
{
    local_copy_remove_from_table(copy);
    copy->state = LOCAL_COPY_OVER;
    DL_APPEND2(copy->store->follow->over_local_copies, copy, previous, next);
}

/* Free a copy. Its watches have ended. */
static void local_copy_close(struct local_copy *copy)
{
    struct local_copy_listener *listener = copy->listener;

    if (listener != NULL) {
        local_copy_stop_listening(listener);
        listener->ended(listener);
    }
    feed_stop(&copy->feed);
    reconcile_stop(copy);
    bucket_wait_cancel(&copy->wait);
    local_copy_fail_waits(copy);
    min_revision_clear(&copy->min_revisions);
    contents_clear(copy);
    jobs_remove(copy->store->jobs, &copy->ending);
    watch_set_free(&copy->watches);
    if (copy->bucket != NULL)
        bucket_release(copy->bucket);
    if (copy->state == LOCAL_COPY_OVER)
        DL_DELETE2(copy->store->follow->over_local_copies, copy, previous, next);
    else
        local_copy_remove_from_table(copy);
    free(copy);
}

/* End all watches at once, and free the copy. */
static void local_copy_end(struct local_copy *copy, const struct error *error)
{
    watch_set_end_all(&copy->watches, error);
    local_copy_close(copy);
}

static bool run_ending(struct job *job)
{
    struct local_copy *copy = (struct local_copy *)((char *)job - offsetof(struct local_copy, ending));

    if (copy->state == LOCAL_COPY_OPEN) /* the bucket was found after all */
        return false;
    if (watch_set_end_some(&copy->watches, &copy->feed.error))
        return true;
    if (copy->state == LOCAL_COPY_OVER)
        local_copy_close(copy);
    return false;
}

/* End the watches with the feed's error, a slice at a time; then close the copy if it is over. */
static void local_copy_start_ending(struct local_copy *copy)
{
    local_copy_fail_waits(copy);
    jobs_add(copy->store->jobs, &copy->ending, run_ending);
}

static void on_bucket_opened(void *arg, struct bucket *bucket, const struct error *error)
{
    struct local_copy *copy = arg;
    const struct connection *connection = copy->store->connection;

    if (error == NULL) {
        copy->state = LOCAL_COPY_OPEN;
        copy->bucket = bucket;
        feed_start(copy->store, &copy->feed, bucket, &local_copy_feed_ops, copy);
        return;
    }
    copy->feed.error = *error;
    copy->state = LOCAL_COPY_UNOPENED;
    if (error->code == ERROR_BUCKET_NOT_FOUND)
        local_copy_set_over(copy);
    /* Before the first connection to NATS watches need not wait: the caller learns at once that there is none. */
    if (copy->state == LOCAL_COPY_OVER || !connection_get_status(connection)->was_connected)
        local_copy_start_ending(copy);
    else
        local_copy_fail_waits(copy);
}

static void local_copy_open(struct local_copy *copy)
{
    const struct store *store = copy->store;

    copy->state = LOCAL_COPY_OPENING;
    bucket_open(copy->store, &copy->wait, copy->name, 0, uv_now(store->loop) + store->conf->calls.max_timeout_ms,
                on_bucket_opened, copy);
}

void local_copy_note_use(struct local_copy *copy)
{
    copy->used_ms = uv_now(copy->store->loop);
}

/* --- The tick -------------------------------------------------------------------------------------- */

/* Return whether the copy is kept, although nobody reads it, while no other copy needs its room. */
static bool local_copy_is_wanted(const struct local_copy *copy)
{
    return copy->watches.count > 0 || copy->is_configured || copy->listener != NULL;
}

static bool local_copy_is_idle(const struct local_copy *copy)
{
    const struct conf *conf = copy->store->conf;
    uint64_t idle_ms = uv_now(copy->store->loop) - copy->used_ms;

    if (local_copy_is_wanted(copy))
        return false;
    return idle_ms >= (contents_have_values(&copy->contents) ? conf->cache.idle_timeout_ms : KEEP_UNUSED_MS);
}

/* If the bucket is only watched and no longer read, drop the values. */
static void local_copy_drop_idle_values(struct local_copy *copy)
{
    uint64_t idle_ms = uv_now(copy->store->loop) - copy->read_ms;

    if (!contents_have_values(&copy->contents) || copy->is_configured || copy->watches.beginning_count > 0 ||
        idle_ms < copy->store->conf->cache.idle_timeout_ms)
        return;
    contents_drop_values(copy);
    min_revision_clear(&copy->min_revisions);
}

/* The next read loads the bucket again; one of cache.buckets is loaded at the next reconcile_interval at the latest. */
static bool local_copy_should_begin_anew(const struct local_copy *copy)
{
    return copy->watches.count == 0 && copy->listener == NULL && contents_may_come_back(copy);
}

/* Do the periodic work of one copy. */
static void local_copy_tick(struct local_copy *copy)
{
    if (local_copy_is_idle(copy) || local_copy_should_begin_anew(copy)) {
        local_copy_close(copy);
        return;
    }
    local_copy_drop_idle_values(copy);
    local_copy_end_doubtful_change(copy);
    if (copy->state == LOCAL_COPY_UNOPENED)
        local_copy_open(copy);
    else if (copy->state == LOCAL_COPY_OPEN)
        reconcile_tick(copy);
}

static bool run_ticking(struct job *job)
{
    struct follow_state *follow = (struct follow_state *)((char *)job - offsetof(struct follow_state, ticking));
    struct local_copy *copy;

    while ((copy = follow->next_ticking) != NULL) {
        follow->next_ticking = copy->hh.next;
        local_copy_tick(copy);
        if (jobs_slice_is_over(follow->store->jobs))
            return follow->next_ticking != NULL;
    }
    return false;
}

static void on_local_copy_tick(struct timer *timer);

/* One tick for all copies: an idle daemon wakes once for it, however many buckets it follows. */
static void local_copy_start_ticking(struct store *store)
{
    unsigned interval_ms = store->conf->watches.reconcile_interval_ms;

    timer_start(store->timers, &store->follow->tick_timer,
                uv_now(store->loop) + (interval_ms < LOCAL_COPY_TICK_MS ? interval_ms : LOCAL_COPY_TICK_MS),
                on_local_copy_tick);
}

static void on_local_copy_tick(struct timer *timer)
{
    struct follow_state *follow = (struct follow_state *)((char *)timer - offsetof(struct follow_state, tick_timer));

    if (follow->local_copies == NULL)
        return;
    local_copy_start_ticking(follow->store);
    if (follow->next_ticking == NULL) /* the last tick is over */
        follow->next_ticking = follow->local_copies;
    jobs_add(follow->store->jobs, &follow->ticking, run_ticking);
}

/* --- Obtaining ------------------------------------------------------------------------------------- */

static struct local_copy *local_copy_create(struct store *store, const char *bucket)
{
    struct local_copy *copy = calloc(1, sizeof(*copy));

    if (copy == NULL)
        return NULL;
    copy->store = store;
    snprintf(copy->name, sizeof(copy->name), "%s", bucket);
    contents_init(&copy->contents, store);
    watch_set_init(&copy->watches, store);
    HASH_ADD_STR(store->follow->local_copies, name, copy);
    copy->reconcile.checked_ms = copy->used_ms = uv_now(store->loop);
    if (!timer_is_set(&store->follow->tick_timer))
        local_copy_start_ticking(store);
    return copy;
}

static void local_copy_want_values(struct local_copy *copy, uint64_t user)
{
    bool is_begun = copy->feed.is_placed, is_idle = reconcile_is_idle(&copy->reconcile);

    copy->read_ms = copy->used_ms = uv_now(copy->store->loop);
    if (!contents_want_values(copy))
        return;
    cache_user_join(&copy->contents.cache, user);
    /* A feed that has not begun waits for the load; beside one that has, the load comes now, or at the next tick. */
    if (is_begun && is_idle && feed_is_live(&copy->feed))
        reconcile_load(copy);
    else if (is_begun || !is_idle)
        reconcile_request_load(&copy->reconcile);
}

/* Return whether the copy must not make room for another one. See local_copy_is_wanted for when nothing needs room. */
static bool local_copy_is_kept(const struct local_copy *copy)
{
    bool is_held = copy->watches.count > 0 || copy->is_configured || copy->state == LOCAL_COPY_OPENING;

    return is_held || (copy->listener != NULL && copy->listener->keeps_copy);
}

/* Of the copies that may make room, return the one that was not used for the longest time; NULL: there is none. */
static struct local_copy *local_copy_find_least_used(struct store *store)
{
    struct local_copy *copy, *next, *found = NULL;

    HASH_ITER(hh, store->follow->local_copies, copy, next)
    {
        if (!local_copy_is_kept(copy) && (found == NULL || copy->used_ms < found->used_ms))
            found = copy;
    }
    return found;
}

static bool local_copy_are_full(const struct store *store)
{
    return HASH_COUNT(store->follow->local_copies) >= store->conf->watches.max_buckets;
}

/*
 * Copies that only serve reads, or leases that count for nobody, make room for watches, and for what the configuration
 * names. Another bucket that is read has to wait until one has not been read for a while: then the least used one is
 * closed, one in REPLACE_EVERY_MS.
 */
static void local_copy_make_room(struct store *store, enum local_copy_use use)
{
    uint64_t now_ms = uv_now(store->loop);
    struct local_copy *copy;

    if (use == LOCAL_COPY_FOR_READ && now_ms < store->follow->full_until_ms)
        return;
    store->follow->full_until_ms = now_ms + REPLACE_EVERY_MS;
    copy = local_copy_find_least_used(store);
    if (copy != NULL && (use != LOCAL_COPY_FOR_READ || now_ms - copy->used_ms >= UNUSED_MS))
        local_copy_close(copy);
}

struct local_copy *local_copy_obtain(struct store *store, const char *bucket, struct bucket *known,
                                     enum local_copy_use use, uint64_t user, struct error *error)
{
    struct local_copy *copy = local_copy_find(store, bucket);

    bool is_new = copy == NULL;
    if (is_new && local_copy_are_full(store))
        local_copy_make_room(store, use);
    if (is_new && local_copy_are_full(store)) {
        error_set(error, ERROR_RESOURCE_EXHAUSTED,
                  "the limit of %u followed buckets is reached (watches.max_buckets); try again later, or raise it",
                  store->conf->watches.max_buckets);
        return NULL;
    }
    if (is_new)
        copy = local_copy_create(store, bucket);
    if (copy == NULL) {
        error_set(error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return NULL;
    }
    if (use == LOCAL_COPY_CONFIGURED)
        copy->is_configured = true;
    if (is_new || copy->is_configured)
        cache_user_join(&copy->contents.cache, copy->is_configured ? 0 : user);
    if (use != LOCAL_COPY_FOR_WATCH)
        local_copy_want_values(copy, copy->is_configured ? 0 : user);
    if (is_new && known != NULL)
        on_bucket_opened(copy, bucket_retain(known), NULL);
    else if (is_new)
        local_copy_open(copy);
    return copy;
}

bool local_copy_listen(struct store *store, const char *bucket, struct local_copy_listener *listener)
{
    struct local_copy *copy = local_copy_find(store, bucket);
    struct error ignored;

    /* One that does not keep its copy takes no other's place. */
    if (copy == NULL && local_copy_are_full(store) && !listener->keeps_copy)
        return false;
    copy = local_copy_obtain(store, bucket, NULL, LOCAL_COPY_FOR_WATCH, 0, &ignored);
    if (copy == NULL)
        return false;
    copy->listener = listener;
    listener->copy = copy;
    return true;
}

void local_copy_stop_listening(struct local_copy_listener *listener)
{
    if (listener->copy == NULL)
        return;
    listener->copy->listener = NULL;
    local_copy_note_use(listener->copy);
    listener->copy = NULL;
}

void local_copy_end_all(struct store *store)
{
    struct local_copy *copy, *next;
    struct error error;

    error_set(&error, ERROR_UNAVAILABLE, "the daemon is shutting down");
    HASH_ITER(hh, store->follow->local_copies, copy, next)
    {
        local_copy_end(copy, &error);
    }
    while (store->follow->over_local_copies != NULL)
        local_copy_end(store->follow->over_local_copies, &error);
    timer_stop(store->timers, &store->follow->tick_timer);
    jobs_remove(store->jobs, &store->follow->ticking);
}
