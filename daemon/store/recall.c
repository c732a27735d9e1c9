#include "daemon/store/recall.h"

#include "daemon/store/bucket.h"
#include "daemon/store/multi_last.h"
#include "daemon/store/store.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Larger values cost more to send than to look for. */
#define VALUE_BYTES_MAX 65536u

/* What malloc and the table add to an entry, about. */
#define OVERHEAD_BYTES 24u

/* Keys that were met, of which each has some places to be in, so that two of one call seldom drive each other out. */
#define MET_COUNT  65536u
#define MET_PLACES 4u

/* --- What is remembered ---------------------------------------------------------------------------- */

static size_t entry_bytes(const struct recall_entry *entry)
{
    return sizeof(*entry) + entry->key_bytes + 1 + entry->value_bytes + OVERHEAD_BYTES;
}

struct recall_entry *recall_retain(struct recall_entry *entry)
{
    entry->references++;
    return entry;
}

void recall_release(struct recall_entry *entry)
{
    if (--entry->references == 0)
        free(entry);
}

static void forget(struct recall_entry *entry)
{
    struct recall_all *all = &entry->store->recall;

    if (entry->recall == NULL)
        return;
    HASH_DEL(entry->recall->by_key, entry);
    DL_DELETE2(all->least_used, entry, previous, next);
    all->bytes -= entry_bytes(entry);
    all->entries--;
    entry->recall = NULL;
    recall_release(entry);
}

static void touch(struct recall_entry *entry)
{
    struct recall_all *all = &entry->store->recall;

    if (entry->recall == NULL || entry->next == NULL)
        return;
    DL_DELETE2(all->least_used, entry, previous, next);
    DL_APPEND2(all->least_used, entry, previous, next);
}

static void make_room(struct store *store)
{
    while (store->recall.bytes > store->conf->cache.recall_bytes)
        forget(store->recall.least_used);
}

/* Takes over the caller's reference. Of two of one key the one that is known longer stays. */
static void remember(struct recall *recall, struct recall_entry *entry)
{
    struct recall_all *all = &recall->store->recall;
    struct recall_entry *known = recall_find(recall, entry->bytes);

    if (known != NULL && known->known_at >= entry->known_at) {
        recall_release(entry);
        return;
    }
    if (known != NULL)
        forget(known);
    entry->recall = recall;
    HASH_ADD_KEYPTR(hh, recall->by_key, entry->bytes, entry->key_bytes, entry);
    DL_APPEND2(all->least_used, entry, previous, next);
    all->bytes += entry_bytes(entry);
    all->entries++;
}

struct recall_entry *recall_find(const struct recall *recall, const char *key)
{
    struct recall_entry *entry = NULL;

    if (recall->by_key != NULL)
        HASH_FIND(hh, recall->by_key, key, strlen(key), entry);
    return entry;
}

/*
 * The places that a key may have among those that were met, the latest first, and in *mark what says that it is this
 * one, or one of some thousands of others.
 */
static uint32_t *met_places(const struct recall *recall, const char *key, uint32_t *mark)
{
    uint32_t hash;

    HASH_VALUE(key, strlen(key), hash);
    *mark = hash ^ (uint32_t)((uintptr_t)recall >> 4);
    return &recall->store->recall.met[*mark % (MET_COUNT / MET_PLACES) * MET_PLACES];
}

bool recall_meet(struct recall *recall, const char *key)
{
    struct recall_all *all = &recall->store->recall;
    unsigned place = 0;
    uint32_t mark;

    if (all->met == NULL && (all->met = calloc(MET_COUNT, sizeof(*all->met))) == NULL)
        return false;
    uint32_t *places = met_places(recall, key, &mark);
    while (place < MET_PLACES - 1 && places[place] != mark)
        place++;
    bool is_met = places[place] == mark;
    memmove(places + 1, places, place * sizeof(*places));
    places[0] = mark;
    return is_met;
}

void recall_forget(struct recall *recall, const char *key)
{
    struct recall_entry *entry = recall_find(recall, key);
    uint32_t mark, *places;

    if (entry != NULL)
        forget(entry);
    if (recall->store->recall.met == NULL)
        return;
    places = met_places(recall, key, &mark);
    for (unsigned place = 0; place < MET_PLACES; place++) {
        if (places[place] == mark)
            places[place] = 0;
    }
}

void recall_view(const struct recall_entry *entry, struct kv_entry *view, struct message *message)
{
    *message = (struct message){.headers = NULL};
    *view = (struct kv_entry){.key = entry->bytes,
                              .value = entry->bytes + entry->key_bytes + 1,
                              .value_bytes = entry->value_bytes,
                              .revision = entry->revision,
                              .created_us = entry->created_us,
                              .operation = KV_PUT,
                              .message = message};
}

void recall_init(struct recall *recall, struct store *store)
{
    *recall = (struct recall){.store = store};
}

void recall_clear(struct recall *recall)
{
    while (recall->by_key != NULL)
        forget(recall->by_key);
    recall->generation++;
}

void recall_clear_all(struct store *store)
{
    while (store->recall.least_used != NULL)
        recall_clear(store->recall.least_used->recall);
}

void recall_reload(struct store *store)
{
    make_room(store);
}

void recall_free_all(struct store *store)
{
    free(store->recall.met);
}

bool recall_is_possible(const struct store *store, const struct bucket *bucket)
{
    return store->conf->cache.recall_bytes > 0 && bucket->history == 1 && bucket->replicas <= 1 &&
           bucket->allows_direct && !bucket->is_mirror && !bucket->is_clustered &&
           store->jetstream.level >= JETSTREAM_LEVEL_ISOLATED;
}

/* --- Loads ----------------------------------------------------------------------------------------- */

const char *recall_load_begin(struct recall_load *load, struct recall *recall, bool has_room)
{
    *load = (struct recall_load){.recall = recall, .generation = recall->generation};
    if (recall->by_key == NULL)
        return NULL;
    load->is_afresh = !has_room;
    if (!has_room)
        return NULL;
    load->anchor = recall_retain(recall->by_key); /* the first that came of those that are there: it changes rarely */
    return load->anchor->bytes;
}

static bool is_the_same(const struct recall_entry *entry, const struct kv_entry *read)
{
    return entry->revision == read->revision && entry->created_us == read->created_us &&
           strcmp(entry->bytes, read->key) == 0;
}

static bool is_own_header(void *arg, const char *name, const char *value)
{
    bool *has_own = arg;

    (void)value;
    *has_own = !kv_is_internal_header(name);
    return !*has_own;
}

/* Neither markers, which are few, nor what has headers of a caller's, or will expire. */
static bool can_remember(const struct recall_load *load, const struct kv_entry *entry)
{
    bool has_own_header = false;

    if (entry->operation != KV_PUT || entry->value_bytes > VALUE_BYTES_MAX ||
        load->bytes > load->recall->store->conf->cache.recall_bytes)
        return false;
    return message_header(entry->message, KV_HEADER_TTL) == NULL &&
           message_each_header(entry->message, is_own_header, &has_own_header) && !has_own_header;
}

void recall_load_take(struct recall_load *load, const struct kv_entry *entry, bool is_worth_it)
{
    size_t key_bytes = strlen(entry->key);

    if (load->anchor != NULL && is_the_same(load->anchor, entry))
        load->has_met_anchor = true;
    if (!is_worth_it || !can_remember(load, entry))
        return;
    struct recall_entry *copy = malloc(sizeof(*copy) + key_bytes + 1 + entry->value_bytes);
    if (copy == NULL)
        return;
    copy->recall = NULL;
    copy->store = load->recall->store;
    copy->revision = entry->revision;
    copy->created_us = entry->created_us;
    copy->references = 1;
    copy->place = 0;
    copy->key_bytes = (uint32_t)key_bytes;
    copy->value_bytes = (uint32_t)entry->value_bytes;
    memcpy(copy->bytes, entry->key, key_bytes + 1);
    if (entry->value_bytes > 0)
        memcpy(copy->bytes + key_bytes + 1, entry->value, entry->value_bytes);
    load->bytes += entry_bytes(copy);
    LL_PREPEND(load->entries, copy);
}

/* Whether what was read is of the same stream as what is remembered, which may be made so. */
static bool can_be_added(struct recall_load *load)
{
    struct recall *recall = load->recall;

    if (load->generation != recall->generation)
        return false;
    if (load->anchor != NULL && load->has_met_anchor)
        return true;
    if (load->anchor == NULL && !load->is_afresh && recall->by_key != NULL)
        return false; /* another load was quicker */
    recall_clear(recall);
    return true;
}

void recall_load_end(struct recall_load *load, uint64_t upto)
{
    struct recall_entry *entry, *next;

    if (load->recall == NULL)
        return;
    bool is_added = upto > 0 && can_be_added(load);
    LL_FOREACH_SAFE(load->entries, entry, next)
    {
        entry->known_at = upto;
        if (is_added)
            remember(load->recall, entry);
        else
            recall_release(entry);
    }
    make_room(load->recall->store);
    if (load->anchor != NULL)
        recall_release(load->anchor);
    *load = (struct recall_load){.recall = NULL};
}

/* --- Checks ---------------------------------------------------------------------------------------- */

struct recall_reads {
    struct multi_last count, newer;
    bool is_same_stream;
};

static void end_check(struct recall_check *check, bool is_proven)
{
    struct recall_all *all = &check->entries[0]->store->recall;
    uint64_t upto = check->reads->newer.upto;

    multi_last_cancel(&check->reads->count);
    multi_last_cancel(&check->reads->newer);
    free(check->reads);
    check->reads = NULL;
    all->checks++;
    all->failed_checks += !is_proven;
    for (size_t i = 0; i < check->count; i++) {
        struct recall_entry *entry = check->entries[i];
        if (!is_proven)
            forget(entry);
        else if (upto > entry->known_at)
            entry->known_at = upto;
        touch(entry);
    }
    check->done(check->arg, is_proven);
}

static void take_oldest(void *arg, const struct kv_entry *entry)
{
    struct recall_check *check = arg;

    for (size_t i = 0; i < check->count && !check->reads->is_same_stream; i++)
        check->reads->is_same_stream = is_the_same(check->entries[i], entry);
}

static void on_counted(void *arg, bool is_whole)
{
    struct recall_check *check = arg;

    if (!is_whole || !check->reads->is_same_stream || check->reads->count.count != check->count)
        end_check(check, false);
}

static bool has_entry(const struct recall_check *check, const struct recall_entry *entry)
{
    return entry->place < check->count && check->entries[entry->place] == entry;
}

size_t recall_check_add(struct recall_check *check, struct recall_entry *entry)
{
    if (!has_entry(check, entry)) {
        entry->place = check->count;
        check->entries[check->count++] = recall_retain(entry);
    }
    return entry->place;
}

/* The entry of a key may have been forgotten, or be in another check as well by now. */
static size_t find_key(const struct recall_check *check, const char *key)
{
    const struct recall_entry *entry = recall_find(&check->handle->recall, key);
    size_t index = 0;

    if (entry != NULL && has_entry(check, entry))
        return entry->place;
    while (index < check->count && strcmp(check->entries[index]->bytes, key) != 0)
        index++;
    return index;
}

static void take_newer(void *arg, const struct kv_entry *entry)
{
    struct recall_check *check = arg;
    struct recall_entry *known = recall_find(&check->handle->recall, entry->key);
    size_t index = find_key(check, entry->key);

    if (known != NULL && known->revision < entry->revision)
        forget(known);
    if (index < check->count)
        check->newer(check->arg, index, entry);
}

/* The server answers one after the other; where this answer comes first, the first one's is lost. */
static void on_newer_read(void *arg, bool is_whole)
{
    struct recall_check *check = arg;

    end_check(check, is_whole && check->reads->count.body == NULL);
}

static const char **list_keys(const struct recall_check *check, uint64_t *known_at)
{
    const char **keys = malloc(check->count * sizeof(*keys));

    *known_at = UINT64_MAX;
    for (size_t i = 0; keys != NULL && i < check->count; i++) {
        keys[i] = check->entries[i]->bytes;
        if (check->entries[i]->known_at < *known_at)
            *known_at = check->entries[i]->known_at;
    }
    return keys;
}

bool recall_check_start(struct store *store, struct recall_check *check)
{
    uint64_t known_at;
    struct recall_reads *reads = calloc(1, sizeof(*reads));
    const char **keys = list_keys(check, &known_at);

    check->reads = reads;
    if (reads != NULL && keys != NULL) {
        reads->count.is_count = true;
        reads->count.entry = take_oldest;
        reads->count.done = on_counted;
        reads->newer.from = known_at + 1;
        reads->newer.entry = take_newer;
        reads->newer.done = on_newer_read;
        reads->count.handle = reads->newer.handle = check->handle;
        reads->count.deadline_ms = reads->newer.deadline_ms = check->deadline_ms;
        reads->count.arg = reads->newer.arg = check;
    }
    bool is_started = reads != NULL && keys != NULL && multi_last_start(store, &reads->count, keys, check->count);
    if (is_started && !multi_last_start(store, &reads->newer, keys, check->count)) {
        multi_last_cancel(&reads->count);
        is_started = false;
    }
    free((void *)keys);
    if (!is_started) {
        free(reads);
        check->reads = NULL;
    }
    return is_started;
}
