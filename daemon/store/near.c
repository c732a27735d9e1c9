#include "daemon/store/near.h"
#include "daemon/table.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/*
 * How long after a write a listing of keys waits for the feed to bring it, at a time and in all. A write that was
 * purged before its delivery never comes.
 */
#define WAIT_MS     2u
#define WAIT_MAX_MS 100u

/* One question to NATS, and who waits for the answer. */
struct near_fetch {
    UT_hash_handle hh; /* by name */
    struct read_get get;
    struct arena arena;
    struct store *store;
    struct near_get *waiting;
    struct near_fetch *next_answered, *previous_answered;
    struct job answering;
    struct error error; /* code ERROR_NONE: none */
    bool has_entry;
    struct kv_entry entry; /* a copy */
    size_t name_bytes;
    char name[]; /* the bucket, a NUL, the key, a NUL */
};

/*
 * The bucket's replica, with values. A bucket that is not known to exist gets none: what does not exist takes no room.
 * When too many buckets are followed there is none either. Then NATS is asked.
 */
static struct replica *obtain(struct store *store, const char *bucket, struct replica *replica)
{
    struct error ignored;

    if (replica != NULL && replica->keeps_values)
        return replica;
    if (replica == NULL && !bucket_is_known(store, bucket))
        return NULL;
    return replica_obtain(store, bucket, REPLICA_FOR_CACHE, &ignored);
}

/* --- At once --------------------------------------------------------------------------------------- */

enum replica_answer near_look(struct store *store, const char *bucket, const char *key, size_t length,
                              struct cache_view *view)
{
    struct replica *replica = replica_find(store, bucket);
    enum replica_answer answer = REPLICA_UNSURE;

    replica = obtain(store, bucket, replica);
    if (replica != NULL) {
        replica->read_ms = replica->used_ms = uv_now(store->loop);
        answer = replica_get(replica, key, length, view);
    }
    if (answer == REPLICA_UNSURE)
        store->cache_stats.misses++;
    else
        store->cache_stats.hits++;
    return answer;
}

bool near_can_answer(struct store *store, const char *bucket)
{
    const struct replica *replica = replica_find(store, bucket);

    return replica != NULL && replica_can_answer(replica);
}

enum read_consistency near_consistency(struct store *store, const char *bucket)
{
    const struct replica *replica = replica_find(store, bucket);
    bool is_alone = replica != NULL && replica->feed.info.replicas == 1;

    /* The only replica knows of every ack; of several one may be behind. */
    return is_alone ? READ_DIRECT : READ_LEADER;
}

/* --- From NATS ------------------------------------------------------------------------------------- */

static void leave(struct near_get *get)
{
    DL_DELETE2(get->fetch->waiting, get, previous, next);
    get->fetch = NULL;
    timer_stop(get->store->timers, &get->timer);
    arena_end_task(&get->task);
}

static void cancel_near_get(struct arena_task *task)
{
    struct near_get *get = ARENA_TASK_OWNER(task, struct near_get, task);

    if (get->fetch != NULL)
        leave(get);
}

static void on_too_long(struct timer *timer)
{
    struct near_get *get = (struct near_get *)((char *)timer - offsetof(struct near_get, timer));
    struct error error;

    if (bucket_is_waited_for(&get->fetch->get.wait))
        bucket_wait_set_late(&get->fetch->get.wait, &error);
    else if (link_is_up(get->store->link))
        error_set(&error, ERROR_DEADLINE_EXCEEDED, "no answer in time: the NATS server did not answer; try again");
    else
        error_set(&error, ERROR_UNAVAILABLE, "there was no connection to NATS in time; try again later");
    leave(get);
    get->done(get->arg, NULL, &error);
}

static void free_fetch(struct near_fetch *fetch)
{
    arena_destroy(&fetch->arena);
    free(fetch);
}

/* Who came while the question was under way may have to be answered something newer, and asks again. */
static void answer_one(struct near_fetch *fetch)
{
    struct store *store = fetch->store;
    struct near_get *get = fetch->waiting;
    const struct error *error = fetch->error.code != ERROR_NONE ? &fetch->error : NULL;
    bool is_there = fetch->has_entry && fetch->entry.operation == KV_PUT;
    uint64_t revision = fetch->has_entry ? fetch->entry.revision : 0;

    leave(get);
    if (get->is_late && error == NULL && revision < get->floor)
        near_get(store, get->arena, get);
    else
        get->done(get->arg, is_there ? &fetch->entry : NULL, error);
}

/* Thousands may wait for one answer: they get it a slice at a time. */
static bool run_answering(struct job *job)
{
    struct near_fetch *fetch = (struct near_fetch *)((char *)job - offsetof(struct near_fetch, answering));

    while (fetch->waiting != NULL) {
        answer_one(fetch);
        if (fetch->waiting != NULL && jobs_slice_is_over(fetch->store->jobs))
            return true;
    }
    DL_DELETE2(fetch->store->answered_fetches, fetch, previous_answered, next_answered);
    free_fetch(fetch);
    return false;
}

static void on_fetched(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct near_fetch *fetch = arg;
    struct store *store = fetch->store;
    struct replica *replica = replica_find(store, fetch->get.bucket);

    HASH_DEL(store->fetches, fetch);
    DL_APPEND2(store->answered_fetches, fetch, previous_answered, next_answered);
    if (entry != NULL && replica != NULL)
        replica_note_read(replica, fetch->get.key, entry);
    if (error != NULL)
        fetch->error = *error;
    /* The entry is gone after this call. */
    fetch->has_entry = entry != NULL && read_copy_entry(&fetch->arena, entry, &fetch->entry);
    if (entry != NULL && !fetch->has_entry)
        error_set(&fetch->error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    if (run_answering(&fetch->answering))
        jobs_add(store->jobs, &fetch->answering, run_answering);
}

void near_end_all(struct store *store)
{
    struct near_fetch *fetch;

    while ((fetch = store->answered_fetches) != NULL) {
        while (fetch->waiting != NULL)
            answer_one(fetch);
        jobs_remove(store->jobs, &fetch->answering);
        DL_DELETE2(store->answered_fetches, fetch, previous_answered, next_answered);
        free_fetch(fetch);
    }
}

static struct near_fetch *make_fetch(struct store *store, const char *bucket, const char *key)
{
    size_t bucket_bytes = strlen(bucket) + 1, key_bytes = strlen(key) + 1;
    struct near_fetch *fetch = calloc(1, sizeof(*fetch) + bucket_bytes + key_bytes);

    if (fetch == NULL || !arena_init(&fetch->arena, 1024)) {
        free(fetch);
        return NULL;
    }
    fetch->store = store;
    fetch->name_bytes = bucket_bytes + key_bytes;
    memcpy(fetch->name, bucket, bucket_bytes);
    memcpy(fetch->name + bucket_bytes, key, key_bytes);
    fetch->get.bucket = fetch->name;
    fetch->get.key = fetch->name + bucket_bytes;
    fetch->get.consistency = near_consistency(store, bucket);
    fetch->get.with_markers = true;
    /* Each who waits has a deadline of its own. */
    fetch->get.deadline_ms = uv_now(store->loop) + store->conf->calls.max_timeout_ms;
    fetch->get.done = on_fetched;
    fetch->get.arg = fetch;
    return fetch;
}

static struct near_fetch *find_fetch(const struct store *store, const char *bucket, const char *key)
{
    char name[KV_BUCKET_LENGTH_MAX + KV_KEY_LENGTH_MAX + 2];
    size_t bucket_bytes = strlen(bucket) + 1, key_bytes = strlen(key) + 1;
    struct near_fetch *fetch = NULL;

    if (store->fetches == NULL)
        return NULL;
    memcpy(name, bucket, bucket_bytes);
    memcpy(name + bucket_bytes, key, key_bytes);
    HASH_FIND(hh, store->fetches, name, bucket_bytes + key_bytes, fetch);
    return fetch;
}

void near_get(struct store *store, struct arena *arena, struct near_get *get)
{
    struct replica *replica = replica_find(store, get->bucket);
    struct near_fetch *fetch = find_fetch(store, get->bucket, get->key);
    struct error error;

    get->store = store;
    get->arena = arena;
    get->is_late = fetch != NULL;
    get->floor = replica != NULL ? replica_floor_of(replica, get->key, strlen(get->key)) : 0;
    if (!get->is_late && (fetch = make_fetch(store, get->bucket, get->key)) == NULL) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        get->done(get->arg, NULL, &error);
        return;
    }
    get->fetch = fetch;
    DL_APPEND2(fetch->waiting, get, previous, next);
    arena_begin_task(arena, &get->task, cancel_near_get);
    timer_start(store->timers, &get->timer, get->deadline_ms, on_too_long);
    if (get->is_late)
        return;
    HASH_ADD_KEYPTR(hh, store->fetches, fetch->name, fetch->name_bytes, fetch);
    read_get(store, &fetch->arena, &fetch->get);
}

/* --- Keys ------------------------------------------------------------------------------------------ */

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void answer_keys(struct read_keys *keys, const struct replica *replica)
{
    const char **names = malloc((replica->cache.count + 1) * sizeof(*names));
    size_t count = 0, bytes = 0;
    struct error error = {.code = ERROR_NONE};

    if (names == NULL)
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    for (struct cache_key *key = replica->cache.oldest; names != NULL && key != NULL; key = key->newer) {
        const char *name = cache_key_name(key);
        if (cache_operation(key) == KV_PUT && (keys->after == NULL || strcmp(name, keys->after) > 0) &&
            (keys->filter == NULL || kv_filter_matches(keys->filter, name)))
            names[count++] = name;
    }
    if (count > 0)
        qsort((void *)names, count, sizeof(*names), compare_keys);
    if (keys->limit > 0 && count > keys->limit)
        count = keys->limit;
    for (size_t i = 0; i < count; i++)
        bytes += strlen(names[i]) + 3;
    if (bytes > keys->bytes_max)
        error_set(&error, ERROR_TOO_LARGE,
                  "the keys have more than %zu bytes (limits.frame_bytes); ask for them in pages with limit and after",
                  keys->bytes_max);
    bool has_failed = error.code != ERROR_NONE;
    arena_end_task(&keys->task);
    keys->done(keys->arg, names, has_failed ? 0 : count, has_failed ? &error : NULL);
    free((void *)names);
}

static void try_keys(struct read_keys *keys);

static void on_waited(struct timer *timer)
{
    try_keys((struct read_keys *)((char *)timer - offsetof(struct read_keys, timer)));
}

static void try_keys(struct read_keys *keys)
{
    struct store *store = keys->store;
    struct replica *replica = replica_find(store, keys->bucket);
    uint64_t now_ms = uv_now(store->loop);

    if (replica == NULL || !replica_can_answer(replica) || now_ms >= keys->waits_until_ms) {
        arena_end_task(&keys->task);
        read_keys(store, keys->arena, keys);
        return;
    }
    if (replica_highest_floor(replica) <= feed_position(&replica->feed)) {
        answer_keys(keys, replica);
        return;
    }
    timer_start(store->timers, &keys->timer, now_ms + WAIT_MS, on_waited);
}

void near_keys(struct store *store, struct arena *arena, struct read_keys *keys)
{
    struct replica *replica = obtain(store, keys->bucket, replica_find(store, keys->bucket));

    keys->store = store;
    keys->arena = arena;
    keys->waits_until_ms = uv_now(store->loop) + WAIT_MAX_MS;
    arena_begin_task(arena, &keys->task, read_keys_cancel);
    if (replica != NULL)
        replica->read_ms = replica->used_ms = uv_now(store->loop);
    try_keys(keys);
}
