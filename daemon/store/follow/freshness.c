#include "daemon/store/follow/local_copy_parts.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Keys ahead of the feed that are known one by one; beyond, all keys count as ahead. */
#define FLOORS_MAX 65536u

/* Of a message; a copy of smaller ones is read about as quickly as their keys alone. */
#define SMALL_BYTES 1024u

/* Reads of a bucket that wait for its feed; more ask NATS. They stand in a list that is searched from its end. */
#define WAITS_MAX 4096u

/*
 * A floor is the lowest revision that an answer about a key must have. There is one while the feed is behind a write or
 * an answer of this daemon.
 */
struct local_copy_floor {
    UT_hash_handle hh;
    struct local_copy_floor *next, *previous;
    uint64_t revision;
    char key[];
};

/* --- Floors ---------------------------------------------------------------------------------------- */

static void drop_floor(struct local_copy *copy, struct local_copy_floor *floor)
{
    HASH_DEL(copy->floors, floor);
    if (floor->revision != UINT64_MAX)
        DL_DELETE2(copy->first_floor, floor, previous, next);
    else
        copy->doubt_count--;
    free(floor);
}

void local_copy_drop_floors(struct local_copy *copy)
{
    struct local_copy_floor *floor, *next;

    HASH_ITER(hh, copy->floors, floor, next)
    {
        drop_floor(copy, floor);
    }
    copy->floor_all = copy->floor_highest = 0;
}

/* Drops the floors that the feed has reached. The list is nearly sorted: a floor out of order is dropped later. */
void local_copy_drop_reached_floors(struct local_copy *copy)
{
    while (copy->first_floor != NULL && copy->first_floor->revision <= feed_position(&copy->feed))
        drop_floor(copy, copy->first_floor);
}

static struct local_copy_floor *find_floor(const struct local_copy *copy, const char *key, size_t length)
{
    struct local_copy_floor *floor = NULL;

    if (copy->floors != NULL)
        HASH_FIND(hh, copy->floors, key, length, floor);
    return floor;
}

void local_copy_raise_floor(struct local_copy *copy, uint64_t revision)
{
    if (revision > copy->floor_all)
        copy->floor_all = revision;
}

/* revision UINT64_MAX marks the cached entry as doubtful, until the feed brings a new one or a check is done. */
static void set_floor(struct local_copy *copy, const char *key, uint64_t revision)
{
    size_t length = strlen(key);
    struct local_copy_floor *floor = find_floor(copy, key, length);

    if (revision != UINT64_MAX && revision > copy->floor_highest)
        copy->floor_highest = revision;
    /* Any new entry ends the doubt, so the revision to wait for is kept in floor_all. */
    if (floor != NULL && floor->revision == UINT64_MAX && revision != UINT64_MAX)
        local_copy_raise_floor(copy, revision);
    if (floor != NULL && floor->revision >= revision)
        return;
    if (floor != NULL) {
        if (revision == UINT64_MAX)
            local_copy_raise_floor(copy, floor->revision);
        drop_floor(copy, floor);
    }
    floor = HASH_COUNT(copy->floors) < FLOORS_MAX ? malloc(sizeof(*floor) + length + 1) : NULL;
    if (floor == NULL) {
        local_copy_raise_floor(copy, revision != UINT64_MAX ? revision : feed_position(&copy->feed) + 1);
        return;
    }
    floor->revision = revision;
    memcpy(floor->key, key, length + 1);
    HASH_ADD_KEYPTR(hh, copy->floors, floor->key, length, floor);
    if (revision != UINT64_MAX)
        DL_APPEND2(copy->first_floor, floor, previous, next);
    else
        copy->doubt_count++;
}

void local_copy_note_revision(struct store *store, const char *bucket, const char *key, uint64_t revision,
                              bool is_write)
{
    struct local_copy *copy = local_copy_find(store, bucket);

    if (copy == NULL)
        return;
    if (is_write && revision > copy->acked)
        copy->acked = revision;
    if (!copy->keeps_values)
        return;
    /* The entry may belong to a transaction that the feed has not brought: reads of all its keys wait. */
    if (!is_write && local_copy_is_exclusive(copy) && !local_copy_has_reached(copy, revision, false))
        local_copy_raise_floor(copy, revision);
    else if (revision > feed_position(&copy->feed))
        set_floor(copy, key, revision);
}

/* The revision that an answer about the key must have at least; 0 for any, UINT64_MAX: its entry is in doubt. */
static uint64_t floor_of(const struct local_copy *copy, const char *key, size_t length)
{
    const struct local_copy_floor *floor = find_floor(copy, key, length);

    return floor != NULL && floor->revision > copy->floor_all ? floor->revision : copy->floor_all;
}

uint64_t local_copy_highest_floor(const struct local_copy *copy)
{
    uint64_t revision = copy->floor_all > copy->acked ? copy->floor_all : copy->acked;

    return copy->floor_highest > revision ? copy->floor_highest : revision;
}

void local_copy_drop_doubt(struct local_copy *copy, const char *key)
{
    struct local_copy_floor *floor = find_floor(copy, key, strlen(key));

    if (floor != NULL && floor->revision == UINT64_MAX)
        drop_floor(copy, floor);
}

void local_copy_drop_doubts(struct local_copy *copy)
{
    struct local_copy_floor *floor, *next;

    HASH_ITER(hh, copy->floors, floor, next)
    {
        if (floor->revision == UINT64_MAX)
            drop_floor(copy, floor);
    }
}

/* --- Waiting for the feed -------------------------------------------------------------------------- */

bool local_copy_has_reached(const struct local_copy *copy, uint64_t revision, bool is_whole)
{
    uint64_t batch_from = copy->feed.batch.from;

    return feed_position(&copy->feed) >= revision && (batch_from == 0 || (!is_whole && batch_from > revision));
}

bool local_copy_may_await(const struct local_copy *copy)
{
    return feed_is_live(&copy->feed) && copy->wait_count < WAITS_MAX;
}

static void leave(struct local_copy_wait *wait)
{
    DL_DELETE2(wait->copy->waits, wait, previous, next);
    wait->copy->wait_count--;
    wait->copy = NULL;
    timer_stop(wait->store->timers, &wait->timer);
}

void local_copy_wait_cancel(struct local_copy_wait *wait)
{
    if (wait->copy != NULL)
        leave(wait);
    else if (wait->store != NULL)
        timer_stop(wait->store->timers, &wait->timer);
}

static void on_too_long(struct timer *timer)
{
    struct local_copy_wait *wait = (struct local_copy_wait *)((char *)timer - offsetof(struct local_copy_wait, timer));

    if (wait->copy != NULL) {
        wait->copy->wants_check = true; /* what it waits for may be gone */
        leave(wait);
    }
    wait->ready(wait->arg, false);
}

/* Mostly the last one waits for the highest revision. */
static void insert_wait(struct local_copy *copy, struct local_copy_wait *wait)
{
    struct local_copy_wait *before = copy->waits != NULL ? copy->waits->previous : NULL;

    while (before != NULL && before->revision > wait->revision)
        before = before == copy->waits ? NULL : before->previous;
    if (before == NULL)
        DL_PREPEND2(copy->waits, wait, previous, next);
    else
        DL_APPEND_ELEM2(copy->waits, before, wait, previous, next);
}

bool local_copy_is_worth_waiting(const struct local_copy *copy)
{
    const struct feed_info *info = &copy->feed.info;
    bool is_begun = copy->is_opening || copy->feed.phase != FEED_STOPPED;
    bool is_loading = copy->keeps_values && !copy->is_loaded && is_begun && copy->wait_count < WAITS_MAX;

    return is_loading && info->bytes <= info->subjects * SMALL_BYTES;
}

void local_copy_await_load(struct local_copy *copy, struct local_copy_wait *wait, uint64_t until_ms)
{
    local_copy_await(copy, wait, 0, false, until_ms);
    wait->is_for_load = true;
}

void local_copy_await(struct local_copy *copy, struct local_copy_wait *wait, uint64_t revision, bool is_whole,
                      uint64_t until_ms)
{
    wait->store = copy->store;
    wait->copy = copy;
    wait->revision = revision;
    wait->is_whole = is_whole;
    wait->is_for_load = false;
    insert_wait(copy, wait);
    copy->wait_count++;
    timer_start(copy->store->timers, &wait->timer, until_ms, on_too_long);
}

/* The first that can be answered now, or NULL. */
static struct local_copy_wait *find_ready(const struct local_copy *copy)
{
    struct local_copy_wait *wait = copy->waits;

    while (wait != NULL && wait->revision <= feed_position(&copy->feed)) {
        bool has_come =
            wait->is_for_load ? copy->is_loaded : local_copy_has_reached(copy, wait->revision, wait->is_whole);
        if (has_come)
            return wait;
        wait = wait->next;
    }
    return NULL;
}

static bool run_waking(struct job *job)
{
    struct local_copy *copy = (struct local_copy *)((char *)job - offsetof(struct local_copy, waking));
    struct jobs *jobs = copy->store->jobs;
    struct local_copy_wait *wait;

    while ((wait = find_ready(copy)) != NULL) {
        leave(wait);
        wait->ready(wait->arg, true);
        if (jobs_slice_is_over(jobs))
            return find_ready(copy) != NULL;
    }
    return false;
}

void local_copy_wake(struct local_copy *copy)
{
    if (copy->waits != NULL && copy->waits->revision <= feed_position(&copy->feed))
        jobs_add(copy->store->jobs, &copy->waking, run_waking);
}

void local_copy_end_waits(struct local_copy *copy)
{
    struct timers *timers = copy->store->timers;
    struct local_copy_wait *wait;

    jobs_remove(copy->store->jobs, &copy->waking);
    while ((wait = copy->waits) != NULL) {
        leave(wait);
        timer_start(timers, &wait->timer, uv_now(copy->store->loop), on_too_long);
    }
}

/* --- Answers --------------------------------------------------------------------------------------- */

bool local_copy_is_exclusive(const struct local_copy *copy)
{
    return feed_is_exclusive(&copy->feed, copy->store->conf);
}

/*
 * External mode. A live feed was heard within feed_silence_ms. If the daemon or its machine was suspended, heard_ms is
 * older: then the copy is stale until the next message.
 */
static bool is_fresh(const struct local_copy *copy)
{
    const struct conf *conf = copy->store->conf;
    uint64_t patience_ms = conf->cache.max_staleness_ms, live_ms = feed_silence_ms(conf->watches.heartbeat_ms);

    if (feed_is_live(&copy->feed) && patience_ms < live_ms)
        patience_ms = live_ms;
    return store_boot_ms() - copy->feed.heard_ms <= patience_ms;
}

/*
 * Embedded mode. Without a connection, or an answer on it, nobody writes to our server, so the copy stays right. After
 * a reconnect the feed must be live again first.
 */
static bool is_as_it_was(const struct local_copy *copy)
{
    const struct connection *connection = copy->store->connection;

    return !connection_is_up(connection) || copy->feed.live_on == connection_number(connection);
}

bool local_copy_can_answer(const struct local_copy *copy)
{
    if (!copy->is_loaded || copy->is_distrusted || local_copy_is_changing(copy))
        return false;
    return local_copy_is_exclusive(copy) ? is_as_it_was(copy) : is_fresh(copy);
}

bool local_copy_has_expired(const struct local_copy *copy, const struct cache_key *key)
{
    int64_t max_age_us = copy->feed.info.max_age_us;

    if (cache_expiry(key) == 0 && max_age_us == 0)
        return false;
    int64_t now_us = store_now_us();
    return (cache_expiry(key) > 0 && cache_expiry(key) <= now_us) ||
           (max_age_us > 0 && key->created_us + max_age_us <= now_us);
}

enum local_copy_answer local_copy_get_now(struct local_copy *copy, const char *key, size_t length,
                                          struct cache_view *view, uint64_t *revision)
{
    struct cache_key *known;

    if (!local_copy_can_answer(copy))
        return REPLICA_UNSURE;
    if (copy->doubt_count > 0 && floor_of(copy, key, length) == UINT64_MAX)
        return REPLICA_UNSURE;
    known = cache_find(&copy->cache, key, length);
    if (known != NULL && local_copy_is_exclusive(copy) && !local_copy_has_reached(copy, known->revision, false)) {
        *revision = known->revision; /* the rest of its batch has yet to come */
        return local_copy_may_await(copy) ? REPLICA_WAITS : REPLICA_UNSURE;
    }
    if (known == NULL || cache_operation(known) != KV_PUT)
        return REPLICA_LACKS;
    if (!cache_has_value(known) || local_copy_has_expired(copy, known))
        return REPLICA_UNSURE;
    cache_read(known, view);
    return REPLICA_HAS;
}

enum local_copy_answer local_copy_get(struct local_copy *copy, const char *key, size_t length, struct cache_view *view,
                                      uint64_t *revision)
{
    *revision = floor_of(copy, key, length);
    bool is_reached = local_copy_is_exclusive(copy) ? local_copy_has_reached(copy, *revision, false)
                                                    : *revision <= feed_position(&copy->feed);
    if (!is_reached) {
        bool may_come = *revision != UINT64_MAX && local_copy_may_await(copy) && local_copy_can_answer(copy);
        return may_come ? REPLICA_WAITS : REPLICA_UNSURE;
    }
    return local_copy_get_now(copy, key, length, view, revision);
}

void local_copy_note_read(struct store *store, const char *bucket, const struct kv_entry *entry)
{
    struct local_copy *copy = local_copy_find(store, bucket);

    if (copy == NULL || !copy->keeps_values)
        return;
    struct cache_key *known = cache_find(&copy->cache, entry->key, strlen(entry->key));
    if (known != NULL && known->revision == entry->revision)
        cache_restore(&copy->cache, known, entry, cache_expiry(known));
}

void local_copy_note_absent(struct store *store, const char *bucket, const char *key, uint64_t revision_before,
                            bool is_certain)
{
    struct local_copy *copy = local_copy_find(store, bucket);
    struct cache_key *known = copy != NULL ? cache_find(&copy->cache, key, strlen(key)) : NULL;

    if (known == NULL || known->revision != revision_before || cache_operation(known) != KV_PUT)
        return;
    if (is_certain && copy->beginning_count == 0) {
        local_copy_vanish(copy, known);
        return;
    }
    set_floor(copy, key, UINT64_MAX);
    copy->wants_check = true;
}

uint64_t local_copy_revision_of(struct store *store, const char *bucket, const char *key)
{
    const struct local_copy *copy = local_copy_find(store, bucket);
    const struct cache_key *known = copy != NULL ? cache_find(&copy->cache, key, strlen(key)) : NULL;

    return known != NULL ? known->revision : 0;
}
