#include "daemon/store/replica.h"

#include "daemon/log.h"
#include "daemon/store/admin.h"
#include "daemon/store/filter.h"
#include "daemon/store/watch.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

/* How often a replica looks whether there is something to do. */
#define TICK_MS 1000u

/* A replica that nobody uses stays for so long: watchers come and go. */
#define LINGER_MS 5000u

/* Keys ahead of the feed that are known one by one; beyond, all keys count as ahead. */
#define FLOORS_MAX 65536u

/* Readings that a follower of a replicated bucket answered which was behind, before it is taken for all there is. */
#define READING_TRIES_MAX 5u

/* Filters of a check's consumer at most. */
#define CHECK_FILTERS_MAX 16u

/* A bucket of no more keys is looked through now and then, where values expire without a word. */
#define CHECK_KEYS_MAX 10000u

/* A key that was written or answered at a revision that the feed has not brought yet. */
struct replica_floor {
    UT_hash_handle hh;
    struct replica_floor *next, *previous;
    uint64_t revision;
    char key[];
};

static void read_all(struct replica *replica, enum replica_reading reads);
static void on_list_timer(struct timer *timer);
static void close_replica(struct replica *replica);

/* --- Telling watches ------------------------------------------------------------------------------- */

/* Answers whether one of them wants to hear of such a key. */
static bool tell(struct replica *replica, const struct kv_entry *entry)
{
    uint64_t serial = ++replica->store->entry_serial;
    struct watch *watch, *next;
    bool is_wanted = false;

    DL_FOREACH_SAFE(replica->watches, watch, next)
    {
        if (watch_tell(watch, entry, serial))
            is_wanted = true;
    }
    return is_wanted;
}

static int64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* The key is not in the stream any more, and no message said so. */
static void vanish(struct replica *replica, struct cache_key *key)
{
    char *name = strdup(cache_key_name(key)); /* foreign clients' keys may be longer than ours */
    struct message message = {0};
    uint64_t serial = ++replica->store->entry_serial;
    bool was_there = cache_operation(key) == KV_PUT;
    struct watch *watch, *next;

    cache_remove(&replica->cache, key);
    if (!was_there || name == NULL) { /* a marker that expired is no news */
        free(name);
        return;
    }
    replica->store->watch_stats.vanished++;
    struct kv_entry entry = {.key = name,
                             .value = "",
                             .revision = feed_position(&replica->feed),
                             .created_us = now_us(),
                             .operation = KV_DELETE,
                             .message = &message};
    DL_FOREACH_SAFE(replica->watches, watch, next)
    {
        watch_tell_vanished(watch, &entry, serial);
    }
    free(name);
}

/* --- What the cache takes -------------------------------------------------------------------------- */

/*
 * When an entry expires by the bucket's age or its own TTL; 0: never. A TTL is whole seconds, or a duration of Go's
 * (ADR-43); -1: it is not understood, and its value must not be kept.
 */
static int64_t expiry_of(const struct replica *replica, const struct kv_entry *entry)
{
    int64_t max_age_us = replica->feed.info.max_age_us;
    int64_t expires_us = max_age_us > 0 ? entry->created_us + max_age_us : 0;
    const char *ttl = message_header(entry->message, KV_HEADER_TTL);
    char *end;

    if (ttl == NULL || strcmp(ttl, "never") == 0)
        return ttl == NULL ? expires_us : 0;
    long long seconds = strtoll(ttl, &end, 10);
    if (end == ttl || seconds <= 0 || (*end != '\0' && strcmp(end, "s") != 0))
        return -1;
    int64_t own_us = entry->created_us + seconds * 1000000;
    return expires_us > 0 && expires_us < own_us ? expires_us : own_us;
}

/* There is no room for the keys alone. */
static void give_up_cache(struct replica *replica)
{
    struct watch *watch, *next;

    DL_FOREACH_SAFE(replica->watches, watch, next)
    {
        watch_leave_cache(watch);
    }
    if (replica->keeps_values)
        log_warning("bucket %s is cached no more: its %zu keys alone take more than there is (cache.max_bytes of %zu)",
                    replica->name, replica->cache.count, replica->store->conf->cache.max_bytes);
    else if (!replica->is_partial)
        log_warning("bucket %s: there is no room to remember which keys watches were told of (cache.max_bytes); those "
                    "that vanish without a message may not be noticed",
                    replica->name);
    replica->is_partial = true;
    replica->keeps_values = false;
    replica->is_loaded = false;
    cache_clear(&replica->cache);
    cache_init(&replica->cache, &replica->store->cache_budget);
}

static void take(struct replica *replica, const struct kv_entry *entry)
{
    if (replica->is_partial && !replica->keeps_values)
        return;
    int64_t expires_us = replica->keeps_values ? expiry_of(replica, entry) : 0;
    bool with_value = replica->keeps_values && entry->operation == KV_PUT && expires_us >= 0;
    if (cache_set(&replica->cache, entry, expires_us > 0 ? expires_us : 0, with_value) == NULL)
        give_up_cache(replica);
}

void replica_note_told(struct replica *replica, const struct kv_entry *entry)
{
    struct cache_key *key;

    if (replica->keeps_values)
        return; /* it has all that the feed and its own readings bring */
    key = cache_find(&replica->cache, entry->key, strlen(entry->key));
    if (key == NULL || key->revision < entry->revision)
        take(replica, entry);
}

/* --- Floors ---------------------------------------------------------------------------------------- */

static void drop_floor(struct replica *replica, struct replica_floor *floor)
{
    HASH_DEL(replica->floors, floor);
    if (floor->revision != UINT64_MAX)
        DL_DELETE2(replica->first_floor, floor, previous, next);
    free(floor);
}

static void drop_floors(struct replica *replica)
{
    struct replica_floor *floor, *next;

    HASH_ITER(hh, replica->floors, floor, next)
    {
        drop_floor(replica, floor);
    }
    replica->floor_all = 0;
}

/* Those that the feed has reached. They stand about in the order of their revisions. */
static void drop_reached_floors(struct replica *replica)
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

/* --- Answers --------------------------------------------------------------------------------------- */

bool replica_can_answer(const struct replica *replica)
{
    const struct store *store = replica->store;

    if (!replica->is_loaded || replica->is_distrusted)
        return false;
    return feed_is_live(&replica->feed) ||
           uv_now(store->loop) - replica->feed.heard_ms <= store->conf->cache.max_staleness_ms;
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
    if (!cache_has_value(known) || (expires_us > 0 && expires_us <= now_us()))
        return REPLICA_UNSURE;
    cache_read(known, view);
    return REPLICA_HAS;
}

void replica_note_read(struct replica *replica, const char *key, const struct kv_entry *entry)
{
    struct cache_key *known = cache_find(&replica->cache, key, strlen(key));

    if (entry != NULL && entry->revision > feed_position(&replica->feed))
        set_floor(replica, key, entry->revision);
    else if (entry != NULL && known != NULL && known->revision == entry->revision && replica->keeps_values)
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
        vanish(replica, known);
        return;
    }
    set_floor(replica, key, UINT64_MAX);
    replica->wants_check = true;
}

uint64_t replica_revision_of(const struct store *store, const char *bucket, const char *key)
{
    const struct replica *replica = replica_find(store, bucket);
    const struct cache_key *known = replica != NULL ? cache_find(&replica->cache, key, strlen(key)) : NULL;

    return known != NULL ? known->revision : 0;
}

/* --- Reading all that there is --------------------------------------------------------------------- */

static bool is_before_feed(const struct replica *replica)
{
    return replica->feed.phase == FEED_HELD;
}

static void on_reading_restart(void *arg)
{
    struct replica *replica = arg;

    cache_unmark_all(&replica->cache);
    replica->reading_from = feed_position(&replica->feed);
    replica->reading_upto = 0;
}

static void take_loaded(struct replica *replica, const struct kv_entry *entry)
{
    struct cache_key *key = cache_find(&replica->cache, entry->key, strlen(entry->key));
    bool is_same = key != NULL && key->revision == entry->revision && key->created_us == entry->created_us;

    if (key != NULL && !is_same && !is_before_feed(replica) && key->revision > entry->revision)
        is_same = true; /* the feed was faster */
    if (is_same) {
        cache_mark(&replica->cache, key);
        if (replica->keeps_values && key->revision == entry->revision && !cache_has_value(key)) {
            int64_t expires_us = expiry_of(replica, entry);
            if (expires_us >= 0)
                cache_restore(&replica->cache, key, entry, expires_us);
        }
        return;
    }
    bool is_wanted = replica->tells_load && tell(replica, entry);
    if (is_wanted || replica->keeps_values)
        take(replica, entry);
}

static enum consumer_verdict on_reading_message(void *arg, struct message *message, const struct kv_delivery *delivery)
{
    struct replica *replica = arg;
    struct kv_entry entry;

    if (!kv_read_entry(message, message->subject, replica->bucket->prefix, delivery->stream_sequence,
                       delivery->created_us, &entry))
        return CONSUMER_MORE;
    replica->reading_upto = entry.revision;
    if (replica->reads == REPLICA_LOADS) {
        take_loaded(replica, &entry);
    } else {
        struct cache_key *key = cache_find(&replica->cache, entry.key, strlen(entry.key));
        /* The leader said what is gone; a follower that is behind may still have it. */
        if (key != NULL && entry.revision >= replica->feed.info.first_sequence)
            cache_mark(&replica->cache, key);
    }
    return CONSUMER_MORE;
}

/* What the reading did not meet is gone, as far as it is older than the reading. */
static void sweep(struct replica *replica)
{
    uint64_t limit = replica->reading_from;
    struct cache_key *next;

    if (is_before_feed(replica))
        limit = UINT64_MAX;
    else if (replica->feed.info.replicas > 1 && replica->reading_upto < limit)
        /* A follower may have answered that is behind. But what the leader said is gone is gone. */
        limit = replica->reading_upto + 1 > replica->feed.info.first_sequence
                    ? replica->reading_upto
                    : (limit < replica->feed.info.first_sequence ? limit : replica->feed.info.first_sequence - 1);
    for (struct cache_key *key = replica->cache.oldest; key != NULL; key = next) {
        next = key->newer;
        if (!cache_is_marked(&replica->cache, key) && key->revision <= limit)
            vanish(replica, key);
    }
}

static void free_filters(struct replica *replica)
{
    for (size_t i = 0; i < replica->filter_count; i++)
        free((void *)replica->filters[i]);
    free((void *)replica->filters);
    replica->filters = NULL;
    replica->filter_count = 0;
}

/* All is there once the load is done and the feed has come up to it. */
static void settle(struct replica *replica)
{
    if (replica->has_load && replica->keeps_values && feed_is_live(&replica->feed))
        replica->is_loaded = true;
}

static void finish_load(struct replica *replica)
{
    bool is_behind = replica->feed.info.replicas > 1 && replica->reading_upto < replica->reading_from;

    if (!is_before_feed(replica) && is_behind && replica->reading_tries++ < READING_TRIES_MAX) {
        replica->wants_load = true; /* at the next tick */
        return;
    }
    replica->reading_tries = 0;
    sweep(replica);
    replica->has_load = true;
    replica->tells_load = false;
    if (is_before_feed(replica))
        feed_go(&replica->feed, replica->reading_upto);
    settle(replica);
}

static void on_reading_done(void *arg, const struct error *error)
{
    struct replica *replica = arg;
    enum replica_reading reads = replica->reads;

    replica->reads = REPLICA_READS_NOTHING;
    free_filters(replica);
    if (error != NULL) {
        log_warning("bucket %s could not be read: %s; trying again", replica->name, error->message);
        if (reads == REPLICA_LOADS)
            replica->wants_load = true;
        else
            replica->wants_check = true;
    } else if (reads == REPLICA_LOADS) {
        finish_load(replica);
    } else {
        sweep(replica);
        replica->is_distrusted = false;
        struct replica_floor *floor, *next;
        HASH_ITER(hh, replica->floors, floor, next)
        {
            if (floor->revision == UINT64_MAX)
                drop_floor(replica, floor);
        }
    }
}

static const struct consumer_ops reading_ops = {on_reading_restart, on_reading_message, on_reading_done};

/* The subjects of all keys, or of those that watches were told of. False: out of memory. */
static bool make_filters(struct replica *replica, bool of_all)
{
    const char *filters[WATCH_FILTERS_MAX];
    size_t count = 0;
    struct watch *watch;

    filters[0] = ">";
    DL_FOREACH(replica->watches, watch)
    {
        for (size_t i = 0; !of_all && i < watch->filter_count; i++) {
            if (count == WATCH_FILTERS_MAX)
                count = filter_reduce(filters, count, CHECK_FILTERS_MAX);
            if (count < WATCH_FILTERS_MAX)
                filters[count++] = watch->filters[i];
        }
    }
    count = of_all || count == 0 ? 1 : filter_reduce(filters, count, CHECK_FILTERS_MAX);
    replica->filters = calloc(count, sizeof(*replica->filters));
    if (replica->filters == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        char *subject = malloc(strlen(replica->bucket->prefix) + strlen(filters[i]) + 1);
        if (subject == NULL)
            return false;
        strcpy(stpcpy(subject, replica->bucket->prefix), filters[i]);
        replica->filters[replica->filter_count++] = subject;
    }
    return true;
}

static void read_all(struct replica *replica, enum replica_reading reads)
{
    bool loads = reads == REPLICA_LOADS;

    if (!make_filters(replica, loads || replica->keeps_values)) {
        free_filters(replica);
        replica->wants_load |= loads;
        return;
    }
    struct consumer_scope scope = {.stream = replica->bucket->stream,
                                   .filters = replica->filters,
                                   .filter_count = replica->filter_count,
                                   /* Of a bucket that was made anew watches are told all that it has. */
                                   .last_per_subject = !(loads && replica->tells_load),
                                   .headers_only = !loads};
    replica->reads = reads;
    consumer_read(&replica->store->jetstream, &replica->reading, &scope, UINT64_MAX, &reading_ops, replica);
}

static void load(struct replica *replica)
{
    replica->wants_load = false;
    read_all(replica, REPLICA_LOADS);
}

static void stop_reading(struct replica *replica)
{
    if (replica->reads == REPLICA_ASKS)
        jetstream_cancel(&replica->ask);
    else
        consumer_stop(&replica->reading);
    replica->reads = REPLICA_READS_NOTHING;
    free_filters(replica);
}

/* --- Looking for what vanished --------------------------------------------------------------------- */

static void on_asked(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct replica *replica = arg;
    struct feed_info info = {0};
    bool is_forced = replica->wants_check;

    (void)err_code;
    (void)error; /* of a bucket that is gone the feed hears too */
    replica->reads = REPLICA_READS_NOTHING;
    replica->checked_ms = uv_now(replica->store->loop);
    if (answer == NULL || !feed_is_live(&replica->feed))
        return;
    feed_read_info(answer, &info);
    replica->feed.info = info;
    replica->wants_check = false;

    uint64_t known = replica->cache.count;
    bool has_less = replica->keeps_values ? info.subjects < known : info.subjects < replica->checked_subjects;
    bool may_have_expired = !replica->keeps_values && info.expires_silently && known <= CHECK_KEYS_MAX;
    bool has_doubts = HASH_COUNT(replica->floors) > 0;
    replica->checked_subjects = info.subjects;
    bool is_worth_while = known > 0 && (has_less || may_have_expired || has_doubts || replica->is_distrusted ||
                                        (is_forced && !replica->keeps_values));
    if (is_worth_while && !(replica->keeps_values && !replica->has_load))
        read_all(replica, REPLICA_CHECKS);
    else
        replica->is_distrusted = false;
}

static void check(struct replica *replica)
{
    struct store *store = replica->store;

    replica->reads = REPLICA_ASKS;
    jetstream_call(&store->jetstream, &replica->ask, "STREAM.INFO", replica->bucket->stream, NULL,
                   uv_now(store->loop) + store->conf->calls.max_timeout_ms, on_asked, replica);
}

/* What is told of a check would come in the middle of what a watch is told at its beginning. */
static void check_if_possible(struct replica *replica)
{
    unsigned interval_ms = replica->store->conf->watches.check_interval_ms;
    bool is_time = uv_now(replica->store->loop) - replica->checked_ms >= interval_ms;

    if (replica->reads == REPLICA_READS_NOTHING && feed_is_live(&replica->feed) && replica->beginning_count == 0 &&
        (replica->wants_check || is_time))
        check(replica);
}

/* --- The feed -------------------------------------------------------------------------------------- */

static void on_feed_begin(void *arg, bool is_anew)
{
    struct replica *replica = arg;
    struct watch *watch, *next;

    if (is_anew) {
        stop_reading(replica);
        replica->is_loaded = false;
        replica->has_load = false;
        replica->acked = 0;
        drop_floors(replica);
        DL_FOREACH_SAFE(replica->watches, watch, next)
        {
            watch_follow_anew(watch);
        }
    }
    replica->tells_load = is_anew;
    if (is_anew || replica->keeps_values)
        load(replica);
    else
        feed_go(&replica->feed, replica->feed.info.last_sequence);
}

static void on_feed_entry(void *arg, const struct kv_entry *entry)
{
    struct replica *replica = arg;
    bool is_wanted = tell(replica, entry);

    if (replica->keeps_values || is_wanted)
        take(replica, entry);
    if (replica->floors != NULL) {
        struct replica_floor *floor = find_floor(replica, entry->key, strlen(entry->key));
        if (floor != NULL && floor->revision == UINT64_MAX)
            drop_floor(replica, floor);
        drop_reached_floors(replica);
    }
}

static void on_feed_caught_up(void *arg)
{
    struct replica *replica = arg;
    struct watch *watch, *next;

    drop_reached_floors(replica);
    settle(replica);
    if (replica->feed.resyncs != replica->seen_resyncs) {
        replica->store->watch_stats.resyncs += replica->feed.resyncs - replica->seen_resyncs;
        replica->seen_resyncs = replica->feed.resyncs;
        replica->wants_check = true;
    }
    DL_FOREACH_SAFE(replica->watches, watch, next)
    {
        if (watch->state == WATCH_OPENING)
            watch_begin(watch);
    }
}

static void end_watches(struct replica *replica, const struct error *error)
{
    while (replica->watches != NULL)
        watch_end(replica->watches, error);
}

static void on_feed_ended(void *arg, const struct error *error)
{
    struct replica *replica = arg;

    stop_reading(replica);
    end_watches(replica, error);
    close_replica(replica);
}

static const struct feed_ops feed_ops = {on_feed_begin, on_feed_entry, on_feed_caught_up, on_feed_ended};

/* --- Life ------------------------------------------------------------------------------------------ */

const struct error *replica_trouble(const struct replica *replica)
{
    return &replica->feed.error;
}

void replica_add_watch(struct replica *replica, struct watch *watch)
{
    DL_APPEND2(replica->watches, watch, previous, next);
    replica->watch_count++;
}

void replica_remove_watch(struct replica *replica, struct watch *watch)
{
    DL_DELETE2(replica->watches, watch, previous, next);
    if (--replica->watch_count == 0)
        replica->used_ms = uv_now(replica->store->loop);
}

struct replica *replica_find(const struct store *store, const char *bucket)
{
    struct replica *replica = NULL;

    HASH_FIND_STR(store->replicas, bucket, replica);
    return replica;
}

static void close_replica(struct replica *replica)
{
    feed_stop(&replica->feed);
    stop_reading(replica);
    bucket_wait_cancel(&replica->wait);
    timer_stop(replica->store->timers, &replica->timer);
    drop_floors(replica);
    cache_clear(&replica->cache);
    if (replica->bucket != NULL)
        bucket_release(replica->bucket);
    HASH_DEL(replica->store->replicas, replica);
    free(replica);
}

static void on_bucket(void *arg, struct bucket *bucket, const struct error *error)
{
    struct replica *replica = arg;

    replica->is_opening = false;
    if (error == NULL) {
        replica->bucket = bucket;
        feed_start(replica->store, &replica->feed, bucket, &feed_ops, replica);
    } else if (error->code == ERROR_BUCKET_NOT_FOUND) {
        replica->is_over = true; /* at the next tick: whoever asked for it is still at it */
        replica->feed.error = *error;
        end_watches(replica, error);
    } else {
        replica->feed.error = *error;
    }
}

static void open_bucket(struct replica *replica)
{
    const struct store *store = replica->store;

    replica->is_opening = true;
    bucket_open(replica->store, &replica->wait, replica->name, uv_now(store->loop) + store->conf->calls.max_timeout_ms,
                on_bucket, replica);
}

static bool is_idle(const struct replica *replica)
{
    const struct conf *conf = replica->store->conf;
    uint64_t idle_ms = uv_now(replica->store->loop) - replica->used_ms;

    if (replica->watch_count > 0 || replica->is_configured)
        return false;
    return idle_ms >= (replica->keeps_values ? conf->cache.idle_timeout_ms : LINGER_MS);
}

/* Cached reads are over, but it is watched: the values go. */
static void drop_idle_values(struct replica *replica)
{
    const struct conf *conf = replica->store->conf;

    if (!replica->keeps_values || replica->is_configured || replica->beginning_count > 0 ||
        uv_now(replica->store->loop) - replica->read_ms < conf->cache.idle_timeout_ms)
        return;
    replica->keeps_values = false;
    replica->is_loaded = false;
    replica->has_load = false;
    drop_floors(replica);
    cache_drop_values(&replica->cache);
}

static void on_tick(struct timer *timer)
{
    struct replica *replica = (struct replica *)((char *)timer - offsetof(struct replica, timer));
    struct store *store = replica->store;
    unsigned interval_ms = store->conf->watches.check_interval_ms;
    bool is_free = replica->reads == REPLICA_READS_NOTHING;

    timer_start(store->timers, &replica->timer, uv_now(store->loop) + (interval_ms < TICK_MS ? interval_ms : TICK_MS),
                on_tick);
    if (replica->is_over || is_idle(replica)) {
        end_watches(replica, &replica->feed.error);
        close_replica(replica);
        return;
    }
    drop_idle_values(replica);
    if (replica->bucket == NULL) {
        if (!replica->is_opening)
            open_bucket(replica);
    } else if (is_free && replica->wants_load && (is_before_feed(replica) || feed_is_live(&replica->feed))) {
        load(replica);
    } else {
        check_if_possible(replica);
    }
}

static struct replica *make_replica(struct store *store, const char *bucket)
{
    struct replica *replica = calloc(1, sizeof(*replica));

    if (replica == NULL)
        return NULL;
    replica->store = store;
    snprintf(replica->name, sizeof(replica->name), "%s", bucket);
    cache_init(&replica->cache, &store->cache_budget);
    HASH_ADD_STR(store->replicas, name, replica);
    replica->checked_ms = replica->used_ms = uv_now(store->loop);
    timer_start(store->timers, &replica->timer, uv_now(store->loop) + TICK_MS, on_tick);
    return replica;
}

/* Values are wanted from now on. */
static void keep_values(struct replica *replica)
{
    bool is_begun = replica->feed.is_placed;

    replica->read_ms = replica->used_ms = uv_now(replica->store->loop);
    /* What there was no room for a while ago there is none for now. */
    if (replica->keeps_values || replica->is_partial)
        return;
    replica->keeps_values = true;
    replica->has_load = false;
    /* A feed that has not begun yet waits for the load; beside one that has, it comes at the next tick, or now. */
    replica->wants_load = is_begun || (replica->bucket != NULL && replica->reads != REPLICA_READS_NOTHING);
    if (is_begun && feed_is_live(&replica->feed) && replica->reads == REPLICA_READS_NOTHING)
        load(replica);
}

struct replica *replica_obtain(struct store *store, const char *bucket, enum replica_use use, struct error *error)
{
    struct replica *replica = replica_find(store, bucket);

    if (replica != NULL && replica->is_over) {
        end_watches(replica, &replica->feed.error);
        close_replica(replica);
        replica = NULL;
    }
    bool is_new = replica == NULL;
    if (is_new && HASH_COUNT(store->replicas) >= store->conf->watches.buckets) {
        error_set(error, ERROR_RESOURCE_EXHAUSTED,
                  "%u buckets are followed already, which is the limit "
                  "(watches.buckets)",
                  store->conf->watches.buckets);
        return NULL;
    }
    if (is_new)
        replica = make_replica(store, bucket);
    if (replica == NULL) {
        error_set(error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return NULL;
    }
    if (use == REPLICA_CONFIGURED)
        replica->is_configured = true;
    if (use != REPLICA_FOR_WATCH)
        keep_values(replica);
    if (is_new)
        open_bucket(replica);
    return replica;
}

void replica_distrust(struct store *store, const char *bucket)
{
    struct replica *replica = replica_find(store, bucket);

    if (replica == NULL)
        return;
    replica->is_distrusted = true;
    replica->wants_check = true;
    if (replica->reads == REPLICA_CHECKS)
        stop_reading(replica); /* it may have met what is gone by now */
    check_if_possible(replica);
}

/* --- Those that the configuration names ------------------------------------------------------------ */

static bool is_named(const struct conf *conf, const char *bucket)
{
    for (size_t i = 0; i < conf->cache.buckets.count; i++) {
        if (fnmatch(conf->cache.buckets.items[i], bucket, 0) == 0)
            return true;
    }
    return false;
}

static void on_listed(void *arg, const char *const *names, size_t count, const struct error *error)
{
    struct store *store = arg;
    struct error refusal;

    for (size_t i = 0; error == NULL && i < count; i++) {
        if (is_named(store->conf, names[i]) && replica_obtain(store, names[i], REPLICA_CONFIGURED, &refusal) == NULL)
            log_warning("bucket %s is not cached: %s", names[i], refusal.message);
    }
    if (error != NULL)
        log_warning("the buckets that cache.buckets may name could not be listed: %s", error->message);
    store->is_listing = false;
    msgpack_zone_clear(&store->list_arena.zone);
    timer_start(store->timers, &store->list_timer,
                uv_now(store->loop) + (error == NULL ? store->conf->watches.check_interval_ms : TICK_MS),
                on_list_timer);
}

static void on_list_timer(struct timer *timer)
{
    replica_follow_configured((struct store *)((char *)timer - offsetof(struct store, list_timer)));
}

void replica_follow_configured(struct store *store)
{
    struct replica *replica, *next;

    HASH_ITER(hh, store->replicas, replica, next)
    {
        replica->is_configured = is_named(store->conf, replica->name);
    }
    if (store->is_listing || store->conf->cache.buckets.count == 0 || !link_is_up(store->link))
        return;
    struct admin *admin = arena_zalloc(&store->list_arena, sizeof(*admin));
    if (admin == NULL)
        return;
    store->is_listing = true;
    timer_stop(store->timers, &store->list_timer);
    admin->deadline_ms = uv_now(store->loop) + store->conf->calls.max_timeout_ms;
    admin->listed = on_listed;
    admin->arg = store;
    admin_list(store, &store->list_arena, admin);
}

int replica_init_all(struct store *store)
{
    store->cache_budget.max_bytes = store->conf->cache.max_bytes;
    return msgpack_zone_init(&store->list_arena.zone, 1024) ? 0 : -1;
}

void replica_free_all(struct store *store)
{
    msgpack_zone_destroy(&store->list_arena.zone);
}

void replica_end_all(struct store *store)
{
    struct replica *replica, *next;
    struct error error;

    error_set(&error, ERROR_UNAVAILABLE, "the daemon ends");
    HASH_ITER(hh, store->replicas, replica, next)
    {
        end_watches(replica, &error);
        close_replica(replica);
    }
}

void replica_total(const struct store *store, struct replica_totals *totals)
{
    const struct replica *replica, *next;

    memset(totals, 0, sizeof(*totals));
    HASH_ITER(hh, store->replicas, replica, next)
    {
        totals->buckets++;
        totals->cached_buckets += replica->keeps_values;
        if (replica->keeps_values)
            totals->keys += replica->cache.count;
    }
}
