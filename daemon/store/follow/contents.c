#include "daemon/store/follow/contents.h"

#include "daemon/base/log.h"
#include "daemon/store/follow/local_copy.h"
#include "daemon/store/follow/state.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Keys of a cleared cache that are freed before a look at the time. */
#define COLLECT_KEYS 64u

/* Less than any key takes in the cache beside its name. */
#define KEY_BYTES_MIN 64u

/* What there must be for each key of contents that were given up, before they are loaded again. */
#define KEY_BYTES_ROOM 256u

/* --- Expiry ---------------------------------------------------------------------------------------- */

/*
 * Return when an entry expires by the bucket's max_age or its own TTL, in us since the epoch; 0: never. -1: the TTL is
 * not understood, so the value must not be kept.
 */
static int64_t contents_expiry_of(const struct local_copy *copy, const struct kv_entry *entry)
{
    int64_t max_age_us = copy->feed.info.max_age_us;
    int64_t expires_us = max_age_us > 0 ? entry->created_us + max_age_us : 0;
    const char *header = message_header(entry->message, KV_HEADER_TTL);
    int64_t ttl_s = kv_read_ttl(entry->message);

    if (ttl_s <= 0)
        return ttl_s < 0 ? -1 : header == NULL ? expires_us : 0;
    int64_t own_us = entry->created_us + ttl_s * 1000000;
    return expires_us > 0 && expires_us < own_us ? expires_us : own_us;
}

/* --- Freeing memory -------------------------------------------------------------------------------- */

static bool run_collecting(struct job *job)
{
    struct store *store = ((struct follow_state *)((char *)job - offsetof(struct follow_state, collecting)))->store;

    while (cache_collect(&store->follow->cache_budget, COLLECT_KEYS)) {
        if (jobs_slice_is_over(store->jobs))
            return true;
    }
    return false;
}

static void contents_stop_dropping(struct local_copy *copy)
{
    jobs_remove(copy->store->jobs, &copy->contents.dropping);
    cache_cursor_end(&copy->contents.drop_cursor);
}

static bool run_dropping(struct job *job)
{
    struct local_copy *copy = (struct local_copy *)((char *)job - offsetof(struct local_copy, contents.dropping));
    struct cache_key *key;

    while ((key = cache_cursor_next(&copy->contents.drop_cursor)) != NULL) {
        cache_drop_value(&copy->contents.cache, key);
        if (jobs_slice_is_over(copy->store->jobs))
            return true;
    }
    cache_cursor_end(&copy->contents.drop_cursor);
    return false;
}

static void contents_collect_later(struct store *store)
{
    if (store->follow->cache_budget.garbage != NULL)
        jobs_add(store->jobs, &store->follow->collecting, run_collecting);
}

void contents_init(struct contents *contents, struct store *store)
{
    cache_init(&contents->cache, &store->follow->cache_budget);
}

void contents_clear(struct local_copy *copy)
{
    contents_stop_dropping(copy);
    cache_clear(&copy->contents.cache);
    contents_collect_later(copy->store);
}

void contents_free_all(struct store *store)
{
    jobs_remove(store->jobs, &store->follow->collecting);
    cache_collect(&store->follow->cache_budget, UINT_MAX);
}

/* --- States ---------------------------------------------------------------------------------------- */

bool contents_want_values(struct local_copy *copy)
{
    if (copy->contents.state != CONTENTS_WATCHED_KEYS)
        return false;
    contents_stop_dropping(copy);
    copy->contents.state = CONTENTS_UNREAD;
    copy->contents.cache.keeps_values = true;
    return true;
}

void contents_drop_values(struct local_copy *copy)
{
    struct contents *contents = &copy->contents;

    contents->state = CONTENTS_WATCHED_KEYS;
    contents->cache.keeps_values = false;
    cache_cursor_begin(&contents->cache, &contents->drop_cursor);
    jobs_add(copy->store->jobs, &contents->dropping, run_dropping);
}

void contents_note_read(struct contents *contents, bool is_complete)
{
    if (contents->state == CONTENTS_UNREAD && is_complete)
        contents->state = CONTENTS_READ;
}

void contents_invalidate(struct contents *contents)
{
    if (contents_have_values(contents))
        contents->state = CONTENTS_UNREAD;
}

void contents_complete(struct local_copy *copy)
{
    if (copy->contents.state == CONTENTS_READ && feed_is_live(&copy->feed))
        copy->contents.state = CONTENTS_COMPLETE;
    local_copy_wake_waits(copy);
}

bool contents_are_too_large(const struct local_copy *copy)
{
    return contents_have_values(&copy->contents) &&
           copy->feed.info.subjects > copy->store->conf->cache.max_bytes / KEY_BYTES_MIN;
}

static void contents_log_giving_up(const struct local_copy *copy)
{
    size_t max_bytes = copy->store->conf->cache.max_bytes;
    /* Either may be the larger one: before it is read, or after keys were added. */
    uint64_t in_bucket = copy->feed.info.subjects, in_copy = copy->contents.cache.count;

    if (contents_have_values(&copy->contents))
        log_warning("bucket %s: caching disabled: its %" PRIu64 " keys exceed cache.max_bytes (%zu)", copy->name,
                    in_copy > in_bucket ? in_copy : in_bucket, max_bytes);
    else if (copy->contents.state == CONTENTS_WATCHED_KEYS)
        log_warning("bucket %s: its watched keys exceed cache.max_bytes (%zu): keys that vanish without a message may "
                    "not be reported to watches",
                    copy->name, max_bytes);
}

void contents_give_up(struct local_copy *copy)
{
    watch_set_leave_cache(&copy->watches);
    contents_log_giving_up(copy);
    copy->contents.state = CONTENTS_GIVEN_UP;
    copy->contents.given_up_ms = uv_now(copy->store->loop);
    local_copy_fail_waits(copy);
    contents_stop_dropping(copy);
    cache_empty(&copy->contents.cache);
    contents_collect_later(copy->store);
}

bool contents_may_come_back(const struct local_copy *copy)
{
    const struct store *store = copy->store;
    const struct cache_budget *budget = &store->follow->cache_budget;
    size_t room = budget->max_bytes > budget->bytes ? budget->max_bytes - budget->bytes : 0;

    return copy->contents.state == CONTENTS_GIVEN_UP && copy->feed.info.subjects < room / KEY_BYTES_ROOM &&
           uv_now(store->loop) - copy->contents.given_up_ms >= store->conf->cache.idle_timeout_ms;
}

/*
 * No value can be evicted. Of the user with the most memory, give up the contents that have most of it. The keys of
 * many small buckets would otherwise drive out those of a larger one of another user. What was given up a moment ago
 * may still have to be freed.
 */
static void contents_give_up_largest(struct store *store)
{
    struct cache_budget *budget = &store->follow->cache_budget;
    struct cache *largest = budget->garbage == NULL ? cache_user_largest_cache(cache_user_largest(budget)) : NULL;

    if (largest != NULL)
        contents_give_up((struct local_copy *)((char *)largest - offsetof(struct local_copy, contents.cache)));
}

/* --- Entries --------------------------------------------------------------------------------------- */

void contents_keep(struct local_copy *copy, const struct kv_entry *entry)
{
    struct contents *contents = &copy->contents;
    int64_t expires_us = 0;
    bool with_value = false;

    if (contents->state == CONTENTS_GIVEN_UP)
        return;
    if (contents_have_values(contents)) {
        expires_us = contents_expiry_of(copy, entry);
        with_value = entry->operation == KV_PUT && expires_us >= 0;
    }
    if (cache_set(&contents->cache, entry, expires_us > 0 ? expires_us : 0, with_value) == NULL)
        contents_give_up_largest(copy->store);
}

void contents_note_delivered(struct local_copy *copy, const struct kv_entry *entry)
{
    if (contents_have_values(&copy->contents))
        return; /* the feed and the copy's own readings bring everything */
    /* The other watches get the marker from the feed. If it is gone before that, the value must be here to vanish.
     */
    if (entry->operation != KV_PUT && entry->revision > feed_position(&copy->feed))
        return;
    const struct cache_key *key = cache_find(&copy->contents.cache, entry->key, strlen(entry->key));
    if (key == NULL || key->revision < entry->revision)
        contents_keep(copy, entry);
}

void contents_restore(struct local_copy *copy, struct cache_key *key, const struct kv_entry *entry)
{
    if (!contents_have_values(&copy->contents) || key->revision != entry->revision || cache_has_value(key))
        return;
    int64_t expires_us = contents_expiry_of(copy, entry);
    if (expires_us >= 0)
        cache_restore(&copy->contents.cache, key, entry, expires_us);
}
