#include "daemon/store/follow/cached_read.h"

#include "daemon/store/follow/state.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A page that is not in memory may read a bucket of up to so many keys, or of up to so many times its limit. */
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
    const struct bucket *handle = bucket_find_known(store, bucket);
    return handle == NULL || handle->is_exclusive;
}

/* The bucket's replica, with values. NULL: the bucket was not looked up yet, or too many buckets are followed. */
static struct local_copy *obtain(struct store *store, const char *bucket)
{
    struct local_copy *copy = local_copy_find(store, bucket);
    struct error ignored;

    if (copy == NULL && bucket_find_known(store, bucket) == NULL)
        return NULL;
    if (copy == NULL || !copy->keeps_values)
        copy = local_copy_obtain(store, bucket, REPLICA_FOR_CACHE, &ignored);
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

static bool is_known(enum local_copy_answer answer)
{
    return answer == REPLICA_HAS || answer == REPLICA_LACKS;
}

static uint64_t wait_until(const struct store *store, uint64_t deadline_ms)
{
    uint64_t until_ms = uv_now(store->loop) + WAIT_MAX_MS;

    return until_ms < deadline_ms ? until_ms : deadline_ms;
}

bool cached_read_is_ready(struct store *store, const char *bucket)
{
    const struct local_copy *copy = local_copy_find(store, bucket);

    return copy != NULL && local_copy_can_answer(copy);
}

/* --- One key --------------------------------------------------------------------------------------- */

typedef enum local_copy_answer look_fn(struct local_copy *copy, const char *key, size_t length, struct cache_view *view,
                                       uint64_t *revision);

/* replica: NULL where nothing is known. */
static enum local_copy_answer look_with(look_fn *look, struct local_copy *copy, const char *key, size_t length,
                                        struct cache_view *view, uint64_t *revision)
{
    return copy != NULL ? look(copy, key, length, view, revision) : REPLICA_UNSURE;
}

enum local_copy_answer cached_read_look(struct store *store, const char *bucket, const char *key, size_t length,
                                        struct cache_view *view)
{
    uint64_t revision;
    enum local_copy_answer answer = look_with(local_copy_get, obtain(store, bucket), key, length, view, &revision);

    if (is_known(answer))
        cached_read_count(store, 1, true);
    return answer;
}

static void cancel_cached_read_get(struct arena_task *task)
{
    local_copy_wait_cancel(&ARENA_TASK_OWNER(task, struct cached_read_get, task)->wait);
}

static void ask_nats(struct cached_read_get *get, struct store *store, struct arena *arena)
{
    get->get.consistency = READ_DIRECT;
    get->get.must_be_current = true;
    read_get(store, arena, &get->get);
}

/* What was found, or nothing is known and NATS is asked. */
static void finish_near_get(struct cached_read_get *get, enum local_copy_answer answer, const struct cache_view *view)
{
    struct store *store = get->get.store;

    arena_end_task(&get->task);
    cached_read_count(store, 1, is_known(answer));
    switch (answer) {
    case REPLICA_HAS:
        get->get.done(get->get.arg, &view->entry, NULL);
        break;
    case REPLICA_LACKS:
        get->get.done(get->get.arg, NULL, NULL);
        break;
    case REPLICA_WAITS:
    case REPLICA_UNSURE:
        ask_nats(get, store, get->get.arena);
        break;
    }
}

/* Looks, and finishes or waits. */
static void go_on(struct cached_read_get *get, struct local_copy *copy, look_fn *look)
{
    const char *key = get->get.key;
    struct cache_view view;
    uint64_t revision = 0;
    enum local_copy_answer answer = look_with(look, copy, key, strlen(key), &view, &revision);

    if (answer == REPLICA_WAITS)
        local_copy_await(copy, &get->wait, revision, false, get->wait_until_ms);
    else
        finish_near_get(get, answer, &view);
}

static void on_feed_has_come(void *arg, bool has_come)
{
    struct cached_read_get *get = arg;

    go_on(get, has_come ? local_copy_find(get->get.store, get->get.bucket) : NULL, local_copy_get_now);
}

void cached_read_get(struct store *store, struct arena *arena, struct cached_read_get *get)
{
    get->get.store = store;
    get->get.arena = arena;
    get->wait.ready = on_feed_has_come;
    get->wait.arg = get;
    get->wait_until_ms = wait_until(store, get->get.deadline_ms);
    arena_begin_task(arena, &get->task, cancel_cached_read_get);
    go_on(get, obtain(store, get->get.bucket), local_copy_get);
}

/* --- Several keys ---------------------------------------------------------------------------------- */

static void cancel_moment(struct arena_task *task)
{
    local_copy_wait_cancel(&ARENA_TASK_OWNER(task, struct cached_read_moment, task)->wait);
}

static void on_moment(void *arg, bool has_come)
{
    struct cached_read_moment *moment = arg;

    arena_end_task(&moment->task);
    moment->ready(moment->arg, has_come && cached_read_is_ready(moment->store, moment->bucket));
}

static void on_loaded(void *arg, bool has_come)
{
    struct cached_read_moment *moment = arg;

    arena_end_task(&moment->task);
    moment->waits_for_load = false;
    if (has_come)
        cached_read_await_moment(moment->store, moment->arena, moment);
    else
        moment->ready(moment->arg, false);
}

static void begin_wait(struct cached_read_moment *moment, void (*ready)(void *arg, bool has_come))
{
    moment->wait.ready = ready;
    moment->wait.arg = moment;
    arena_begin_task(moment->arena, &moment->task, cancel_moment);
}

void cached_read_await_moment(struct store *store, struct arena *arena, struct cached_read_moment *moment)
{
    struct local_copy *copy = obtain(store, moment->bucket);

    moment->store = store;
    moment->arena = arena;
    if (moment->waits_for_load && copy != NULL && local_copy_is_worth_waiting(copy)) {
        begin_wait(moment, on_loaded);
        local_copy_await_load(copy, &moment->wait, moment->deadline_ms);
        return;
    }
    if (copy == NULL || !local_copy_can_answer(copy)) {
        moment->ready(moment->arg, false);
        return;
    }
    if (!moment->has_begun)
        moment->revision = local_copy_highest_floor(copy);
    moment->has_begun = true;
    bool is_whole = local_copy_is_exclusive(copy);
    bool has_come = local_copy_has_reached(copy, moment->revision, is_whole);
    if (has_come || !local_copy_may_await(copy)) {
        moment->ready(moment->arg, has_come);
        return;
    }
    begin_wait(moment, on_moment);
    local_copy_await(copy, &moment->wait, moment->revision, is_whole, wait_until(store, moment->deadline_ms));
}

enum local_copy_answer cached_read_look_now(struct store *store, const char *bucket, const char *key, size_t length,
                                            struct cache_view *view)
{
    uint64_t revision;
    enum local_copy_answer answer =
        look_with(local_copy_get_now, local_copy_find(store, bucket), key, length, view, &revision);

    return answer == REPLICA_WAITS ? REPLICA_UNSURE : answer;
}

/* --- Keys ------------------------------------------------------------------------------------------ */

/* The filter's part before its first wildcard: every key that matches begins with it. NULL: out of memory. */
static const char *prefix_of(struct arena *arena, const char *filter)
{
    return filter != NULL ? arena_strndup(arena, filter, strcspn(filter, "*>")) : "";
}

static void cancel_near_keys(struct arena_task *task)
{
    struct cached_read_keys *keys = ARENA_TASK_OWNER(task, struct cached_read_keys, task);

    jobs_remove(keys->keys.store->jobs, &keys->job);
    free(keys->last);
}

static void end_near_keys(struct cached_read_keys *keys)
{
    arena_end_task(&keys->task);
    free(keys->last);
}

static void finish_near_keys(struct cached_read_keys *keys)
{
    end_near_keys(keys);
    read_keys_finish(&keys->keys, NULL);
}

/* The first key that may belong to the listing and was not looked at yet. */
static struct order_place begin_place(const struct cached_read_keys *keys, const struct cache *cache)
{
    const char *after = keys->last != NULL ? keys->last : keys->keys.after;

    if (after != NULL && strcmp(after, keys->prefix) >= 0)
        return cache_place(cache, after, true);
    return cache_place(cache, keys->prefix, false);
}

enum look { LOOK_ON, LOOK_IS_DONE, LOOK_AT_NATS };

static enum look take_key(struct cached_read_keys *keys, const struct local_copy *copy, const struct cache_key *key)
{
    const char *name = cache_key_name(key);

    if (strncmp(name, keys->prefix, strlen(keys->prefix)) != 0)
        return LOOK_IS_DONE;
    if (keys->keys.filter != NULL && !kv_filter_matches(keys->keys.filter, name))
        return LOOK_ON;
    /* The bucket has no markers of expired values: only the server knows whether the key is still there. */
    if (copy->feed.info.expires_silently && local_copy_has_expired(copy, key))
        return LOOK_AT_NATS;
    return read_keys_add(&keys->keys, name) ? LOOK_ON : LOOK_IS_DONE;
}

static void await_keys(struct cached_read_keys *keys);

static bool run_keys(struct job *job)
{
    await_keys((struct cached_read_keys *)((char *)job - offsetof(struct cached_read_keys, job)));
    return false;
}

/* The rest comes in the next turn. False: out of memory. */
static bool go_on_later(struct cached_read_keys *keys, const struct cache_key *key)
{
    free(keys->last);
    keys->last = strdup(cache_key_name(key));
    if (keys->last == NULL)
        return false;
    jobs_add(keys->keys.store->jobs, &keys->job, run_keys);
    return true;
}

/*
 * A page that is not in memory costs a reading of the whole bucket. Reading a large bucket in such pages would take
 * time in proportion to the square of its keys, and the server would have no time for other requests.
 */
static bool is_page_too_dear(const struct cached_read_keys *keys, struct error *error)
{
    const struct local_copy *copy = local_copy_find(keys->keys.store, keys->keys.bucket);
    size_t limit = keys->keys.limit;

    if (keys->is_direct || limit == 0 || copy == NULL || !copy->is_partial ||
        copy->feed.info.subjects <= PAGE_KEYS_FREE || copy->feed.info.subjects / PAGE_READS_MAX <= limit)
        return false;
    error_set(error, ERROR_RESOURCE_EXHAUSTED,
              "the bucket's %" PRIu64 " keys do not fit into memory (cache.max_bytes), so each page would read all of "
              "them; a watch with meta_only reads them once",
              copy->feed.info.subjects);
    return true;
}

static void ask_nats_for_keys(struct cached_read_keys *keys)
{
    struct error error;

    end_near_keys(keys);
    if (is_page_too_dear(keys, &error)) {
        read_keys_finish(&keys->keys, &error);
        return;
    }
    cached_read_count(keys->keys.store, 1, false);
    read_keys_from_nats(&keys->keys);
}

static void look_through(void *arg, bool has_come)
{
    struct cached_read_keys *keys = arg;
    struct local_copy *copy = local_copy_find(keys->keys.store, keys->keys.bucket);
    struct cache_key *key;

    if (!has_come || copy->doubt_count > 0) {
        ask_nats_for_keys(keys);
        return;
    }
    struct order_place place = begin_place(keys, &copy->cache);
    while ((key = cache_next_in_order(&copy->cache, &place)) != NULL) {
        enum look look = take_key(keys, copy, key);
        if (look == LOOK_IS_DONE)
            break;
        bool is_late = look == LOOK_ON && jobs_slice_is_over(keys->keys.store->jobs);
        if (look == LOOK_AT_NATS || (is_late && !go_on_later(keys, key))) {
            ask_nats_for_keys(keys);
            return;
        }
        if (is_late)
            return;
    }
    cached_read_count(keys->keys.store, 1, true);
    finish_near_keys(keys);
}

static void await_keys(struct cached_read_keys *keys)
{
    keys->moment.bucket = keys->keys.bucket;
    keys->moment.waits_for_load = true;
    keys->moment.deadline_ms = keys->keys.deadline_ms;
    keys->moment.ready = look_through;
    keys->moment.arg = keys;
    cached_read_await_moment(keys->keys.store, keys->keys.arena, &keys->moment);
}

static void on_known(void *arg, struct bucket *bucket, const struct error *error)
{
    struct cached_read_keys *keys = arg;

    if (error != NULL) {
        end_near_keys(keys);
        read_keys_finish(&keys->keys, error);
        return;
    }
    if (keys->is_direct && !bucket->is_exclusive)
        ask_nats_for_keys(keys);
    else
        await_keys(keys);
    bucket_release(bucket);
}

void cached_read_keys(struct store *store, struct arena *arena, struct cached_read_keys *keys)
{
    read_keys_begin(store, arena, &keys->keys);
    keys->prefix = prefix_of(arena, keys->keys.filter);
    arena_begin_task(arena, &keys->task, cancel_near_keys);
    /* A bucket that is not followed yet is looked up first, so that its copy begins. */
    if (keys->prefix == NULL)
        ask_nats_for_keys(keys);
    else if (local_copy_find(store, keys->keys.bucket) == NULL)
        bucket_open(store, &keys->keys.wait, keys->keys.bucket, arena->owner, keys->keys.deadline_ms, on_known, keys);
    else
        await_keys(keys);
}
