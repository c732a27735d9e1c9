#include "daemon/store/follow/cached_read.h"

#include "daemon/store/follow/state.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A page that is not in memory may read a bucket of up to this many keys, or this many times the page's limit. */
#define PAGE_KEYS_FREE 10000u
#define PAGE_READS_MAX 20u

/*
 * How long a read waits for the feed before it asks NATS, in ms. The feed never delivers a write that was purged first,
 * so the wait needs an end.
 */
#define WAIT_MAX_MS 50u

bool cached_read_may_answer(struct store *store, const char *bucket, enum read_consistency consistency)
{
    return consistency == READ_CACHED || cached_read_must_be_current(store, bucket, consistency);
}

bool cached_read_must_be_current(struct store *store, const char *bucket, enum read_consistency consistency)
{
    if (consistency != READ_DIRECT || store->conf->nats.mode != CONF_NATS_EMBEDDED)
        return false;
    const struct local_copy *copy = local_copy_find(store, bucket);
    if (copy != NULL)
        return local_copy_is_exclusive(copy);
    const struct bucket *known = bucket_find_known(store, bucket);
    return known == NULL || known->is_exclusive;
}

/* Return the local copy with values. NULL: the bucket was not looked up yet, or too many buckets are followed. */
static struct local_copy *cached_read_obtain_copy(struct store *store, const char *bucket, uint64_t user)
{
    struct local_copy *copy = local_copy_find(store, bucket);
    struct error ignored;

    if (copy == NULL && bucket_find_known(store, bucket) == NULL)
        return NULL;
    if (copy == NULL || !contents_have_values(&copy->contents))
        copy = local_copy_obtain(store, bucket, NULL, LOCAL_COPY_FOR_READ, user, &ignored);
    if (copy != NULL)
        copy->read_ms = copy->used_ms = uv_now(store->loop);
    return copy;
}

void cached_read_count(struct store *store, size_t keys, bool are_from_memory)
{
    if (are_from_memory)
        store->follow->cache_stats.hits += keys;
    else
        store->follow->cache_stats.misses += keys;
}

static bool is_answered(enum local_copy_answer answer)
{
    return answer == LOCAL_COPY_HAS || answer == LOCAL_COPY_LACKS;
}

static uint64_t cached_read_wait_end(const struct store *store, uint64_t deadline_ms)
{
    uint64_t until_ms = uv_now(store->loop) + WAIT_MAX_MS;

    return until_ms < deadline_ms ? until_ms : deadline_ms;
}

/* If the load takes half of the call's time, the other half is left to ask NATS. */
static uint64_t cached_read_load_end(const struct store *store, uint64_t deadline_ms)
{
    uint64_t now_ms = uv_now(store->loop);

    return now_ms < deadline_ms ? now_ms + (deadline_ms - now_ms) / 2 : deadline_ms;
}

bool cached_read_is_ready(struct store *store, const char *bucket)
{
    const struct local_copy *copy = local_copy_find(store, bucket);

    return copy != NULL && local_copy_can_answer(copy);
}

/* --- One key --------------------------------------------------------------------------------------- */

enum local_copy_answer cached_read_try(struct store *store, const struct arena *arena, const char *bucket,
                                       const char *key, size_t length, struct cache_view *view)
{
    struct local_copy *copy = cached_read_obtain_copy(store, bucket, fair_queue_user(arena->owner));
    uint64_t revision;
    enum local_copy_answer answer =
        copy != NULL ? local_copy_get(copy, key, length, view, &revision) : LOCAL_COPY_UNSURE;

    if (is_answered(answer))
        cached_read_count(store, 1, true);
    return answer;
}

static void cancel_cached_read_fetch(struct arena_task *task)
{
    local_copy_wait_cancel(&ARENA_TASK_OWNER(task, struct cached_read_fetch, task)->wait);
}

static void cached_read_fetch_from_nats(struct cached_read_fetch *fetch)
{
    fetch->get.consistency = READ_DIRECT;
    fetch->get.must_be_current = true;
    get_start(fetch->get.store, fetch->get.arena, &fetch->get);
}

/* Answer, or wait for the feed, or ask NATS. */
static void cached_read_fetch_continue(struct cached_read_fetch *fetch, struct local_copy *copy,
                                       enum local_copy_answer answer, const struct cache_view *view, uint64_t revision)
{
    if (answer == LOCAL_COPY_WAITS) {
        local_copy_wait_start(copy, &fetch->wait, LOCAL_COPY_HAS_REVISION, revision, fetch->wait_until_ms);
        return;
    }
    arena_end_task(&fetch->task);
    cached_read_count(fetch->get.store, 1, is_answered(answer));
    if (answer == LOCAL_COPY_HAS)
        fetch->get.done(fetch->get.arg, &view->entry, NULL);
    else if (answer == LOCAL_COPY_LACKS)
        fetch->get.done(fetch->get.arg, NULL, NULL);
    else
        cached_read_fetch_from_nats(fetch);
}

static void on_fetch_wait_over(void *arg, bool has_come)
{
    struct cached_read_fetch *fetch = arg;
    struct local_copy *copy = has_come ? local_copy_find(fetch->get.store, fetch->get.bucket_name) : NULL;
    const char *key = fetch->get.key;
    enum local_copy_answer answer = LOCAL_COPY_UNSURE;
    struct cache_view view;
    uint64_t revision = 0;

    if (copy != NULL)
        answer = local_copy_get_now(copy, key, strlen(key), &view, &revision);
    cached_read_fetch_continue(fetch, copy, answer, &view, revision);
}

void cached_read_fetch(struct store *store, struct arena *arena, struct cached_read_fetch *fetch)
{
    struct local_copy *copy = cached_read_obtain_copy(store, fetch->get.bucket_name, fair_queue_user(arena->owner));
    const char *key = fetch->get.key;
    enum local_copy_answer answer = LOCAL_COPY_UNSURE;
    struct cache_view view;
    uint64_t revision = 0;

    fetch->get.store = store;
    fetch->get.arena = arena;
    fetch->wait.ready = on_fetch_wait_over;
    fetch->wait.arg = fetch;
    fetch->wait_until_ms = cached_read_wait_end(store, fetch->get.deadline_ms);
    arena_begin_reading_task(arena, &fetch->task, cancel_cached_read_fetch);
    if (copy != NULL)
        answer = local_copy_get(copy, key, strlen(key), &view, &revision);
    cached_read_fetch_continue(fetch, copy, answer, &view, revision);
}

/* --- Several keys ---------------------------------------------------------------------------------- */

static void cancel_snapshot(struct arena_task *task)
{
    local_copy_wait_cancel(&ARENA_TASK_OWNER(task, struct cached_read_snapshot, task)->wait);
}

static void on_snapshot_reached(void *arg, bool has_come)
{
    struct cached_read_snapshot *snapshot = arg;

    arena_end_task(&snapshot->task);
    snapshot->ready(snapshot->arg, has_come && cached_read_is_ready(snapshot->store, snapshot->bucket_name));
}

static void on_snapshot_loaded(void *arg, bool has_come)
{
    struct cached_read_snapshot *snapshot = arg;

    arena_end_task(&snapshot->task);
    snapshot->keys = 0;
    if (has_come)
        cached_read_await_snapshot(snapshot->store, snapshot->arena, snapshot);
    else
        snapshot->ready(snapshot->arg, false);
}

static void cached_read_wait(struct cached_read_snapshot *snapshot, struct local_copy *copy,
                             enum local_copy_event event)
{
    bool is_load = event == LOCAL_COPY_IS_LOADED;
    uint64_t until_ms = is_load ? cached_read_load_end(snapshot->store, snapshot->deadline_ms)
                                : cached_read_wait_end(snapshot->store, snapshot->deadline_ms);

    snapshot->has_waited = true;
    snapshot->wait.ready = is_load ? on_snapshot_loaded : on_snapshot_reached;
    snapshot->wait.arg = snapshot;
    snapshot->wait.keys = snapshot->keys;
    snapshot->wait.is_of_all = snapshot->is_of_all;
    arena_begin_reading_task(snapshot->arena, &snapshot->task, cancel_snapshot);
    local_copy_wait_start(copy, &snapshot->wait, event, is_load ? 0 : snapshot->revision, until_ms);
}

void cached_read_await_snapshot(struct store *store, struct arena *arena, struct cached_read_snapshot *snapshot)
{
    struct local_copy *copy = cached_read_obtain_copy(store, snapshot->bucket_name, fair_queue_user(arena->owner));

    snapshot->store = store;
    snapshot->arena = arena;
    if (copy != NULL && local_copy_load_is_worth_waiting(copy, snapshot->keys)) {
        cached_read_wait(snapshot, copy, LOCAL_COPY_IS_LOADED);
        return;
    }
    if (copy == NULL || !local_copy_can_answer(copy)) {
        snapshot->ready(snapshot->arg, false);
        return;
    }
    if (!snapshot->has_begun)
        snapshot->revision = min_revision_of_all(&copy->min_revisions);
    snapshot->has_begun = true;
    enum local_copy_event event = local_copy_event_for_all(copy);
    bool has_come = local_copy_has_reached(copy, snapshot->revision, event) &&
                    (!snapshot->is_of_all || copy->min_revisions.skipped_count == 0);
    if (has_come || !local_copy_may_wait(copy))
        snapshot->ready(snapshot->arg, has_come);
    else
        cached_read_wait(snapshot, copy, event);
}

enum local_copy_answer cached_read_try_now(struct store *store, const char *bucket, const char *key, size_t length,
                                           struct cache_view *view)
{
    struct local_copy *copy = local_copy_find(store, bucket);
    uint64_t revision;
    enum local_copy_answer answer =
        copy != NULL ? local_copy_get_now(copy, key, length, view, &revision) : LOCAL_COPY_UNSURE;

    return answer == LOCAL_COPY_WAITS ? LOCAL_COPY_UNSURE : answer;
}

/* --- All keys -------------------------------------------------------------------------------------- */

/* Return the filter's part before its first wildcard: each key that matches begins with it. NULL: out of memory. */
static const char *cached_read_prefix_of(struct arena *arena, const char *filter)
{
    return filter != NULL ? arena_strndup(arena, filter, strcspn(filter, "*>")) : "";
}

static void cancel_cached_read_keys(struct arena_task *task)
{
    struct cached_read_keys *keys = ARENA_TASK_OWNER(task, struct cached_read_keys, task);

    walks_remove(&keys->walk);
    free(keys->last);
}

static void cached_read_keys_end(struct cached_read_keys *keys)
{
    arena_end_task(&keys->task);
    free(keys->last);
}

static void cached_read_keys_finish(struct cached_read_keys *keys)
{
    cached_read_keys_end(keys);
    scan_keys_finish(&keys->keys, NULL);
}

/* Return the place of the first key that may belong to the listing and was not looked at yet. */
static struct key_order_place cached_read_keys_place(const struct cached_read_keys *keys, const struct cache *cache)
{
    const char *after = keys->last != NULL ? keys->last : keys->keys.after;

    if (after != NULL && strcmp(after, keys->prefix) >= 0)
        return cache_place(cache, after, true);
    return cache_place(cache, keys->prefix, false);
}

enum keys_verdict { KEYS_CONTINUE, KEYS_DONE, KEYS_NEED_NATS };

static enum keys_verdict cached_read_keys_add(struct cached_read_keys *keys, const struct local_copy *copy,
                                              const struct cache_key *key)
{
    const char *name = cache_key_name(key);

    if (strncmp(name, keys->prefix, strlen(keys->prefix)) != 0)
        return KEYS_DONE;
    if (kv_is_reserved(name) || (keys->keys.filter != NULL && !kv_filter_matches(keys->keys.filter, name)))
        return KEYS_CONTINUE;
    /* The bucket has no markers of expired values: only the server knows whether the key is still there. */
    if (copy->feed.info.expires_silently && local_copy_has_expired(copy, key))
        return KEYS_NEED_NATS;
    return scan_keys_add(&keys->keys, name) ? KEYS_CONTINUE : KEYS_DONE;
}

static void cached_read_keys_await(struct cached_read_keys *keys);

static void cached_read_keys_step(struct walk *walk)
{
    cached_read_keys_await((struct cached_read_keys *)((char *)walk - offsetof(struct cached_read_keys, walk)));
}

/* Continue after this key in the next turn. False: out of memory. */
static bool cached_read_keys_pause(struct cached_read_keys *keys, const struct cache_key *key)
{
    free(keys->last);
    keys->last = strdup(cache_key_name(key));
    if (keys->last == NULL)
        return false;
    walks_add(keys->keys.store, &keys->walk, keys->keys.arena->owner, cached_read_keys_step);
    return true;
}

/*
 * A page that is not in memory costs a reading of the whole bucket. Reading a large bucket in such pages would take
 * time in proportion to the square of its keys, and the server would have no time for other requests.
 */
bool cached_read_page_is_too_costly(struct store *store, const char *bucket, size_t limit, const char *instead,
                                    struct error *error)
{
    const struct local_copy *copy = local_copy_find(store, bucket);

    if (limit == 0 || copy == NULL || copy->contents.state != CONTENTS_GIVEN_UP ||
        copy->feed.info.subjects <= PAGE_KEYS_FREE || copy->feed.info.subjects / PAGE_READS_MAX <= limit)
        return false;
    error_set(error, ERROR_RESOURCE_EXHAUSTED,
              "the bucket's %" PRIu64
              " keys exceed cache.max_bytes, so that each page would read all of them; %s, which reads them once",
              copy->feed.info.subjects, instead);
    return true;
}

static void cached_read_keys_from_nats(struct cached_read_keys *keys)
{
    struct error error;

    cached_read_keys_end(keys);
    if (!keys->is_direct && cached_read_page_is_too_costly(keys->keys.store, keys->keys.bucket_name, keys->keys.limit,
                                                           "use a watch with meta_only", &error)) {
        scan_keys_finish(&keys->keys, &error);
        return;
    }
    cached_read_count(keys->keys.store, 1, false);
    scan_keys_from_nats(&keys->keys);
}

static void on_keys_snapshot(void *arg, bool has_come)
{
    struct cached_read_keys *keys = arg;
    struct local_copy *copy = local_copy_find(keys->keys.store, keys->keys.bucket_name);
    struct cache_key *key;

    if (!has_come || min_revision_has_open_keys(&copy->min_revisions)) {
        cached_read_keys_from_nats(keys);
        return;
    }
    size_t left = keys->snapshot.has_waited ? CACHED_READ_WOKEN_KEYS : SIZE_MAX;
    struct key_order_place place = cached_read_keys_place(keys, &copy->contents.cache);
    while ((key = cache_next_in_order(&copy->contents.cache, &place)) != NULL) {
        enum keys_verdict verdict = cached_read_keys_add(keys, copy, key);
        if (verdict == KEYS_DONE)
            break;
        bool is_late = verdict == KEYS_CONTINUE && (--left == 0 || jobs_slice_is_over(keys->keys.store->jobs));
        if (verdict == KEYS_NEED_NATS || (is_late && !cached_read_keys_pause(keys, key))) {
            cached_read_keys_from_nats(keys);
            return;
        }
        if (is_late)
            return;
    }
    cached_read_count(keys->keys.store, 1, true);
    cached_read_keys_finish(keys);
}

static void cached_read_keys_await(struct cached_read_keys *keys)
{
    keys->snapshot.bucket_name = keys->keys.bucket_name;
    keys->snapshot.keys = SIZE_MAX;
    keys->snapshot.is_of_all = true;
    keys->snapshot.deadline_ms = keys->keys.deadline_ms;
    keys->snapshot.has_waited = false;
    keys->snapshot.ready = on_keys_snapshot;
    keys->snapshot.arg = keys;
    cached_read_await_snapshot(keys->keys.store, keys->keys.arena, &keys->snapshot);
}

static void on_keys_bucket_open(void *arg, struct bucket *bucket, const struct error *error)
{
    struct cached_read_keys *keys = arg;

    if (error != NULL) {
        cached_read_keys_end(keys);
        scan_keys_finish(&keys->keys, error);
        return;
    }
    if (keys->is_direct && !bucket->is_exclusive)
        cached_read_keys_from_nats(keys);
    else
        cached_read_keys_await(keys);
    bucket_release(bucket);
}

void cached_read_keys(struct store *store, struct arena *arena, struct cached_read_keys *keys)
{
    scan_keys_begin(store, arena, &keys->keys);
    keys->prefix = cached_read_prefix_of(arena, keys->keys.filter);
    arena_begin_reading_task(arena, &keys->task, cancel_cached_read_keys);
    /* A bucket that is not followed yet is looked up first, so that its copy begins. */
    if (keys->prefix == NULL)
        cached_read_keys_from_nats(keys);
    else if (local_copy_find(store, keys->keys.bucket_name) == NULL)
        bucket_open(store, &keys->keys.wait, keys->keys.bucket_name, arena->owner, keys->keys.deadline_ms,
                    on_keys_bucket_open, keys);
    else
        cached_read_keys_await(keys);
}
