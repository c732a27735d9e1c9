#include "daemon/store/cache.h"

#include "daemon/hash.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* The lowest two bits are the operation. */
enum cache_flags {
    HAS_VALUE = 4,
    IS_USED = 8, /* since the clock's hand came by */
    HAS_EXPIRY = 16,
    HAS_HEADERS = 32
};

#define CAPACITY_FIRST 16u

/* malloc's own, before each block. */
#define BLOCK_OVERHEAD sizeof(size_t)

/* A slot is a pointer and a hash. */
#define SLOT_BYTES (sizeof(struct cache_key *) + sizeof(uint32_t))

/* --- Accounts -------------------------------------------------------------------------------------- */

static void account(struct cache *cache, size_t more, size_t less)
{
    cache->bytes += more - less;
    cache->budget->bytes += more - less;
}

static size_t block_bytes(struct cache_key *key)
{
    return malloc_usable_size(key) + BLOCK_OVERHEAD;
}

/* --- The table ------------------------------------------------------------------------------------- */

static uint32_t hash_of(const char *key, size_t length)
{
    return (uint32_t)hash_bytes(key, length);
}

/* The slot that has the key, or the free one where it belongs. */
static size_t find_slot(const struct cache *cache, uint32_t hash, const char *key, size_t length)
{
    size_t mask = cache->capacity - 1, slot = hash & mask;

    while (cache->slots[slot] != NULL) {
        const struct cache_key *at = cache->slots[slot];
        if (cache->hashes[slot] == hash && at->key_length == length && memcmp(at->bytes, key, length) == 0)
            break;
        slot = (slot + 1) & mask;
    }
    return slot;
}

static size_t slot_of(const struct cache *cache, const struct cache_key *key)
{
    return find_slot(cache, hash_of(key->bytes, key->key_length), key->bytes, key->key_length);
}

static bool grow(struct cache *cache)
{
    size_t capacity = cache->capacity > 0 ? cache->capacity * 2 : CAPACITY_FIRST;
    struct cache_key **slots = calloc(capacity, sizeof(struct cache_key *));
    uint32_t *hashes = malloc(capacity * sizeof(*hashes));

    if (slots == NULL || hashes == NULL) {
        free((void *)slots);
        free(hashes);
        return false;
    }
    for (size_t i = 0; i < cache->capacity; i++) {
        if (cache->slots[i] == NULL)
            continue;
        size_t slot = cache->hashes[i] & (capacity - 1);
        while (slots[slot] != NULL)
            slot = (slot + 1) & (capacity - 1);
        slots[slot] = cache->slots[i];
        hashes[slot] = cache->hashes[i];
    }
    free((void *)cache->slots);
    free(cache->hashes);
    account(cache, capacity * SLOT_BYTES, cache->capacity * SLOT_BYTES);
    cache->slots = slots;
    cache->hashes = hashes;
    cache->capacity = capacity;
    cache->hand = 0;
    return true;
}

/* Linear probing without tombstones: those behind that would be found no more move up. */
static void clear_slot(struct cache *cache, size_t slot)
{
    size_t mask = cache->capacity - 1, at = slot;

    for (;;) {
        at = (at + 1) & mask;
        if (cache->slots[at] == NULL)
            break;
        size_t home = cache->hashes[at] & mask;
        if (((at - home) & mask) >= ((at - slot) & mask)) {
            cache->slots[slot] = cache->slots[at];
            cache->hashes[slot] = cache->hashes[at];
            slot = at;
        }
    }
    cache->slots[slot] = NULL;
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

/* A block has moved: what points to it must follow. */
static void move_key(struct cache *cache, size_t slot, const struct cache_key *from, struct cache_key *to)
{
    cache->slots[slot] = to;
    if (to->older != NULL)
        to->older->newer = to;
    else
        cache->oldest = to;
    if (to->newer != NULL)
        to->newer->older = to;
    else
        cache->newest = to;
    for (struct cache_cursor *cursor = cache->cursors; cursor != NULL; cursor = cursor->next_cursor) {
        if (cursor->next == from)
            cursor->next = to;
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

/* The headers are an empty name at their end, behind names and values with a NUL each. */
static struct cache_key *make_block(const struct kv_entry *entry, size_t key_length, int64_t expires_us,
                                    bool with_value)
{
    struct header_tally tally = {0};

    if (with_value && (!message_each_header(entry->message, tally_header, &tally) || tally.count > CACHE_HEADERS_MAX))
        with_value = false;
    bool has_headers = with_value && tally.count > 0;
    struct cache_key *key = malloc(sizeof(*key) + key_length + 1 + (expires_us > 0 ? sizeof(expires_us) : 0) +
                                   (has_headers ? tally.bytes + 1 : 0) + (with_value ? entry->value_bytes : 0));
    if (key == NULL)
        return NULL;
    key->revision = entry->revision;
    key->created_us = entry->created_us;
    key->value_bytes = (uint32_t)entry->value_bytes;
    key->key_length = (uint16_t)key_length;
    key->mark = 0;
    key->flags = (uint8_t)((unsigned)entry->operation | (with_value ? HAS_VALUE : 0) |
                           (expires_us > 0 ? HAS_EXPIRY : 0) | (has_headers ? HAS_HEADERS : 0));
    memcpy(key->bytes, entry->key, key_length + 1);
    char *at = key->bytes + key_length + 1;
    if (expires_us > 0) {
        memcpy(at, &expires_us, sizeof(expires_us));
        at += sizeof(expires_us);
    }
    if (has_headers) {
        message_each_header(entry->message, copy_header, &at);
        *at++ = '\0';
    }
    if (with_value && entry->value_bytes > 0)
        memcpy(at, entry->value, entry->value_bytes);
    return key;
}

int64_t cache_expiry(const struct cache_key *key)
{
    int64_t expires_us = 0;

    if (key->flags & HAS_EXPIRY)
        memcpy(&expires_us, key->bytes + key->key_length + 1, sizeof(expires_us));
    return expires_us;
}

bool cache_has_value(const struct cache_key *key)
{
    return cache_operation(key) != KV_PUT || key->flags & HAS_VALUE;
}

void cache_read(struct cache_key *key, struct cache_view *view)
{
    const char *at = key->bytes + key->key_length + 1;

    key->flags |= IS_USED;
    view->message = (struct message){.headers = view->headers};
    view->entry = (struct kv_entry){.key = key->bytes,
                                    .value_bytes = key->value_bytes,
                                    .revision = key->revision,
                                    .created_us = key->created_us,
                                    .operation = cache_operation(key),
                                    .message = &view->message};
    if (key->flags & HAS_EXPIRY)
        at += sizeof(int64_t);
    if (key->flags & HAS_HEADERS) {
        while (*at != '\0') {
            struct message_header *header = &view->headers[view->message.header_count++];
            header->name = at;
            header->value = at += strlen(at) + 1;
            at += strlen(at) + 1;
        }
        at++;
    }
    view->entry.value = key->flags & HAS_VALUE ? at : "";
}

/* --- Eviction -------------------------------------------------------------------------------------- */

static void drop_value(struct cache *cache, size_t slot)
{
    struct cache_key *key = cache->slots[slot];
    size_t before = block_bytes(key);
    int64_t expires_us = cache_expiry(key);
    size_t size = sizeof(*key) + key->key_length + 1 + (expires_us > 0 ? sizeof(expires_us) : 0);
    struct cache_key *smaller = malloc(size);

    if (smaller == NULL)
        return;
    memcpy(smaller, key, size);
    smaller->flags &= (uint8_t) ~(HAS_VALUE | HAS_HEADERS);
    cache->value_bytes -= smaller->value_bytes;
    account(cache, block_bytes(smaller), before);
    move_key(cache, slot, key, smaller);
    free(key);
}

/* The clock's hand goes on to the next value that was not used since it came by. False: there is no value. */
static bool evict_one(struct cache *cache)
{
    for (size_t turned = 0; turned <= 2 * cache->capacity; turned++) {
        size_t slot = cache->hand;
        struct cache_key *key = cache->slots[slot];

        cache->hand = (slot + 1) & (cache->capacity - 1);
        /* An empty value takes no room worth having. */
        if (key == NULL || !(key->flags & HAS_VALUE) || key->value_bytes == 0)
            continue;
        if (!(key->flags & IS_USED)) {
            drop_value(cache, slot);
            cache->budget->evicted++;
            return true;
        }
        key->flags &= (uint8_t)~IS_USED;
    }
    return false;
}

/* Values of the cache that has most of them go first. */
static bool make_room(struct cache_budget *budget)
{
    while (budget->bytes > budget->max_bytes) {
        struct cache *largest = budget->first, *cache;
        DL_FOREACH(budget->first, cache)
        {
            if (cache->value_bytes > largest->value_bytes)
                largest = cache;
        }
        if (largest == NULL || largest->value_bytes == 0 || !evict_one(largest))
            return false;
    }
    return true;
}

/* --- Keys ------------------------------------------------------------------------------------------ */

struct cache_key *cache_find(const struct cache *cache, const char *key, size_t length)
{
    if (cache->capacity == 0)
        return NULL;
    return cache->slots[find_slot(cache, hash_of(key, length), key, length)];
}

/* Lets go of what a slot has, list and accounts included; the slot still points to it. */
static void forget_block(struct cache *cache, struct cache_key *key)
{
    unlink_key(cache, key);
    account(cache, 0, block_bytes(key));
    if (key->flags & HAS_VALUE)
        cache->value_bytes -= key->value_bytes;
    cache->count--;
    free(key);
}

struct cache_key *cache_set(struct cache *cache, const struct kv_entry *entry, int64_t expires_us, bool with_value)
{
    size_t length = strlen(entry->key);

    if (cache->count >= cache->capacity / 8 * 7 && !grow(cache))
        return NULL;
    struct cache_key *key = make_block(entry, length, expires_us, with_value);
    if (key == NULL)
        return NULL;
    uint32_t hash = hash_of(entry->key, length);
    size_t slot = find_slot(cache, hash, entry->key, length);
    if (cache->slots[slot] != NULL) {
        key->flags |= cache->slots[slot]->flags & IS_USED;
        forget_block(cache, cache->slots[slot]);
    }
    cache->slots[slot] = key;
    cache->hashes[slot] = hash;
    cache->count++;
    append_key(cache, key);
    cache_mark(cache, key);
    account(cache, block_bytes(key), 0);
    if (key->flags & HAS_VALUE)
        cache->value_bytes += key->value_bytes;
    if (cache->budget->bytes <= cache->budget->max_bytes)
        return key;
    /* The value may be among those that go; the key stays, but may move. */
    bool has_room = make_room(cache->budget);
    return has_room ? cache->slots[slot] : NULL;
}

void cache_restore(struct cache *cache, struct cache_key *key, const struct kv_entry *entry, int64_t expires_us)
{
    if (key->flags & HAS_VALUE || key->revision != entry->revision)
        return;
    struct cache_key *full = make_block(entry, key->key_length, expires_us, true);
    if (full == NULL)
        return;
    size_t slot = slot_of(cache, key);
    full->flags |= IS_USED;
    full->mark = key->mark;
    full->older = key->older;
    full->newer = key->newer;
    account(cache, block_bytes(full), block_bytes(key));
    if (full->flags & HAS_VALUE)
        cache->value_bytes += full->value_bytes;
    move_key(cache, slot, key, full);
    free(key);
    make_room(cache->budget);
}

void cache_remove(struct cache *cache, struct cache_key *key)
{
    size_t slot = slot_of(cache, key);

    forget_block(cache, key);
    clear_slot(cache, slot);
}

void cache_drop_values(struct cache *cache)
{
    for (size_t slot = 0; slot < cache->capacity; slot++) {
        if (cache->slots[slot] != NULL && cache->slots[slot]->flags & HAS_VALUE)
            drop_value(cache, slot);
    }
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

void cache_cursor_end(struct cache *cache, struct cache_cursor *cursor)
{
    LL_DELETE2(cache->cursors, cursor, next_cursor);
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
    if (cache->budget == NULL)
        return;
    while (cache->oldest != NULL)
        forget_block(cache, cache->oldest);
    account(cache, 0, cache->capacity * SLOT_BYTES);
    free((void *)cache->slots);
    free(cache->hashes);
    DL_DELETE2(cache->budget->first, cache, previous, next);
    memset(cache, 0, sizeof(*cache));
}
