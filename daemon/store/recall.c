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
    if (entry->recall == NULL)
        return;
    struct recall_all *all = &entry->recall->store->recall;
    HASH_DEL(entry->recall->by_key, entry);
    DL_DELETE2(all->least_used, entry, previous, next);
    all->bytes -= entry_bytes(entry);
    all->entries--;
    entry->recall = NULL;
    recall_release(entry);
}

static void touch(struct recall_entry *entry)
{
    if (entry->recall == NULL || entry->next == NULL)
        return;
    struct recall_all *all = &entry->recall->store->recall;
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

void recall_note_write(struct recall *recall, const char *key, uint64_t revision)
{
    struct recall_entry *entry = recall_find(recall, key);
    struct recall_check *check;
    uint32_t mark, *places;

    if (entry != NULL)
        forget(entry);
    DL_FOREACH2(recall->checks, check, next)
    {
        check->own_writes += revision > check->upto;
    }
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
        load->recall->store->recall.loading_bytes > load->recall->store->conf->cache.recall_bytes)
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
    load->recall->store->recall.loading_bytes += entry_bytes(copy);
    LL_PREPEND(load->entries, copy);
}

/* Whether what was read is of the same stream as what is remembered, which may be made so. */
static bool can_be_added(struct recall_load *load)
{
    struct recall *recall = load->recall;

    if (load->generation != recall->generation || load->entries == NULL)
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
    load->recall->store->recall.loading_bytes -= load->bytes;
    make_room(load->recall->store);
    if (load->anchor != NULL)
        recall_release(load->anchor);
    *load = (struct recall_load){.recall = NULL};
}

/* --- Checks ---------------------------------------------------------------------------------------- */

/* After a check that others' writes disturbed some are left out: twice as many each time, up to two to this power. */
#define DISTURBED_MAX 6u

/* Where an entry is in a check. */
struct recall_place {
    UT_hash_handle hh;
    size_t index;
};

struct recall_reads {
    struct multi_last newer, count;
    bool is_newer_read;
    bool is_same_stream;
    bool is_disturbed;                    /* something came that cannot be */
    uint64_t known_at;                    /* the highest of all entries */
    struct recall_place *places, *by_key; /* uthash; NULL until something newer comes */
};

bool recall_check_pays(struct recall *recall, size_t count)
{
    if (count < RECALL_CHECK_MIN)
        return false;
    if (recall->pause == 0)
        return true;
    recall->pause--;
    return false;
}

size_t recall_check_add(struct recall_check *check, struct recall_entry *entry)
{
    if (entry->place >= check->count || check->entries[entry->place] != entry) {
        entry->place = check->count;
        check->entries[check->count++] = recall_retain(entry);
    }
    return entry->place;
}

bool recall_check_has(const struct recall_check *check, size_t index)
{
    return check->entries[index]->recall != NULL;
}

static void free_reads(struct recall_reads *reads)
{
    multi_last_cancel(&reads->newer);
    multi_last_cancel(&reads->count);
    HASH_CLEAR(hh, reads->by_key);
    free(reads->places);
    free(reads);
}

/* Where others write all the time, checks are tried ever more rarely. */
static void note_proof(struct recall *recall, enum recall_proof proof)
{
    recall->store->recall.checks++;
    recall->store->recall.failed_checks += proof != RECALL_PROVEN;
    if (proof != RECALL_UNKNOWN)
        recall->disturbed = 0;
    else if (recall->disturbed < DISTURBED_MAX)
        recall->disturbed++;
    recall->pause = recall->disturbed > 0 ? 1u << recall->disturbed : 0;
}

static void end_check(struct recall_check *check, enum recall_proof proof)
{
    struct recall *recall = &check->handle->recall;
    uint64_t upto = check->reads->count.upto;

    if (check->reads->is_newer_read)
        DL_DELETE2(recall->checks, check, previous, next);
    free_reads(check->reads);
    check->reads = NULL;
    note_proof(recall, proof);
    for (size_t i = 0; i < check->count; i++) {
        struct recall_entry *entry = check->entries[i];
        if (proof == RECALL_CHANGED)
            forget(entry);
        else if (proof == RECALL_PROVEN && upto > entry->known_at)
            entry->known_at = upto;
        touch(entry);
    }
    check->done(check->arg, proof);
}

/* The first entry of all that newer brings makes the table. */
static bool index_keys(struct recall_check *check)
{
    struct recall_reads *reads = check->reads;

    if (reads->places != NULL)
        return true;
    reads->places = calloc(check->count, sizeof(*reads->places));
    for (size_t i = 0; reads->places != NULL && i < check->count; i++) {
        struct recall_place *place = &reads->places[i];
        place->index = i;
        HASH_ADD_KEYPTR(hh, reads->by_key, check->entries[i]->bytes, check->entries[i]->key_bytes, place);
    }
    return reads->places != NULL;
}

static void take_newer(void *arg, const struct kv_entry *entry)
{
    struct recall_check *check = arg;
    struct recall_place *place = NULL;

    if (index_keys(check))
        HASH_FIND(hh, check->reads->by_key, entry->key, strlen(entry->key), place);
    if (place == NULL) {
        check->reads->is_disturbed = true;
        return;
    }
    /* What is newer than the oldest knowledge may be known all the same. */
    if (is_the_same(check->entries[place->index], entry))
        return;
    forget(check->entries[place->index]);
    if (check->newer != NULL)
        check->newer(check->arg, place->index, entry);
}

static void on_newer_read(void *arg, bool is_whole)
{
    struct recall_check *check = arg;
    struct recall_reads *reads = check->reads;

    if (!is_whole || reads->is_disturbed) {
        end_check(check, RECALL_UNKNOWN);
    } else if (reads->newer.upto < reads->known_at) {
        end_check(check, RECALL_CHANGED); /* back to an older state */
    } else {
        reads->is_newer_read = true;
        check->upto = reads->newer.upto;
        DL_APPEND2(check->handle->recall.checks, check, previous, next);
    }
}

static void take_oldest(void *arg, const struct kv_entry *entry)
{
    struct recall_check *check = arg;

    for (size_t i = 0; i < check->count && !check->reads->is_same_stream; i++)
        check->reads->is_same_stream = is_the_same(check->entries[i], entry);
}

/* The server answers one after the other, and so the newer ones were told before. */
static void on_counted(void *arg, bool is_whole)
{
    struct recall_check *check = arg;
    const struct recall_reads *reads = check->reads;

    if (!is_whole || !reads->is_newer_read || reads->count.upto != check->upto + check->own_writes)
        end_check(check, RECALL_UNKNOWN);
    else if (reads->count.count != check->count || !reads->is_same_stream)
        end_check(check, RECALL_CHANGED);
    else
        end_check(check, RECALL_PROVEN);
}

static const char **list_keys(struct recall_check *check)
{
    const char **keys = malloc(check->count * sizeof(*keys));
    uint64_t least = UINT64_MAX;

    for (size_t i = 0; keys != NULL && i < check->count; i++) {
        const struct recall_entry *entry = check->entries[i];
        keys[i] = entry->bytes;
        if (entry->known_at < least)
            least = entry->known_at;
        if (entry->known_at > check->reads->known_at)
            check->reads->known_at = entry->known_at;
    }
    check->reads->newer.from = least + 1;
    return keys;
}

bool recall_check_start(struct store *store, struct recall_check *check)
{
    struct recall_reads *reads = calloc(1, sizeof(*reads));
    const char **keys = NULL;

    check->own_writes = 0;
    check->reads = reads;
    if (reads == NULL)
        return false;
    reads->newer.entry = take_newer;
    reads->newer.done = on_newer_read;
    reads->count.is_count = true;
    reads->count.entry = take_oldest;
    reads->count.done = on_counted;
    reads->newer.handle = reads->count.handle = check->handle;
    reads->newer.deadline_ms = reads->count.deadline_ms = check->deadline_ms;
    reads->newer.arg = reads->count.arg = check;
    keys = list_keys(check);
    bool is_started = keys != NULL && multi_last_start(store, &reads->newer, keys, check->count) &&
                      multi_last_start(store, &reads->count, keys, check->count);
    free((void *)keys);
    if (!is_started) {
        free_reads(reads);
        check->reads = NULL;
    }
    return is_started;
}
