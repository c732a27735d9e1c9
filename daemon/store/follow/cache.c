#include "daemon/store/follow/cache.h"

#include "daemon/base/block.h"
#include "daemon/base/hash.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* The lowest two bits are the operation. */
enum cache_flags {
    HAS_VALUE = 4,
    IS_USED = 8, /* since the clock's hand passed */
    HAS_HEADERS = 16,
    IS_IN_ORDER = 32 /* its last entry is a value */
};

/* Chains of a segment; a power of two, as is the number of chains of a first segment that is smaller. */
#define SEGMENT_CHAINS       256u
#define SEGMENT_CHAINS_FIRST 8u

/* Chains that the clock's hand passes at most for one entry: 0.1 ms if all their values were evicted. */
#define WALK_CHAINS_MAX 4096u

/* --- Accounts -------------------------------------------------------------------------------------- */

static void cache_account(struct cache *cache, size_t more, size_t less)
{
    cache->bytes += more - less;
    cache->user->bytes += more - less;
    cache->budget->bytes += more - less;
}

/* --- The table ------------------------------------------------------------------------------------- */

/*
 * Linear hashing: let 2^n be the largest power of two that is not above chain_count. Chains below chain_count - 2^n
 * were split into themselves and the chain 2^n further on.
 */
static size_t cache_chain_of(const struct cache *cache, uint64_t hash)
{
    size_t low = (size_t)1 << (63 - __builtin_clzll(cache->chain_count));
    size_t chain = hash & (2 * low - 1);

    return chain < cache->chain_count ? chain : hash & (low - 1);
}

static struct cache_key **cache_chain_at(const struct cache *cache, size_t chain)
{
    return &cache->segments[chain / SEGMENT_CHAINS][chain % SEGMENT_CHAINS];
}

static uint64_t cache_hash_of(const struct cache_key *key)
{
    return hash_bytes(key->bytes, key->key_length);
}

/* Return what points to the key, or the end of the chain where it belongs. The table must not be empty. */
static struct cache_key **cache_find_link(const struct cache *cache, const char *key, size_t length)
{
    struct cache_key **link = cache_chain_at(cache, cache_chain_of(cache, hash_bytes(key, length)));

    while (*link != NULL && ((*link)->key_length != length || memcmp((*link)->bytes, key, length) != 0))
        link = &(*link)->chained;
    return link;
}

static struct cache_key **cache_link_of(const struct cache *cache, const struct cache_key *key)
{
    return cache_find_link(cache, key->bytes, key->key_length);
}

/* The first segment is small, and becomes a whole one before there is a second. */
static size_t cache_first_segment_chains(const struct cache *cache)
{
    return cache->chain_count <= SEGMENT_CHAINS_FIRST ? SEGMENT_CHAINS_FIRST : SEGMENT_CHAINS;
}

static bool cache_add_segment(struct cache *cache)
{
    if (cache->segment_count == cache->segment_capacity) {
        size_t capacity = cache->segment_capacity > 0 ? cache->segment_capacity * 2 : 1;
        struct cache_key ***segments = realloc((void *)cache->segments, capacity * sizeof(*segments));
        if (segments == NULL)
            return false;
        cache_account(cache, capacity * sizeof(*segments), cache->segment_capacity * sizeof(*segments));
        cache->segments = segments;
        cache->segment_capacity = capacity;
    }
    size_t chains = cache->segment_count == 0 ? SEGMENT_CHAINS_FIRST : SEGMENT_CHAINS;
    struct cache_key **segment = calloc(chains, sizeof(*segment));
    if (segment == NULL)
        return false;
    cache_account(cache, chains * sizeof(*segment), 0);
    cache->segments[cache->segment_count++] = segment;
    return true;
}

static bool cache_complete_first_segment(struct cache *cache)
{
    struct cache_key **segment = realloc((void *)cache->segments[0], SEGMENT_CHAINS * sizeof(*segment));

    if (segment == NULL)
        return false;
    memset((void *)(segment + SEGMENT_CHAINS_FIRST), 0, (SEGMENT_CHAINS - SEGMENT_CHAINS_FIRST) * sizeof(*segment));
    cache_account(cache, (SEGMENT_CHAINS - SEGMENT_CHAINS_FIRST) * sizeof(*segment), 0);
    cache->segments[0] = segment;
    return true;
}

/* Add a chain, and move to it the keys of the split chain that belong there. */
static bool cache_grow(struct cache *cache)
{
    if (cache->chain_count == 0) {
        if (!cache_add_segment(cache))
            return false;
        cache->chain_count = 1;
        return true;
    }
    if (cache->chain_count == SEGMENT_CHAINS_FIRST && !cache_complete_first_segment(cache))
        return false;
    if (cache->chain_count % SEGMENT_CHAINS == 0 && !cache_add_segment(cache))
        return false;
    size_t low = (size_t)1 << (63 - __builtin_clzll(cache->chain_count));
    size_t split = cache->chain_count - low, added = cache->chain_count++;
    struct cache_key **link = cache_chain_at(cache, split);
    while (*link != NULL) {
        struct cache_key *key = *link;
        if (cache_chain_of(cache, cache_hash_of(key)) == split) {
            link = &key->chained;
            continue;
        }
        *link = key->chained;
        key->chained = *cache_chain_at(cache, added);
        *cache_chain_at(cache, added) = key;
    }
    return true;
}

/* --- The list -------------------------------------------------------------------------------------- */

static void cache_unlink_key(struct cache *cache, struct cache_key *key)
{
    for (struct cache_cursor *cursor = cache->cursors; cursor != NULL; cursor = cursor->next_cursor) {
        if (cursor->next == key)
            cursor->next = key->newer;
    }
    if (cache->late == key)
        cache->late = key->older;
    if (key->older != NULL)
        key->older->newer = key->newer;
    else
        cache->oldest = key->newer;
    if (key->newer != NULL)
        key->newer->older = key->older;
    else
        cache->newest = key->older;
}

static void cache_append_key(struct cache *cache, struct cache_key *key)
{
    key->newer = NULL;
    key->older = cache->newest;
    if (cache->newest != NULL)
        cache->newest->newer = key;
    else
        cache->oldest = key;
    cache->newest = key;
    for (struct cache_cursor *cursor = cache->cursors; cursor != NULL; cursor = cursor->next_cursor) {
        if (cursor->next == NULL)
            cursor->next = key;
    }
}

/* How many keys are passed to find the place of a late one. If that is not enough, it becomes the newest. */
#define LATE_STEPS_MAX 1000u

/* Find the key after which one with this revision belongs (NULL: at the beginning). False: that takes too long. */
static bool cache_find_late_place(const struct cache *cache, uint64_t revision, struct cache_key **before)
{
    unsigned steps = 0;

    *before = cache->late;
    if (*before == NULL && cache->oldest->revision <= revision)
        *before = cache->newest;
    for (; *before != NULL && (*before)->revision > revision; *before = (*before)->older) {
        if (++steps > LATE_STEPS_MAX)
            return false;
    }
    for (;;) {
        struct cache_key *next = *before != NULL ? (*before)->newer : cache->oldest;
        if (next == NULL || next->revision > revision)
            return true;
        if (++steps > LATE_STEPS_MAX)
            return false;
        *before = next;
    }
}

/* Put a key into the list, by its revision. */
static void cache_link_key(struct cache *cache, struct cache_key *key, uint64_t revision)
{
    bool is_late = cache->newest != NULL && cache->newest->revision > revision && cache->cursors == NULL;
    struct cache_key *before;

    if (!is_late || !cache_find_late_place(cache, revision, &before)) {
        cache_append_key(cache, key);
        return;
    }
    key->older = before;
    key->newer = before != NULL ? before->newer : cache->oldest;
    key->newer->older = key; /* the newest one at least is newer */
    if (before != NULL)
        before->newer = key;
    else
        cache->oldest = key;
    cache->late = key;
}

/* --- Blocks ---------------------------------------------------------------------------------------- */

/* Set the value of a key that has none. Does nothing if there is no memory. */
static void cache_add_value(struct cache *cache, struct cache_key *key, const struct kv_entry *entry)
{
    bool has_headers;

    if (!cache_value_pack(entry, &key->value, &has_headers))
        return;
    key->flags |= (uint8_t)(HAS_VALUE | (has_headers ? HAS_HEADERS : 0));
    cache->value_bytes += key->value_bytes;
    cache_user_note_values(cache);
    cache_account(cache, block_bytes(key->value), 0);
}

static void cache_free_value(struct cache *cache, struct cache_key *key)
{
    if (!(key->flags & HAS_VALUE))
        return;
    cache->value_bytes -= key->value_bytes;
    cache_user_note_values(cache);
    cache_account(cache, 0, block_bytes(key->value));
    free(key->value);
    key->value = NULL;
    key->flags &= (uint8_t) ~(HAS_VALUE | HAS_HEADERS);
}

static void cache_set_entry(struct cache *cache, struct cache_key *key, const struct kv_entry *entry,
                            int64_t expires_us)
{
    key->revision = entry->revision;
    key->created_us = entry->created_us;
    key->expires_us = expires_us;
    key->value_bytes = (uint32_t)entry->value_bytes;
    key->flags = (uint8_t)((key->flags & (IS_USED | IS_IN_ORDER)) | (unsigned)entry->operation);
    cache_mark(cache, key);
}

bool cache_has_value(const struct cache_key *key)
{
    return cache_operation(key) != KV_PUT || key->flags & HAS_VALUE;
}

void cache_read(struct cache_key *key, struct cache_view *view)
{
    const char *at = key->value;

    key->flags |= IS_USED;
    view->message = (struct message){.headers = view->headers};
    view->entry = (struct kv_entry){.key = key->bytes,
                                    .value_bytes = key->value_bytes,
                                    .revision = key->revision,
                                    .created_us = key->created_us,
                                    .operation = cache_operation(key),
                                    .message = &view->message};
    if (key->flags & HAS_HEADERS)
        at = cache_value_read_headers(at, view->headers, &view->message.header_count);
    view->entry.value = at != NULL ? at : "";
}

/* --- Eviction -------------------------------------------------------------------------------------- */

/* In the chain at the hand, evict the next value that was not used since the hand passed. False: there is none. */
static bool cache_evict_from_chain(struct cache *cache)
{
    struct cache_key *key = *cache_chain_at(cache, cache->hand);

    for (unsigned i = 0; i < cache->hand_place && key != NULL; i++)
        key = key->chained;
    for (; key != NULL; key = key->chained) {
        cache->hand_place++;
        /* Evicting an empty value would free nothing. */
        if (!(key->flags & HAS_VALUE) || key->value_bytes == 0)
            continue;
        if (!(key->flags & IS_USED)) {
            cache_free_value(cache, key);
            cache->budget->evicted++;
            return true;
        }
        key->flags &= (uint8_t)~IS_USED;
    }
    return false;
}

/*
 * Move the hand to the next value that was not used since it passed, and evict it. *chains counts down the chains that
 * may be visited. False: it has reached 0, and no value was evicted.
 */
static bool cache_evict_one(struct cache *cache, unsigned *chains)
{
    for (; *chains > 0; --*chains) {
        if (cache->hand >= cache->chain_count)
            cache->hand = 0;
        if (cache_evict_from_chain(cache))
            return true;
        cache->hand++;
        cache->hand_place = 0;
    }
    return false;
}

enum room {
    ROOM_MADE,
    ROOM_LATER, /* the hand has gone far, and met no value that may be evicted */
    ROOM_NEVER  /* contents must be given up: the user who gives memory back has no values left */
};

/* Evict values of the user who gives memory back, first those of a cache that has most of them. */
static enum room cache_make_room(struct cache_budget *budget)
{
    unsigned chains = WALK_CHAINS_MAX;

    while (budget->bytes > budget->max_bytes) {
        struct cache *cache = cache_user_most_values(cache_user_largest(budget));
        if (cache == NULL)
            cache = cache_user_most_values(cache_user_who_gives(budget));
        if (cache == NULL)
            return ROOM_NEVER;
        if (!cache_evict_one(cache, &chains))
            return ROOM_LATER;
    }
    return ROOM_MADE;
}

/* --- Keys ------------------------------------------------------------------------------------------ */

struct cache_key *cache_find(const struct cache *cache, const char *key, size_t length)
{
    if (cache->chain_count == 0)
        return NULL;
    return *cache_find_link(cache, key, length);
}

/* Return a new key, which is in no list, chain or order; NULL: out of memory. */
static struct cache_key *cache_make_key(struct cache *cache, const char *name, size_t length)
{
    struct cache_key *key = malloc(sizeof(*key) + length + 1);

    if (key == NULL)
        return NULL;
    memset(key, 0, sizeof(*key));
    key->mark = (uint8_t)(cache->mark - 1); /* neither marked nor doubtful */
    key->key_length = (uint16_t)length;
    memcpy(key->bytes, name, length + 1);
    cache_account(cache, block_bytes(key), 0);
    return key;
}

static void cache_free_key(struct cache *cache, struct cache_key *key)
{
    cache_free_value(cache, key);
    cache_account(cache, 0, block_bytes(key));
    free(key);
}

static bool cache_add_to_order(struct cache *cache, struct cache_key *key)
{
    size_t before = cache->order.bytes;

    if (key->flags & IS_IN_ORDER)
        return true;
    if (key_order_add(&cache->order, key->bytes) != KEY_ORDER_ADDED)
        return false;
    cache_account(cache, cache->order.bytes, before);
    key->flags |= IS_IN_ORDER;
    cache->value_count++;
    return true;
}

static void cache_remove_from_order(struct cache *cache, struct cache_key *key)
{
    size_t before = cache->order.bytes;

    if (!(key->flags & IS_IN_ORDER))
        return;
    key_order_remove(&cache->order, key->bytes);
    cache_account(cache, cache->order.bytes, before);
    key->flags &= (uint8_t)~IS_IN_ORDER;
    cache->value_count--;
}

/* Return the key with this name, created if need be, out of the list and without a value. NULL: out of memory. */
static struct cache_key *cache_obtain_key(struct cache *cache, const char *name)
{
    size_t length = strlen(name);
    struct cache_key *key = cache_find(cache, name, length);

    if (key != NULL) {
        cache_unlink_key(cache, key);
        cache_free_value(cache, key);
        return key;
    }
    if (cache->count >= cache->chain_count && !cache_grow(cache))
        return NULL;
    key = cache_make_key(cache, name, length);
    if (key == NULL)
        return NULL;
    *cache_link_of(cache, key) = key;
    cache->count++;
    return key;
}

struct cache_key *cache_set(struct cache *cache, const struct kv_entry *entry, int64_t expires_us, bool with_value)
{
    struct cache_key *key = cache_obtain_key(cache, entry->key);

    if (key == NULL)
        return NULL;
    cache_link_key(cache, key, entry->revision);
    cache_set_entry(cache, key, entry, expires_us);
    /* Deleted keys are not in the byte order, so that a listing does not have to skip them. */
    if (entry->operation != KV_PUT) {
        cache_remove_from_order(cache, key);
    } else if (!cache_add_to_order(cache, key)) {
        cache_remove(cache, key);
        return NULL;
    }
    if (with_value)
        cache_add_value(cache, key, entry);
    /* Eviction may drop this key's value, but not the key. */
    switch (cache_make_room(cache->budget)) {
    case ROOM_MADE:
        break;
    case ROOM_LATER:
        cache_free_value(cache, key);
        break;
    case ROOM_NEVER:
        return NULL;
    }
    return key;
}

void cache_restore(struct cache *cache, struct cache_key *key, const struct kv_entry *entry, int64_t expires_us)
{
    if (key->flags & HAS_VALUE || key->revision != entry->revision)
        return;
    key->expires_us = expires_us;
    key->value_bytes = (uint32_t)entry->value_bytes;
    cache_add_value(cache, key, entry);
    key->flags |= IS_USED;
    cache_make_room(cache->budget);
}

void cache_remove(struct cache *cache, struct cache_key *key)
{
    *cache_link_of(cache, key) = key->chained;
    cache_unlink_key(cache, key);
    cache_remove_from_order(cache, key);
    cache_end_doubt(cache, key);
    cache->count--;
    cache_free_key(cache, key);
}

void cache_drop_value(struct cache *cache, struct cache_key *key)
{
    cache_free_value(cache, key);
}

/* --- Walks ----------------------------------------------------------------------------------------- */

void cache_cursor_begin(struct cache *cache, struct cache_cursor *cursor)
{
    cursor->cache = cache;
    cursor->next = cache->oldest;
    LL_PREPEND2(cache->cursors, cursor, next_cursor);
}

struct cache_key *cache_cursor_next(struct cache_cursor *cursor)
{
    struct cache_key *key = cursor->next;

    if (key != NULL)
        cursor->next = key->newer;
    return key;
}

void cache_cursor_end(struct cache_cursor *cursor)
{
    if (cursor->cache == NULL)
        return;
    LL_DELETE2(cursor->cache->cursors, cursor, next_cursor);
    cursor->cache = NULL;
}

/* --- Byte order ------------------------------------------------------------------------------------ */

struct key_order_place cache_place(const struct cache *cache, const char *name, bool is_after)
{
    return key_order_find(&cache->order, name, is_after);
}

struct cache_key *cache_next_in_order(const struct cache *cache, struct key_order_place *place)
{
    const char *name = key_order_next(&cache->order, place);

    return name != NULL ? (struct cache_key *)(uintptr_t)(name - offsetof(struct cache_key, bytes)) : NULL;
}

/* --- Life ------------------------------------------------------------------------------------------ */

void cache_init(struct cache *cache, struct cache_budget *budget)
{
    memset(cache, 0, sizeof(*cache));
    cache->budget = budget;
    cache_user_join(cache, 0);
}

void cache_clear(struct cache *cache)
{
    struct cache_budget *budget = cache->budget;

    if (budget == NULL)
        return;
    if (cache->newest != NULL) {
        cache->newest->newer = budget->garbage;
        budget->garbage = cache->oldest;
    }
    size_t table_bytes = cache->segment_capacity * sizeof(*cache->segments);
    for (size_t i = 0; i < cache->segment_count; i++) {
        table_bytes += (i == 0 ? cache_first_segment_chains(cache) : SEGMENT_CHAINS) * sizeof(**cache->segments);
        free((void *)cache->segments[i]);
    }
    free((void *)cache->segments);
    cache_account(cache, 0, table_bytes + cache->order.bytes);
    key_order_clear(&cache->order);
    cache_user_leave(cache);
    memset(cache, 0, sizeof(*cache));
}

void cache_empty(struct cache *cache)
{
    struct cache_budget *budget = cache->budget;
    struct cache_cursor *cursors = cache->cursors, *cursor;
    uint64_t user = cache->user->id;
    uint8_t mark = cache->mark;
    bool keeps_values = cache->keeps_values;

    cache_clear(cache);
    cache_init(cache, budget);
    cache_user_join(cache, user);
    cache->cursors = cursors;
    cache->mark = mark;
    cache->keeps_values = keeps_values;
    LL_FOREACH2(cursors, cursor, next_cursor)
    {
        cursor->next = NULL;
    }
}

bool cache_collect(struct cache_budget *budget, unsigned count)
{
    struct cache_key *key;

    while (count-- > 0 && (key = budget->garbage) != NULL) {
        budget->garbage = key->newer;
        budget->bytes -= block_bytes(key) + block_bytes(key->value);
        free(key->value);
        free(key);
    }
    return budget->garbage != NULL;
}
