#include "daemon/store/replica_parts.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Keys ahead of the feed that are known one by one; beyond, all keys count as ahead. */
#define FLOORS_MAX 65536u

/* A key that was written or answered at a revision that the feed has not brought yet. */
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
    replica->floor_all = 0;
}

/* Those that the feed has reached. They stand about in the order of their revisions. */
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

/* UINT64_MAX: the key's entry in the cache is doubted until there is another, or a check has been. */
static void set_floor(struct replica *replica, const char *key, uint64_t revision)
{
    size_t length = strlen(key);
    struct replica_floor *floor = find_floor(replica, key, length);

    if (floor != NULL && floor->revision >= revision)
        return;
    if (floor != NULL)
        drop_floor(replica, floor);
    floor = HASH_COUNT(replica->floors) < FLOORS_MAX ? malloc(sizeof(*floor) + length + 1) : NULL;
    if (floor == NULL) {
        uint64_t reached = revision != UINT64_MAX ? revision : feed_position(&replica->feed) + 1;
        if (reached > replica->floor_all)
            replica->floor_all = reached;
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
    if (replica->keeps_values && revision > feed_position(&replica->feed))
        set_floor(replica, key, revision);
}

uint64_t replica_floor_of(struct replica *replica, const char *key, size_t length)
{
    const struct replica_floor *floor = find_floor(replica, key, length);
    const struct cache_key *known = cache_find(&replica->cache, key, length);
    uint64_t revision = replica->floor_all;

    if (floor != NULL && floor->revision != UINT64_MAX && floor->revision > revision)
        revision = floor->revision;
    if (known != NULL && known->revision > revision)
        revision = known->revision;
    return revision;
}

uint64_t replica_highest_floor(struct replica *replica)
{
    uint64_t revision = replica->floor_all > replica->acked ? replica->floor_all : replica->acked;
    const struct replica_floor *floor;

    DL_FOREACH2(replica->first_floor, floor, next)
    {
        if (floor->revision > revision)
            revision = floor->revision;
    }
    return revision;
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

/* --- Answers --------------------------------------------------------------------------------------- */

/*
 * A feed that is live was heard within two heartbeats, unless the daemon itself, or its machine, stood still: then it
 * is the first turn, and nothing of what has happened since was read yet.
 */
bool replica_can_answer(const struct replica *replica)
{
    const struct conf *conf = replica->store->conf;
    uint64_t patience_ms = conf->cache.max_staleness_ms, live_ms = FEED_SILENCE_MS(conf);

    if (!replica->is_loaded || replica->is_distrusted)
        return false;
    if (feed_is_live(&replica->feed) && patience_ms < live_ms)
        patience_ms = live_ms;
    return store_boot_ms() - replica->feed.heard_ms <= patience_ms;
}

enum replica_answer replica_get(struct replica *replica, const char *key, size_t length, struct cache_view *view)
{
    if (!replica_can_answer(replica))
        return REPLICA_UNSURE;
    if (replica->floor_all > feed_position(&replica->feed))
        return REPLICA_UNSURE;
    if (replica->floors != NULL) {
        const struct replica_floor *floor = find_floor(replica, key, length);
        if (floor != NULL && floor->revision > feed_position(&replica->feed))
            return REPLICA_UNSURE;
    }
    struct cache_key *known = cache_find(&replica->cache, key, length);
    if (known == NULL || cache_operation(known) != KV_PUT)
        return REPLICA_LACKS;
    int64_t expires_us = cache_expiry(known);
    if (!cache_has_value(known) || (expires_us > 0 && expires_us <= replica_now_us()))
        return REPLICA_UNSURE;
    cache_read(known, view);
    return REPLICA_HAS;
}

void replica_note_read(struct replica *replica, const char *key, const struct kv_entry *entry)
{
    struct cache_key *known = cache_find(&replica->cache, key, strlen(key));

    if (known != NULL && known->revision == entry->revision && replica->keeps_values)
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
