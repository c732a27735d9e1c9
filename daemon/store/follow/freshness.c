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
struct replica_floor {
    UT_hash_handle hh;
    struct replica_floor *next, *previous;
    uint64_t revision;
    char key[];
};

/* --- Floors ---------------------------------------------------------------------------------------- */

static void drop_floor(struct replica *replica, struct replica_floor *floor)
{
    HASH_DEL(replica->floors, floor);
    if (floor->revision != UINT64_MAX)
        DL_DELETE2(replica->first_floor, floor, previous, next);
    else
        replica->doubt_count--;
    free(floor);
}

void replica_drop_floors(struct replica *replica)
{
    struct replica_floor *floor, *next;

    HASH_ITER(hh, replica->floors, floor, next)
    {
        drop_floor(replica, floor);
    }
    replica->floor_all = replica->floor_highest = 0;
}

/* Drops the floors that the feed has reached. The list is nearly sorted: a floor out of order is dropped later. */
void replica_drop_reached_floors(struct replica *replica)
{
    while (replica->first_floor != NULL && replica->first_floor->revision <= feed_position(&replica->feed))
        drop_floor(replica, replica->first_floor);
}

static struct replica_floor *find_floor(const struct replica *replica, const char *key, size_t length)
{
    struct replica_floor *floor = NULL;

    if (replica->floors != NULL)
        HASH_FIND(hh, replica->floors, key, length, floor);
    return floor;
}

void replica_raise_floor(struct replica *replica, uint64_t revision)
{
    if (revision > replica->floor_all)
        replica->floor_all = revision;
}

/* revision UINT64_MAX marks the cached entry as doubtful, until the feed brings a new one or a check is done. */
static void set_floor(struct replica *replica, const char *key, uint64_t revision)
{
    size_t length = strlen(key);
    struct replica_floor *floor = find_floor(replica, key, length);

    if (revision != UINT64_MAX && revision > replica->floor_highest)
        replica->floor_highest = revision;
    /* Any new entry ends the doubt, so the revision to wait for is kept in floor_all. */
    if (floor != NULL && floor->revision == UINT64_MAX && revision != UINT64_MAX)
        replica_raise_floor(replica, revision);
    if (floor != NULL && floor->revision >= revision)
        return;
    if (floor != NULL) {
        if (revision == UINT64_MAX)
            replica_raise_floor(replica, floor->revision);
        drop_floor(replica, floor);
    }
    floor = HASH_COUNT(replica->floors) < FLOORS_MAX ? malloc(sizeof(*floor) + length + 1) : NULL;
    if (floor == NULL) {
        replica_raise_floor(replica, revision != UINT64_MAX ? revision : feed_position(&replica->feed) + 1);
        return;
    }
    floor->revision = revision;
    memcpy(floor->key, key, length + 1);
    HASH_ADD_KEYPTR(hh, replica->floors, floor->key, length, floor);
    if (revision != UINT64_MAX)
        DL_APPEND2(replica->first_floor, floor, previous, next);
    else
        replica->doubt_count++;
}

void replica_note_revision_of(struct store *store, const char *bucket, const char *key, uint64_t revision,
                              bool is_write)
{
    struct replica *replica = replica_find(store, bucket);

    if (replica == NULL)
        return;
    if (is_write && revision > replica->acked)
        replica->acked = revision;
    if (!replica->keeps_values)
        return;
    /* The entry may belong to a transaction that the feed has not brought: reads of all its keys wait. */
    if (!is_write && replica_is_exclusive(replica) && !replica_has_reached(replica, revision, false))
        replica_raise_floor(replica, revision);
    else if (revision > feed_position(&replica->feed))
        set_floor(replica, key, revision);
}

/* The revision that an answer about the key must have at least; 0 for any, UINT64_MAX: its entry is in doubt. */
static uint64_t floor_of(const struct replica *replica, const char *key, size_t length)
{
    const struct replica_floor *floor = find_floor(replica, key, length);

    return floor != NULL && floor->revision > replica->floor_all ? floor->revision : replica->floor_all;
}

uint64_t replica_highest_floor(const struct replica *replica)
{
    uint64_t revision = replica->floor_all > replica->acked ? replica->floor_all : replica->acked;

    return replica->floor_highest > revision ? replica->floor_highest : revision;
}

void replica_drop_doubt(struct replica *replica, const char *key)
{
    struct replica_floor *floor = find_floor(replica, key, strlen(key));

    if (floor != NULL && floor->revision == UINT64_MAX)
        drop_floor(replica, floor);
}

void replica_drop_doubts(struct replica *replica)
{
    struct replica_floor *floor, *next;

    HASH_ITER(hh, replica->floors, floor, next)
    {
        if (floor->revision == UINT64_MAX)
            drop_floor(replica, floor);
    }
}

/* --- Waiting for the feed -------------------------------------------------------------------------- */

bool replica_has_reached(const struct replica *replica, uint64_t revision, bool is_whole)
{
    uint64_t batch_from = replica->feed.batch.from;

    return feed_position(&replica->feed) >= revision && (batch_from == 0 || (!is_whole && batch_from > revision));
}

bool replica_may_await(const struct replica *replica)
{
    return feed_is_live(&replica->feed) && replica->wait_count < WAITS_MAX;
}

static void leave(struct replica_wait *wait)
{
    DL_DELETE2(wait->replica->waits, wait, previous, next);
    wait->replica->wait_count--;
    wait->replica = NULL;
    timer_stop(wait->store->timers, &wait->timer);
}

void replica_wait_cancel(struct replica_wait *wait)
{
    if (wait->replica != NULL)
        leave(wait);
    else if (wait->store != NULL)
        timer_stop(wait->store->timers, &wait->timer);
}

static void on_too_long(struct timer *timer)
{
    struct replica_wait *wait = (struct replica_wait *)((char *)timer - offsetof(struct replica_wait, timer));

    if (wait->replica != NULL) {
        wait->replica->wants_check = true; /* what it waits for may be gone */
        leave(wait);
    }
    wait->ready(wait->arg, false);
}

/* Mostly the last one waits for the highest revision. */
static void insert_wait(struct replica *replica, struct replica_wait *wait)
{
    struct replica_wait *before = replica->waits != NULL ? replica->waits->previous : NULL;

    while (before != NULL && before->revision > wait->revision)
        before = before == replica->waits ? NULL : before->previous;
    if (before == NULL)
        DL_PREPEND2(replica->waits, wait, previous, next);
    else
        DL_APPEND_ELEM2(replica->waits, before, wait, previous, next);
}

bool replica_is_worth_waiting(const struct replica *replica)
{
    const struct feed_info *info = &replica->feed.info;
    bool is_begun = replica->is_opening || replica->feed.phase != FEED_STOPPED;
    bool is_loading = replica->keeps_values && !replica->is_loaded && is_begun && replica->wait_count < WAITS_MAX;

    return is_loading && info->bytes <= info->subjects * SMALL_BYTES;
}

void replica_await_load(struct replica *replica, struct replica_wait *wait, uint64_t until_ms)
{
    replica_await(replica, wait, 0, false, until_ms);
    wait->is_for_load = true;
}

void replica_await(struct replica *replica, struct replica_wait *wait, uint64_t revision, bool is_whole,
                   uint64_t until_ms)
{
    wait->store = replica->store;
    wait->replica = replica;
    wait->revision = revision;
    wait->is_whole = is_whole;
    wait->is_for_load = false;
    insert_wait(replica, wait);
    replica->wait_count++;
    timer_start(replica->store->timers, &wait->timer, until_ms, on_too_long);
}

/* The first that can be answered now, or NULL. */
static struct replica_wait *find_ready(const struct replica *replica)
{
    struct replica_wait *wait = replica->waits;

    while (wait != NULL && wait->revision <= feed_position(&replica->feed)) {
        bool has_come =
            wait->is_for_load ? replica->is_loaded : replica_has_reached(replica, wait->revision, wait->is_whole);
        if (has_come)
            return wait;
        wait = wait->next;
    }
    return NULL;
}

static bool run_waking(struct job *job)
{
    struct replica *replica = (struct replica *)((char *)job - offsetof(struct replica, waking));
    struct jobs *jobs = replica->store->jobs;
    struct replica_wait *wait;

    while ((wait = find_ready(replica)) != NULL) {
        leave(wait);
        wait->ready(wait->arg, true);
        if (jobs_slice_is_over(jobs))
            return find_ready(replica) != NULL;
    }
    return false;
}

void replica_wake(struct replica *replica)
{
    if (replica->waits != NULL && replica->waits->revision <= feed_position(&replica->feed))
        jobs_add(replica->store->jobs, &replica->waking, run_waking);
}

void replica_end_waits(struct replica *replica)
{
    struct timers *timers = replica->store->timers;
    struct replica_wait *wait;

    jobs_remove(replica->store->jobs, &replica->waking);
    while ((wait = replica->waits) != NULL) {
        leave(wait);
        timer_start(timers, &wait->timer, uv_now(replica->store->loop), on_too_long);
    }
}

/* --- Answers --------------------------------------------------------------------------------------- */

bool replica_is_exclusive(const struct replica *replica)
{
    return feed_is_exclusive(&replica->feed, replica->store->conf);
}

/*
 * External mode. A live feed was heard within feed_silence_ms. If the daemon or its machine was suspended, heard_ms is
 * older: then the copy is stale until the next message.
 */
static bool is_fresh(const struct replica *replica)
{
    const struct conf *conf = replica->store->conf;
    uint64_t patience_ms = conf->cache.max_staleness_ms, live_ms = feed_silence_ms(conf->watches.heartbeat_ms);

    if (feed_is_live(&replica->feed) && patience_ms < live_ms)
        patience_ms = live_ms;
    return store_boot_ms() - replica->feed.heard_ms <= patience_ms;
}

/*
 * Embedded mode. Without a connection, or an answer on it, nobody writes to our server, so the copy stays right. After
 * a reconnect the feed must be live again first.
 */
static bool is_as_it_was(const struct replica *replica)
{
    const struct link *link = replica->store->link;

    return !link_is_up(link) || replica->feed.live_on == link_number(link);
}

bool replica_can_answer(const struct replica *replica)
{
    if (!replica->is_loaded || replica->is_distrusted || replica_is_changing(replica))
        return false;
    return replica_is_exclusive(replica) ? is_as_it_was(replica) : is_fresh(replica);
}

bool replica_has_expired(const struct replica *replica, const struct cache_key *key)
{
    int64_t max_age_us = replica->feed.info.max_age_us;

    if (cache_expiry(key) == 0 && max_age_us == 0)
        return false;
    int64_t now_us = store_now_us();
    return (cache_expiry(key) > 0 && cache_expiry(key) <= now_us) ||
           (max_age_us > 0 && key->created_us + max_age_us <= now_us);
}

enum replica_answer replica_get_now(struct replica *replica, const char *key, size_t length, struct cache_view *view,
                                    uint64_t *revision)
{
    struct cache_key *known;

    if (!replica_can_answer(replica))
        return REPLICA_UNSURE;
    if (replica->doubt_count > 0 && floor_of(replica, key, length) == UINT64_MAX)
        return REPLICA_UNSURE;
    known = cache_find(&replica->cache, key, length);
    if (known != NULL && replica_is_exclusive(replica) && !replica_has_reached(replica, known->revision, false)) {
        *revision = known->revision; /* the rest of its batch has yet to come */
        return replica_may_await(replica) ? REPLICA_WAITS : REPLICA_UNSURE;
    }
    if (known == NULL || cache_operation(known) != KV_PUT)
        return REPLICA_LACKS;
    if (!cache_has_value(known) || replica_has_expired(replica, known))
        return REPLICA_UNSURE;
    cache_read(known, view);
    return REPLICA_HAS;
}

enum replica_answer replica_get(struct replica *replica, const char *key, size_t length, struct cache_view *view,
                                uint64_t *revision)
{
    *revision = floor_of(replica, key, length);
    bool is_reached = replica_is_exclusive(replica) ? replica_has_reached(replica, *revision, false)
                                                    : *revision <= feed_position(&replica->feed);
    if (!is_reached) {
        bool may_come = *revision != UINT64_MAX && replica_may_await(replica) && replica_can_answer(replica);
        return may_come ? REPLICA_WAITS : REPLICA_UNSURE;
    }
    return replica_get_now(replica, key, length, view, revision);
}

void replica_note_read(struct store *store, const char *bucket, const struct kv_entry *entry)
{
    struct replica *replica = replica_find(store, bucket);

    if (replica == NULL || !replica->keeps_values)
        return;
    struct cache_key *known = cache_find(&replica->cache, entry->key, strlen(entry->key));
    if (known != NULL && known->revision == entry->revision)
        cache_restore(&replica->cache, known, entry, cache_expiry(known));
}

void replica_note_absent(struct store *store, const char *bucket, const char *key, uint64_t revision_before,
                         bool is_certain)
{
    struct replica *replica = replica_find(store, bucket);
    struct cache_key *known = replica != NULL ? cache_find(&replica->cache, key, strlen(key)) : NULL;

    if (known == NULL || known->revision != revision_before || cache_operation(known) != KV_PUT)
        return;
    if (is_certain && replica->beginning_count == 0) {
        replica_vanish(replica, known);
        return;
    }
    set_floor(replica, key, UINT64_MAX);
    replica->wants_check = true;
}

uint64_t replica_revision_of(struct store *store, const char *bucket, const char *key)
{
    const struct replica *replica = replica_find(store, bucket);
    const struct cache_key *known = replica != NULL ? cache_find(&replica->cache, key, strlen(key)) : NULL;

    return known != NULL ? known->revision : 0;
}
