#include "daemon/store/follow/local_copy_read.h"

#include "daemon/base/clock.h"
#include "daemon/store/follow/changes.h"

#include <string.h>

/* --- Whether it may answer ------------------------------------------------------------------------- */

/*
 * External mode. A live feed was heard within feed_silence_ms. If the daemon or its machine was suspended, heard_ms is
 * older: then the copy is stale until a message comes that was not waiting meanwhile.
 */
static bool local_copy_is_fresh(const struct local_copy *copy)
{
    const struct conf *conf = copy->store->conf;
    uint64_t max_age_ms = conf->cache.max_staleness_ms, live_ms = feed_silence_ms(conf->watches.heartbeat_ms);

    if (feed_is_live(&copy->feed) && max_age_ms < live_ms)
        max_age_ms = live_ms;
    return clock_boot_ms() - copy->feed.heard_ms <= max_age_ms;
}

/*
 * Embedded mode. Without a connection, or an answer on it, nobody writes to our server, so the copy stays right. After
 * a reconnect the feed must be live again first.
 */
static bool local_copy_is_unchanged(const struct local_copy *copy)
{
    const struct connection *connection = copy->store->connection;

    return !connection_is_up(connection) || copy->feed.live_on == connection_number(connection);
}

bool local_copy_can_answer(const struct local_copy *copy)
{
    if (copy->state != LOCAL_COPY_OPEN || copy->contents.state != CONTENTS_COMPLETE)
        return false;
    if (!reconcile_is_trusted(&copy->reconcile) || local_copy_is_changing(copy))
        return false;
    return local_copy_is_exclusive(copy) ? local_copy_is_unchanged(copy) : local_copy_is_fresh(copy);
}

bool local_copy_has_expired(const struct local_copy *copy, const struct cache_key *key)
{
    int64_t max_age_us = copy->feed.info.max_age_us;

    if (cache_expiry(key) == 0 && max_age_us == 0)
        return false;
    int64_t now_us = clock_epoch_us();
    return (cache_expiry(key) > 0 && cache_expiry(key) <= now_us) ||
           (max_age_us > 0 && key->created_us + max_age_us <= now_us);
}

enum local_copy_event local_copy_event_for_all(const struct local_copy *copy)
{
    return local_copy_is_exclusive(copy) ? LOCAL_COPY_IS_BETWEEN_BATCHES : LOCAL_COPY_HAS_REVISION;
}

/* --- Answers --------------------------------------------------------------------------------------- */

enum local_copy_answer local_copy_get_now(struct local_copy *copy, const char *key, size_t length,
                                          struct cache_view *view, uint64_t *revision)
{
    if (!local_copy_can_answer(copy) || min_revision_is_doubtful(&copy->min_revisions, key, length))
        return LOCAL_COPY_UNSURE;
    struct cache_key *known = cache_find(&copy->contents.cache, key, length);
    if (known != NULL && local_copy_is_exclusive(copy) &&
        !local_copy_has_reached(copy, known->revision, LOCAL_COPY_HAS_REVISION)) {
        *revision = known->revision; /* the rest of its batch has yet to come */
        return local_copy_may_wait(copy) ? LOCAL_COPY_WAITS : LOCAL_COPY_UNSURE;
    }
    /* The feed has skipped a revision that was overwritten. The newer one is to come. */
    uint64_t least = min_revision_of_key(&copy->min_revisions, key, length);
    if (least > (known != NULL ? known->revision : 0)) {
        *revision = least;
        return local_copy_may_wait(copy) && least > feed_position(&copy->feed) ? LOCAL_COPY_WAITS : LOCAL_COPY_UNSURE;
    }
    if (known == NULL || cache_operation(known) != KV_PUT)
        return LOCAL_COPY_LACKS;
    if (!cache_has_value(known) || local_copy_has_expired(copy, known))
        return LOCAL_COPY_UNSURE;
    cache_read(known, view);
    return LOCAL_COPY_HAS;
}

enum local_copy_answer local_copy_get(struct local_copy *copy, const char *key, size_t length, struct cache_view *view,
                                      uint64_t *revision)
{
    if (min_revision_is_doubtful(&copy->min_revisions, key, length))
        return LOCAL_COPY_UNSURE;
    *revision = min_revision_of(&copy->min_revisions, key, length);
    bool is_reached = local_copy_is_exclusive(copy) ? local_copy_has_reached(copy, *revision, LOCAL_COPY_HAS_REVISION)
                                                    : *revision <= feed_position(&copy->feed);
    if (is_reached)
        return local_copy_get_now(copy, key, length, view, revision);
    return local_copy_may_wait(copy) && local_copy_can_answer(copy) ? LOCAL_COPY_WAITS : LOCAL_COPY_UNSURE;
}

/* --- What it observes ------------------------------------------------------------------------------ */

/*
 * Return whether the feed has passed the key's revision without delivering it: a newer one is to come. An answer may
 * also be of an old replica, which has a key that is gone.
 */
static bool local_copy_lacks(const struct local_copy *copy, const char *key, uint64_t revision, bool is_write)
{
    uint64_t known = contents_revision_of(&copy->contents, key);

    return copy->contents.state == CONTENTS_COMPLETE && known < revision && (known > 0 || is_write);
}

void local_copy_note_revision(struct store *store, const char *bucket, const char *key, uint64_t revision,
                              bool is_write)
{
    struct local_copy *copy = local_copy_find(store, bucket);

    if (copy == NULL)
        return;
    if (is_write)
        min_revision_note_write(&copy->min_revisions, revision);
    if (!contents_have_values(&copy->contents))
        return;
    /* The entry may belong to a transaction that the feed has not delivered: reads of all its keys wait. */
    if (!is_write && local_copy_is_exclusive(copy) && !local_copy_has_reached(copy, revision, LOCAL_COPY_HAS_REVISION))
        min_revision_raise_all(&copy->min_revisions, revision);
    else if (revision > feed_position(&copy->feed))
        min_revision_raise(&copy->min_revisions, key, revision);
    else if (revision > 0 && local_copy_lacks(copy, key, revision, is_write))
        min_revision_skip(&copy->min_revisions, key, revision);
}

void local_copy_note_read(struct store *store, const char *bucket, const struct kv_entry *entry)
{
    struct local_copy *copy = local_copy_find(store, bucket);
    struct cache_key *known = copy != NULL ? cache_find(&copy->contents.cache, entry->key, strlen(entry->key)) : NULL;

    if (known != NULL)
        contents_restore(copy, known, entry);
}

void local_copy_note_absent(struct store *store, const char *bucket, const char *key, uint64_t revision_before,
                            bool is_certain)
{
    struct local_copy *copy = local_copy_find(store, bucket);
    struct cache_key *known = copy != NULL ? cache_find(&copy->contents.cache, key, strlen(key)) : NULL;

    if (known == NULL || known->revision != revision_before || cache_operation(known) != KV_PUT)
        return;
    if (is_certain && copy->watches.beginning_count == 0) {
        reconcile_remove_vanished(copy, known);
        return;
    }
    min_revision_doubt(&copy->min_revisions, key, feed_position(&copy->feed));
    reconcile_request_check(&copy->reconcile);
}

uint64_t local_copy_revision_of(struct store *store, const char *bucket, const char *key)
{
    const struct local_copy *copy = local_copy_find(store, bucket);

    return copy != NULL ? contents_revision_of(&copy->contents, key) : 0;
}

bool local_copy_find_value(struct store *store, const char *bucket, const char *key, observe_found_fn *found, void *arg)
{
    struct local_copy *copy = local_copy_find(store, bucket);
    struct cache_view view;
    uint64_t revision;

    return copy != NULL && local_copy_get(copy, key, strlen(key), &view, &revision) == LOCAL_COPY_HAS &&
           found(arg, &view.entry);
}
