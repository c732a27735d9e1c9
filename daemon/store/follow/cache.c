#include "daemon/store/follow/cache.h"

#include "daemon/base/block.h"
#include "daemon/base/hash.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* The lowest two bits are the operation. */
enum cache_flags {
    HAS_VALUE = 4,
    IS_USED = 8, /* since the clock's hand came by */
    HAS_HEADERS = 16,
    IS_IN_ORDER = 32 /* its last entry is a value */
};

/* Chains of a segment; a power of two, as is the number of chains of a first segment that is smaller. */
#define SEGMENT_CHAINS       256u
#define SEGMENT_CHAINS_FIRST 8u

/* How far the clock's hand goes for one entry: 0.1 ms in a table of chains whose values have left. */
#define WALK_CHAINS_MAX 4096u

/* --- Accounts -------------------------------------------------------------------------------------- */

static void account(struct cache *cache, size_t more, size_t less)
{
    cache->bytes += more - less;
    cache->budget->bytes += more - less;
}

/* --- The table ------------------------------------------------------------------------------------- */

/*
 * Linear hashing: of a table with chain_count chains, those below chain_count - 2^n are split already into themselves
 * and one 2^n further on, where 2^n is the largest power of two that is not above chain_count.
 */
static size_t chain_of(const struct cache *cache, uint64_t hash)
{
    size_t low = (size_t)1 << (63 - __builtin_clzll(cache->chain_count));
    size_t chain = hash & (2 * low - 1);

    return chain < cache->chain_count ? chain : hash & (low - 1);
}

static struct cache_key **chain_at(const struct cache *cache, size_t chain)
{
    return &cache->segments[chain / SEGMENT_CHAINS][chain % SEGMENT_CHAINS];
}

static uint64_t hash_of_key(const struct cache_key *key)
{
    return hash_bytes(key->bytes, key->key_length);
}

/* What points to the key, or the end of the chain where it belongs. There is a table. */
static struct cache_key **find_connection(const struct cache *cache, const char *key, size_t length)
{
    struct cache_key **connection = chain_at(cache, chain_of(cache, hash_bytes(key, length)));

    while (*connection != NULL &&
           ((*connection)->key_length != length || memcmp((*connection)->bytes, key, length) != 0))
        connection = &(*connection)->chained;
    return connection;
}

static struct cache_key **connection_of(const struct cache *cache, const struct cache_key *key)
{
    return find_connection(cache, key->bytes, key->key_length);
}

/* A small bucket has one small segment, which becomes a whole one before there is a second. */
static size_t segment_chains(const struct cache *cache)
{
    return cache->chain_count <= SEGMENT_CHAINS_FIRST ? SEGMENT_CHAINS_FIRST : SEGMENT_CHAINS;
}

static bool add_segment(struct cache *cache)
{
    if (cache->segment_count == cache->segment_capacity) {
        size_t capacity = cache->segment_capacity > 0 ? cache->segment_capacity * 2 : 1;
        struct cache_key ***segments = realloc((void *)cache->segments, capacity * sizeof(*segments));
        if (segments == NULL)
            return false;
        account(cache, capacity * sizeof(*segments), cache->segment_capacity * sizeof(*segments));
        cache->segments = segments;
        cache->segment_capacity = capacity;
    }
    size_t chains = cache->segment_count == 0 ? SEGMENT_CHAINS_FIRST : SEGMENT_CHAINS;
    struct cache_key **segment = calloc(chains, sizeof(*segment));
    if (segment == NULL)
        return false;
    account(cache, chains * sizeof(*segment), 0);
    cache->segments[cache->segment_count++] = segment;
    return true;
}

static bool complete_first_segment(struct cache *cache)
{
    struct cache_key **segment = realloc((void *)cache->segments[0], SEGMENT_CHAINS * sizeof(*segment));

    if (segment == NULL)
        return false;
    memset((void *)(segment + SEGMENT_CHAINS_FIRST), 0, (SEGMENT_CHAINS - SEGMENT_CHAINS_FIRST) * sizeof(*segment));
    account(cache, (SEGMENT_CHAINS - SEGMENT_CHAINS_FIRST) * sizeof(*segment), 0);
    cache->segments[0] = segment;
    return true;
}

/* Add a chain, and move to it what belongs there of the one that is split. */
static bool grow(struct cache *cache)
{
    if (cache->chain_count == 0) {
        if (!add_segment(cache))
            return false;
        cache->chain_count = 1;
        return true;
    }
    if (cache->chain_count == SEGMENT_CHAINS_FIRST && !complete_first_segment(cache))
        return false;
    if (cache->chain_count % SEGMENT_CHAINS == 0 && !add_segment(cache))
        return false;
    size_t low = (size_t)1 << (63 - __builtin_clzll(cache->chain_count));
    size_t split = cache->chain_count - low, added = cache->chain_count++;
    struct cache_key **connection = chain_at(cache, split);
    while (*connection != NULL) {
        struct cache_key *key = *connection;
        if (chain_of(cache, hash_of_key(key)) == split) {
            connection = &key->chained;
            continue;
        }
        *connection = key->chained;
        key->chained = *chain_at(cache, added);
        *chain_at(cache, added) = key;
    }
    return true;
}

/* --- The list -------------------------------------------------------------------------------------- */

static void unlink_key(struct cache *cache, struct cache_key *key)
{
    for (struct cache_cursor *cursor = cache->cursors; cursor != NULL; cursor = cursor->next_cursor) {
        if (cursor->next == key)
            cursor->next = key->newer;
    }
    if (key->older != NULL)
        key->older->newer = key->newer;
    else
        cache->oldest = key->newer;
    if (key->newer != NULL)
        key->newer->older = key->older;
    else
        cache->newest = key->older;
}

static void append_key(struct cache *cache, struct cache_key *key)
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

/* --- Blocks ---------------------------------------------------------------------------------------- */

struct header_tally {
    size_t count, bytes;
};

static bool tally_header(void *arg, const char *name, const char *value)
{
    struct header_tally *tally = arg;

    if (!kv_is_internal_header(name)) {
        tally->count++;
        tally->bytes += strlen(name) + strlen(value) + 2;
    }
    return true;
}

static bool copy_header(void *arg, const char *name, const char *value)
{
    char **at = arg;

    if (!kv_is_internal_header(name)) {
        *at = stpcpy(*at, name) + 1;
        *at = stpcpy(*at, value) + 1;
    }
    return true;
}

/*
 * Headers and value of an entry. The headers are names and values with a NUL each, and an empty name at their end.
 * False: there are too many headers, or no memory.
 */
static bool make_value(const struct kv_entry *entry, char **value, bool *has_headers)
{
    struct header_tally tally = {0};

    message_each_header(entry->message, tally_header, &tally);
    size_t bytes = (tally.count > 0 ? tally.bytes + 1 : 0) + entry->value_bytes;
    *value = NULL;
    *has_headers = tally.count > 0;
    if (tally.count > CACHE_HEADERS_MAX)
        return false;
    if (bytes == 0)
        return true;
    char *at = *value = malloc(bytes);
    if (at == NULL)
        return false;
    if (tally.count > 0) {
        message_each_header(entry->message, copy_header, &at);
        *at++ = '\0';
    }
    if (entry->value_bytes > 0)
        memcpy(at, entry->value, entry->value_bytes);
    return true;
}

/* Gives the key, which has no value, that of an entry. */
static void add_value(struct cache *cache, struct cache_key *key, const struct kv_entry *entry)
{
    bool has_headers;

    if (!make_value(entry, &key->value, &has_headers))
        return;
    key->flags |= (uint8_t)(HAS_VALUE | (has_headers ? HAS_HEADERS : 0));
    cache->value_bytes += key->value_bytes;
    account(cache, block_bytes(key->value), 0);
}

static void drop_value(struct cache *cache, struct cache_key *key)
{
    if (!(key->flags & HAS_VALUE))
        return;
    cache->value_bytes -= key->value_bytes;
    account(cache, 0, block_bytes(key->value));
    free(key->value);
    key->value = NULL;
    key->flags &= (uint8_t) ~(HAS_VALUE | HAS_HEADERS);
}

static void set_entry(struct cache *cache, struct cache_key *key, const struct kv_entry *entry, int64_t expires_us)
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
    if (key->flags & HAS_HEADERS) {
        while (*at != '\0') {
            struct message_header *header = &view->headers[view->message.header_count++];
            header->name = at;
            header->value = at += strlen(at) + 1;
            at += strlen(at) + 1;
        }
        at++;
    }
    view->entry.value = at != NULL ? at : "";
}

/* --- Eviction -------------------------------------------------------------------------------------- */

/* Go on in the chain at the hand, and evict the next value that was not used since the hand came by. */
static bool evict_from_chain(struct cache *cache)
{
    struct cache_key *key = *chain_at(cache, cache->hand);

    for (unsigned i = 0; i < cache->hand_place && key != NULL; i++)
        key = key->chained;
    for (; key != NULL; key = key->chained) {
        cache->hand_place++;
        /* An empty value takes no room worth having. */
        if (!(key->flags & HAS_VALUE) || key->value_bytes == 0)
            continue;
        if (!(key->flags & IS_USED)) {
            drop_value(cache, key);
            cache->budget->evicted++;
            return true;
        }
        key->flags &= (uint8_t)~IS_USED;
    }
    return false;
}

/* The clock's hand goes on to the next value that was not used since it came by. False: *chains were visited, and no
 * value was evicted. */
static bool evict_one(struct cache *cache, unsigned *chains)
{
    for (; *chains > 0; --*chains) {
        if (cache->hand >= cache->chain_count)
            cache->hand = 0;
        if (evict_from_chain(cache))
            return true;
        cache->hand++;
        cache->hand_place = 0;
    }
    return false;
}

enum room {
    ROOM_IS_MADE,
    ROOM_COMES_LATER, /* the hand has gone far, and met no value that may go */
    ROOM_FOR_NOTHING  /* there are no values left */
};

/* Values of the cache that has most of them go first. */
static enum room make_room(struct cache_budget *budget)
{
    unsigned chains = WALK_CHAINS_MAX;

    while (budget->bytes > budget->max_bytes) {
        struct cache *largest = budget->first, *cache;
        DL_FOREACH(budget->first, cache)
        {
            if (cache->value_bytes > largest->value_bytes)
                largest = cache;
        }
        if (largest == NULL || largest->value_bytes == 0)
            return ROOM_FOR_NOTHING;
        if (!evict_one(largest, &chains))
            return ROOM_COMES_LATER;
    }
    return ROOM_IS_MADE;
}

/* --- Keys ------------------------------------------------------------------------------------------ */

struct cache_key *cache_find(const struct cache *cache, const char *key, size_t length)
{
    if (cache->chain_count == 0)
        return NULL;
    return *find_connection(cache, key, length);
}

/* A key that is in no list, chain or order yet. */
static struct cache_key *make_key(struct cache *cache, const char *name, size_t length)
{
    struct cache_key *key = malloc(sizeof(*key) + length + 1);

    if (key == NULL)
        return NULL;
    memset(key, 0, sizeof(*key));
    key->key_length = (uint16_t)length;
    memcpy(key->bytes, name, length + 1);
    account(cache, block_bytes(key), 0);
    return key;
}

static void free_key(struct cache *cache, struct cache_key *key)
{
    drop_value(cache, key);
    account(cache, 0, block_bytes(key));
    free(key);
}

static bool add_to_order(struct cache *cache, struct cache_key *key)
{
    size_t before = cache->order.bytes;

    if (key->flags & IS_IN_ORDER)
        return true;
    if (order_add(&cache->order, key->bytes) != ORDER_ADDED)
        return false;
    account(cache, cache->order.bytes, before);
    key->flags |= IS_IN_ORDER;
    cache->value_count++;
    return true;
}

static void remove_from_order(struct cache *cache, struct cache_key *key)
{
    size_t before = cache->order.bytes;

    if (!(key->flags & IS_IN_ORDER))
        return;
    order_remove(&cache->order, key->bytes);
    account(cache, cache->order.bytes, before);
    key->flags &= (uint8_t)~IS_IN_ORDER;
    cache->value_count--;
}

/* The key of that name, made where there is none. NULL: out of memory. */
static struct cache_key *obtain_key(struct cache *cache, const char *name)
{
    size_t length = strlen(name);
    struct cache_key *key = cache_find(cache, name, length);

    if (key != NULL) {
        unlink_key(cache, key);
        drop_value(cache, key);
        return key;
    }
    if (cache->count >= cache->chain_count && !grow(cache))
        return NULL;
    key = make_key(cache, name, length);
    if (key == NULL)
        return NULL;
    *connection_of(cache, key) = key;
    cache->count++;
    return key;
}

struct cache_key *cache_set(struct cache *cache, const struct kv_entry *entry, int64_t expires_us, bool with_value)
{
    struct cache_key *key = obtain_key(cache, entry->key);

    if (key == NULL)
        return NULL;
    append_key(cache, key);
    set_entry(cache, key, entry, expires_us);
    /* Deleted keys are not in byte order, so that a listing does not pass them. */
    if (entry->operation != KV_PUT) {
        remove_from_order(cache, key);
    } else if (!add_to_order(cache, key)) {
        cache_remove(cache, key);
        return NULL;
    }
    if (with_value)
        add_value(cache, key, entry);
    /* Eviction may drop this key's value, but not the key. */
    switch (make_room(cache->budget)) {
    case ROOM_IS_MADE:
        break;
    case ROOM_COMES_LATER:
        drop_value(cache, key);
        break;
    case ROOM_FOR_NOTHING:
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
    add_value(cache, key, entry);
    key->flags |= IS_USED;
    make_room(cache->budget);
}

void cache_remove(struct cache *cache, struct cache_key *key)
{
    *connection_of(cache, key) = key->chained;
    unlink_key(cache, key);
    remove_from_order(cache, key);
    cache->count--;
    free_key(cache, key);
}

void cache_drop_value(struct cache *cache, struct cache_key *key)
{
    drop_value(cache, key);
}

/* --- Marks ----------------------------------------------------------------------------------------- */

void cache_unmark_all(struct cache *cache)
{
    cache->mark++;
}

void cache_mark(struct cache *cache, struct cache_key *key)
{
    key->mark = cache->mark;
}

bool cache_is_marked(const struct cache *cache, const struct cache_key *key)
{
    return key->mark == cache->mark;
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

struct order_place cache_place(const struct cache *cache, const char *name, bool is_behind)
{
    return order_find(&cache->order, name, is_behind);
}

struct cache_key *cache_next_in_order(const struct cache *cache, struct order_place *place)
{
    const char *name = order_next(&cache->order, place);

    return name != NULL ? (struct cache_key *)(uintptr_t)(name - offsetof(struct cache_key, bytes)) : NULL;
}

/* --- Life ------------------------------------------------------------------------------------------ */

void cache_init(struct cache *cache, struct cache_budget *budget)
{
    memset(cache, 0, sizeof(*cache));
    cache->budget = budget;
    DL_APPEND2(budget->first, cache, previous, next);
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
        table_bytes += (i == 0 ? segment_chains(cache) : SEGMENT_CHAINS) * sizeof(**cache->segments);
        free((void *)cache->segments[i]);
    }
    free((void *)cache->segments);
    account(cache, 0, table_bytes + cache->order.bytes);
    order_clear(&cache->order);
    DL_DELETE2(budget->first, cache, previous, next);
    memset(cache, 0, sizeof(*cache));
}

void cache_empty(struct cache *cache)
{
    struct cache_budget *budget = cache->budget;
    struct cache_cursor *cursors = cache->cursors, *cursor;
    uint8_t mark = cache->mark;

    cache_clear(cache);
    cache_init(cache, budget);
    cache->cursors = cursors;
    cache->mark = mark;
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
