#include "daemon/store/follow/entries_read.h"

#include "daemon/base/backoff.h"
#include "daemon/store/follow/local_copy.h"

#include <stdlib.h>
#include <string.h>

/* What an entry takes in an answer besides its key, value and headers, about. */
#define ENTRY_BYTES 80u

/* How often the keys are read before it fails, because keys at the beginning of the page come and go. */
#define TRIES_MAX 16u

/* After this number of such tries the page is small, and the leader of the stream is asked for each value. */
#define TRIES_BEFORE_SINGLE 2u
#define SINGLE_KEYS_MAX     64u

/* The pause before the next try: see backoff_ms. */
#define TRY_MIN_MS 8u
#define TRY_MAX_MS 200u

static void entries_begin(struct entries_read *read);

/* --- Life ------------------------------------------------------------------------------------------- */

static void entries_set_cursor(struct entries_read *read, char *name, bool skips_it)
{
    free(read->cursor);
    read->cursor = name;
    read->skips_cursor = skips_it;
}

static void entries_cancel(struct arena_task *task)
{
    struct entries_read *read = ARENA_TASK_OWNER(task, struct entries_read, task);

    bucket_wait_cancel(&read->wait);
    walks_remove(&read->walk);
    timer_stop(read->store->timers, &read->try_timer);
    free(read->cursor);
}

static void entries_finish(struct entries_read *read, const struct error *error)
{
    arena_end_task(&read->task);
    free(read->cursor);
    read->done(read->arg, error == NULL ? read->count : 0, error);
}

static void entries_fail(struct entries_read *read, enum error_code code, const char *sentence)
{
    struct error error;

    error_set(&error, code, "%s", sentence);
    entries_finish(read, &error);
}

/* Discard what was read. */
static void entries_clear(struct entries_read *read)
{
    if (read->count > 0)
        read->restart(read->arg);
    read->count = 0;
    read->bytes = 0;
    read->is_rechecked = false;
    entries_set_cursor(read, NULL, false);
}

/* False: the limit of memory is reached, and the reading has failed. */
static bool entries_charge(struct entries_read *read)
{
    size_t more = read->bytes > read->charged ? read->bytes - read->charged : 0;
    struct error error;

    read->charged += more;
    if (read->take_memory(read->memory_arg, more))
        return true;
    get_set_memory_error(&error, "less");
    entries_finish(read, &error);
    return false;
}

/* Return whether one more entry of this size would make the page too large. */
static bool entries_is_page_over(const struct entries_read *read, uint64_t bytes)
{
    return read->count > 0 && read->bytes + bytes > ENTRIES_PAGE_BYTES;
}

/* --- Values from NATS ------------------------------------------------------------------------------- */

static void on_entries_again(struct timer *timer)
{
    struct entries_read *read = (struct entries_read *)((char *)timer - offsetof(struct entries_read, try_timer));

    entries_clear(read);
    entries_begin(read);
}

/* The first key of the page has changed since its revision was read. */
static void entries_try_again(struct entries_read *read)
{
    uint64_t again_ms = uv_now(read->store->loop) + backoff_ms(++read->tries, TRY_MIN_MS, TRY_MAX_MS);
    struct error error;

    if (read->tries < TRIES_MAX && again_ms < read->deadline_ms) {
        timer_start(read->store->timers, &read->try_timer, again_ms, on_entries_again);
        return;
    }
    error_set(&error, ERROR_UNAVAILABLE,
              "the keys up to %.64s have changed during each of %u attempts to read them; try again", read->names[0],
              read->tries);
    entries_finish(read, &error);
}

static void entries_recheck(struct entries_read *read);

/*
 * The keys up to the first one that have had a message since. If the first one is not the lowest, others have come. If
 * it does not have its revision, it was written again, or the bucket was purged since, and with it the messages of the
 * keys before it. A second recheck shows that it was not: when that began, the stream still began before the page.
 */
static void on_entries_rechecked(void *arg, struct scan_keys *keys, const struct error *error)
{
    struct entries_read *read = arg;
    struct key_order_place place = {0};
    const char *name = error == NULL ? scan_keys_next(keys, &place) : NULL;
    bool is_first = name != NULL && strcmp(name, read->names[0]) == 0;
    bool is_same = is_first && key_page_revision(name) == read->first_revision;
    bool is_unpurged = error == NULL && scan_keys_first(keys) <= read->position + 1;

    if (error == NULL && is_first && !is_same && is_unpurged && !read->is_rechecked) {
        read->is_rechecked = true;
        entries_recheck(read);
        return;
    }
    if (error == NULL && !is_same && !(read->is_rechecked && is_unpurged)) {
        entries_try_again(read);
        return;
    }
    read->count = 1;
    entries_finish(read, error);
}

/* List keys from NATS. NULL: out of memory, and the reading has failed. */
static struct scan_keys *entries_new_listing(struct entries_read *read)
{
    struct scan_keys *keys = arena_zalloc(read->arena, sizeof(*keys));

    if (keys == NULL) {
        entries_fail(read, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return NULL;
    }
    keys->bucket_name = read->bucket_name;
    keys->filter = read->filter;
    keys->after = read->after;
    keys->limit = read->limit;
    keys->may_be_short = true;
    keys->deadline_ms = read->deadline_ms;
    keys->bytes_max = read->bytes_max;
    keys->take_memory = read->take_memory;
    keys->memory_arg = read->memory_arg;
    keys->arg = read;
    return keys;
}

/* The first key has another revision than before. At that revision it is still the first, if no other key has come. */
static void entries_recheck(struct entries_read *read)
{
    struct scan_keys *keys = entries_new_listing(read);

    if (keys == NULL)
        return;
    keys->from_sequence = read->position + 1;
    keys->up_to = read->names[0];
    keys->limit = 1;
    keys->has_revisions = true;
    keys->done = on_entries_rechecked;
    scan_keys(read->store, read->arena, keys);
}

static void on_entries_fetch_restart(void *arg)
{
    struct entries_read *read = arg;

    read->first_revision = 0;
    memset(read->has_come, 0, read->limit * sizeof(*read->has_come));
    read->restart(read->arg);
}

static size_t on_entries_fetched(void *arg, size_t place, const struct kv_entry *entry)
{
    struct entries_read *read = arg;

    if (entry->revision == read->revisions[place])
        read->has_come[place] = true;
    else if (place == 0 && entry->revision > read->revisions[0])
        read->first_revision = entry->revision;
    else
        return 0;
    return read->entry(read->arg, place, entry);
}

static void entries_fetch(struct entries_read *read);

static void on_entries_fetch_done(void *arg, const struct error *error)
{
    struct entries_read *read = arg;
    size_t count = 0;

    read->charged = read->fetch->charged_bytes;
    /* The size of headers is not known before. */
    if (error != NULL && error->code == ERROR_TOO_LARGE && read->count > 1) {
        read->count /= 2;
        entries_fetch(read);
        return;
    }
    if (error != NULL) {
        entries_finish(read, error);
        return;
    }
    while (count < read->count && read->has_come[count])
        count++;
    if (count > 0) {
        read->count = count;
        entries_finish(read, NULL);
    } else if (read->first_revision > 0) {
        entries_recheck(read);
    } else {
        entries_try_again(read);
    }
}

/* Other NATS clients may have stored keys that cannot be part of the JSON of a multi_last. */
static bool entries_has_foreign_name(const struct entries_read *read)
{
    for (size_t i = 0; i < read->count; i++) {
        if (kv_check_key(read->names[i], strlen(read->names[i])) != NULL)
            return true;
    }
    return false;
}

/* Read the values of the keys that are known. */
static void entries_fetch(struct entries_read *read)
{
    struct bulk_get *bulk = arena_zalloc(read->arena, sizeof(*bulk));
    bool asks_leader = read->tries >= TRIES_BEFORE_SINGLE;

    cached_read_count(read->store, read->count, false);
    if (bulk == NULL) {
        entries_fail(read, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    if (asks_leader && read->count > SINGLE_KEYS_MAX)
        read->count = SINGLE_KEYS_MAX;
    read->fetch = bulk;
    bulk->bucket_name = read->bucket_name;
    bulk->keys = read->names;
    bulk->count = read->count;
    bulk->consistency = asks_leader ? READ_LEADER : READ_DIRECT;
    if (asks_leader || entries_has_foreign_name(read))
        bulk->revisions = read->revisions;
    bulk->may_mix_moments = true; /* each entry has its revision, which is compared */
    bulk->deadline_ms = read->deadline_ms;
    bulk->bytes_max = read->bytes_max;
    bulk->take_memory = read->take_memory;
    bulk->memory_arg = read->memory_arg;
    bulk->charged_bytes = read->charged;
    bulk->restart = on_entries_fetch_restart;
    bulk->entry = on_entries_fetched;
    bulk->done = on_entries_fetch_done;
    bulk->arg = read;
    bulk_get(read->store, read->arena, bulk);
}

/* Allocate the lists of keys, once. False: out of memory, and the reading has failed. */
static bool entries_allocate_lists(struct entries_read *read)
{
    if (read->names != NULL)
        return true;
    read->names = arena_alloc(read->arena, read->limit * sizeof(*read->names));
    read->revisions = arena_alloc(read->arena, read->limit * sizeof(*read->revisions));
    read->has_come = arena_zalloc(read->arena, read->limit * sizeof(*read->has_come));
    if (read->names != NULL && read->revisions != NULL && read->has_come != NULL)
        return true;
    entries_fail(read, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    return false;
}

/* --- Keys from NATS --------------------------------------------------------------------------------- */

static void on_entries_listed(void *arg, struct scan_keys *keys, const struct error *error)
{
    struct entries_read *read = arg;
    struct key_order_place place = {0};
    const char *name;

    if (error != NULL) {
        entries_finish(read, error);
        return;
    }
    read->position = scan_keys_position(keys);
    while ((name = scan_keys_next(keys, &place)) != NULL) {
        uint64_t bytes = strlen(name) + key_page_value_bytes(name) + ENTRY_BYTES;
        if (entries_is_page_over(read, bytes))
            break;
        read->names[read->count] = name;
        read->revisions[read->count++] = key_page_revision(name);
        read->bytes += bytes;
    }
    if (read->count == 0)
        entries_finish(read, NULL);
    else
        entries_fetch(read);
}

static void entries_read_from_nats(struct entries_read *read)
{
    struct scan_keys *keys;
    struct error error;

    entries_clear(read);
    read->source = ENTRIES_FROM_NATS;
    if (read->consistency == READ_CACHED &&
        cached_read_page_is_too_costly(read->store, read->bucket_name, read->limit, "use a watch", &error)) {
        entries_finish(read, &error);
        return;
    }
    if (!entries_allocate_lists(read) || (keys = entries_new_listing(read)) == NULL)
        return;
    keys->has_revisions = true;
    keys->done = on_entries_listed;
    scan_keys(read->store, read->arena, keys);
}

/* --- The walk over the copy ------------------------------------------------------------------------- */

static void entries_await_snapshot(struct entries_read *read);

/* Memory answers no further. What was read so far is a page. */
static void entries_end_walk(struct entries_read *read)
{
    if (read->source == ENTRIES_KEYS_FROM_MEMORY && read->count > 0) {
        entries_fetch(read);
    } else if (entries_charge(read)) {
        cached_read_count(read->store, read->count > 0 ? read->count : 1, true);
        entries_finish(read, NULL);
    }
}

static struct key_order_place entries_place(const struct entries_read *read, const struct cache *cache)
{
    if (read->cursor != NULL)
        return cache_place(cache, read->cursor, read->skips_cursor);
    if (read->after != NULL && strcmp(read->after, read->prefix) >= 0)
        return cache_place(cache, read->after, true);
    return cache_place(cache, read->prefix, false);
}

/* Return whether a key belongs to the page if it has a value and lies before the cursor. */
static bool entries_was_passed(const struct entries_read *read, const char *name)
{
    return (read->after == NULL || strcmp(name, read->after) > 0) && strcmp(name, read->cursor) <= 0 &&
           (read->filter == NULL || kv_filter_matches(read->filter, name));
}

/*
 * The walk has found nothing yet, and the bucket has changed since its last slice: continue at the lowest of the keys
 * that it has passed and that were written since. False: out of memory.
 */
static bool entries_rewind(struct entries_read *read, const struct local_copy *copy)
{
    const char *lowest = NULL;

    if (read->cursor == NULL)
        return true;
    if (copy->feed.resyncs != read->resyncs || feed_position(&copy->feed) < read->position) {
        entries_set_cursor(read, NULL, false);
        return true;
    }
    for (const struct cache_key *key = copy->contents.cache.newest; key != NULL && key->revision > read->position;
         key = key->older) {
        const char *name = cache_key_name(key);
        if (cache_operation(key) == KV_PUT && entries_was_passed(read, name) &&
            (lowest == NULL || strcmp(name, lowest) < 0))
            lowest = name;
    }
    if (lowest == NULL)
        return true;
    char *cursor = strdup(lowest);
    if (cursor == NULL)
        return false;
    entries_set_cursor(read, cursor, false);
    return true;
}

static bool entries_is_same_moment(const struct entries_read *read, const struct local_copy *copy)
{
    return feed_position(&copy->feed) == read->position && copy->feed.resyncs == read->resyncs;
}

enum entries_verdict { ENTRIES_CONTINUE, ENTRIES_DONE, ENTRIES_NEED_VALUES, ENTRIES_NEED_NATS };

/* Add the entry of a key to the page, or the key alone if the values come from NATS. */
static enum entries_verdict entries_add(struct entries_read *read, const struct local_copy *copy, struct cache_key *key)
{
    const char *name = cache_key_name(key);
    struct cache_view view;

    if (read->source == ENTRIES_FROM_MEMORY) {
        if (!cache_has_value(key) || local_copy_has_expired(copy, key))
            return ENTRIES_NEED_VALUES;
        cache_read(key, &view);
        read->bytes += read->entry(read->arg, read->count, &view.entry);
    } else {
        const char *copied = arena_strndup(read->arena, name, key->key_length);
        if (copied == NULL)
            return ENTRIES_NEED_NATS;
        read->names[read->count] = copied;
        read->revisions[read->count] = key->revision;
        read->bytes += key->key_length + key->value_bytes + ENTRY_BYTES;
    }
    return ++read->count == read->limit ? ENTRIES_DONE : ENTRIES_CONTINUE;
}

static enum entries_verdict entries_look_at(struct entries_read *read, const struct local_copy *copy,
                                            struct cache_key *key)
{
    const char *name = cache_key_name(key);

    if (strncmp(name, read->prefix, strlen(read->prefix)) != 0)
        return ENTRIES_DONE;
    if (kv_is_reserved(name) || (read->filter != NULL && !kv_filter_matches(read->filter, name)))
        return ENTRIES_CONTINUE;
    /* The bucket has no markers of expired values: only the server knows whether the key is still there. */
    if (copy->feed.info.expires_silently && local_copy_has_expired(copy, key))
        return ENTRIES_NEED_NATS;
    if (entries_is_page_over(read, key->key_length + (uint64_t)key->value_bytes + ENTRY_BYTES))
        return ENTRIES_DONE;
    return entries_add(read, copy, key);
}

static void entries_step(struct walk *walk)
{
    entries_await_snapshot((struct entries_read *)((char *)walk - offsetof(struct entries_read, walk)));
}

/* Continue after this key in the next turn. False: out of memory. */
static bool entries_pause(struct entries_read *read, const struct cache_key *key)
{
    char *cursor = strdup(cache_key_name(key));

    if (cursor == NULL)
        return false;
    entries_set_cursor(read, cursor, true);
    walks_add(read->store, &read->walk, read->arena->owner, entries_step);
    return true;
}

/* Walk for a slice. */
static void entries_walk(struct entries_read *read, struct local_copy *copy)
{
    struct cache *cache = &copy->contents.cache;
    struct key_order_place place = entries_place(read, cache);
    enum entries_verdict verdict = ENTRIES_CONTINUE;
    size_t left = read->snapshot.has_waited ? CACHED_READ_WOKEN_KEYS : SIZE_MAX;
    struct cache_key *key;

    while (verdict == ENTRIES_CONTINUE && (key = cache_next_in_order(cache, &place)) != NULL) {
        verdict = entries_look_at(read, copy, key);
        if (verdict == ENTRIES_NEED_VALUES) {
            entries_clear(read);
            if (!entries_allocate_lists(read))
                return;
            read->source = ENTRIES_KEYS_FROM_MEMORY;
            place = entries_place(read, cache);
            verdict = ENTRIES_CONTINUE;
        } else if (verdict == ENTRIES_CONTINUE && (--left == 0 || jobs_slice_is_over(read->store->jobs))) {
            if (!entries_charge(read) || entries_pause(read, key))
                return;
            verdict = ENTRIES_NEED_NATS;
        }
    }
    if (verdict == ENTRIES_NEED_NATS)
        entries_read_from_nats(read);
    else
        entries_end_walk(read);
}

static void on_entries_snapshot(void *arg, bool has_come)
{
    struct entries_read *read = arg;
    struct local_copy *copy = has_come ? local_copy_find(read->store, read->bucket_name) : NULL;
    bool can_answer = copy != NULL && !min_revision_has_open_keys(&copy->min_revisions);

    /* A page whose moment has passed is complete as it is. */
    if (read->count > 0 && (!can_answer || !entries_is_same_moment(read, copy))) {
        entries_end_walk(read);
        return;
    }
    if (!can_answer || (read->has_begun && !entries_rewind(read, copy))) {
        entries_read_from_nats(read);
        return;
    }
    read->has_begun = true;
    read->position = feed_position(&copy->feed);
    read->resyncs = copy->feed.resyncs;
    entries_walk(read, copy);
}

static void entries_await_snapshot(struct entries_read *read)
{
    read->snapshot.bucket_name = read->bucket_name;
    read->snapshot.keys = SIZE_MAX;
    read->snapshot.is_of_all = true;
    read->snapshot.deadline_ms = read->deadline_ms;
    read->snapshot.has_waited = false;
    read->snapshot.ready = on_entries_snapshot;
    read->snapshot.arg = read;
    cached_read_await_snapshot(read->store, read->arena, &read->snapshot);
}

/* --- Beginning -------------------------------------------------------------------------------------- */

static void on_entries_bucket(void *arg, struct bucket *bucket, const struct error *error)
{
    struct entries_read *read = arg;

    if (error != NULL) {
        entries_finish(read, error);
        return;
    }
    if (read->consistency != READ_CACHED && !bucket->is_exclusive)
        entries_read_from_nats(read);
    else
        entries_await_snapshot(read);
    bucket_release(bucket);
}

static void entries_begin(struct entries_read *read)
{
    read->source = ENTRIES_FROM_MEMORY;
    read->has_begun = false;
    /* A bucket that is not followed yet is looked up first, so that its copy begins. */
    if (!cached_read_may_answer(read->store, read->bucket_name, read->consistency))
        entries_read_from_nats(read);
    else if (local_copy_find(read->store, read->bucket_name) == NULL)
        bucket_open(read->store, &read->wait, read->bucket_name, read->arena->owner, read->deadline_ms,
                    on_entries_bucket, read);
    else
        entries_await_snapshot(read);
}

void entries_read(struct store *store, struct arena *arena, struct entries_read *read)
{
    read->store = store;
    read->arena = arena;
    read->prefix = "";
    arena_begin_reading_task(arena, &read->task, entries_cancel);
    if (read->filter != NULL)
        read->prefix = arena_strndup(arena, read->filter, strcspn(read->filter, "*>"));
    if (read->prefix == NULL)
        entries_fail(read, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    else
        entries_begin(read);
}
