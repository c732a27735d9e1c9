#include "daemon/store/follow/local_copy_parts.h"

#include "daemon/base/log.h"
#include "daemon/store/compact/compact.h"
#include "daemon/store/follow/watch.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Keys of a cleared cache that are freed before a look at the time. */
#define COLLECT_KEYS 64u

/* A replica that nobody uses stays for so long: watchers come and go. */
#define LINGER_MS 5000u

/* Where all places for buckets are taken: how often one gives way to another that is read, and after what silence. */
#define PLACE_MS  100u
#define UNUSED_MS 1000u

/* Less than any key takes in the cache beside its name. */
#define KEY_BYTES_MIN 64u

/* If more watches match a key, all of them fall behind and are told in slices: see backlog. */
#define TOLD_AT_ONCE_MAX 64u

static void close_replica(struct replica *replica);

/* --- Telling watches ------------------------------------------------------------------------------- */

/* A watch matches once, however many of its filters do. */
static void note_match(void *arg, void *owner)
{
    struct replica *replica = arg;
    struct watch *watch = owner;

    if (watch->matched_serial == replica->store->entry_serial)
        return;
    watch->matched_serial = replica->store->entry_serial;
    replica->matches[replica->match_count++] = watch;
}

/* Finds the watches that a key matches: whoever is told may end, and leave the tree. */
static void find_matches(struct replica *replica, const char *key)
{
    replica->store->entry_serial++;
    replica->match_count = 0;
    filter_tree_match(&replica->watch_tree, key, note_match, replica);
}

/* Add a change if watches are behind, or if it matches so many that they must fall behind. NULL: tell it at once. */
static struct change *add_to_backlog(struct replica *replica, const struct kv_entry *entry, bool is_again)
{
    const struct watch *packer = backlog_any(replica);

    if (packer == NULL && replica->match_count <= TOLD_AT_ONCE_MAX)
        return NULL;
    struct change *change = backlog_add(replica, entry, is_again, packer != NULL ? packer : replica->matches[0]);
    if (change == NULL)
        backlog_lose_all(replica);
    return change;
}

/* Return whether a watch may want to hear of such a key. */
static bool tell(struct replica *replica, const struct kv_entry *entry, bool is_again)
{
    bool is_wanted = replica->backlog.watch_count > 0;

    find_matches(replica, entry->key);
    struct change *change = add_to_backlog(replica, entry, is_again);
    for (size_t i = 0; i < replica->match_count; i++) {
        struct watch *watch = replica->matches[i];
        is_wanted |= watch_is_live(watch);
        if (change != NULL) /* even if few match: their session may be full of what others were told */
            watch_fall_behind(watch, change);
        else if (is_again)
            watch_tell_again(watch, entry, replica->store->entry_serial);
        else
            watch_tell(watch, entry, replica->store->entry_serial);
    }
    backlog_trim(replica);
    return is_wanted;
}

bool replica_tell(struct replica *replica, const struct kv_entry *entry)
{
    return tell(replica, entry, false);
}

bool replica_has_room(const struct replica *replica)
{
    const struct watch *watch;

    if (replica->backlog.first != NULL)
        return false;
    DL_FOREACH(replica->watches, watch)
    {
        if (watch->state == WATCH_LIVE && !watch->ops->has_room(watch->arg))
            return false;
    }
    return true;
}

bool replica_is_before_feed(const struct replica *replica)
{
    return replica->feed.phase == FEED_HELD;
}

bool replica_tell_again(struct replica *replica, const struct kv_entry *entry)
{
    return tell(replica, entry, true);
}

void replica_vanish(struct replica *replica, struct cache_key *key)
{
    char *name = strdup(cache_key_name(key)); /* foreign clients' keys may be longer than ours */
    struct message message = {0};
    bool was_there = cache_operation(key) == KV_PUT;

    cache_remove(&replica->cache, key);
    if (!was_there || name == NULL) { /* a marker that expired is no news */
        free(name);
        return;
    }
    replica->store->watch_stats.vanished++;
    replica->vanished_at = feed_position(&replica->feed);
    struct kv_entry entry = {.key = name,
                             .value = "",
                             .revision = replica_is_before_feed(replica) ? replica->read.sequence
                                                                         : feed_position(&replica->feed),
                             .created_us = store_now_us(),
                             .operation = KV_DELETE,
                             .message = &message};
    replica_tell_again(replica, &entry);
    free(name);
}

/* --- What the cache takes -------------------------------------------------------------------------- */

/*
 * When an entry expires by the bucket's age or its own TTL; 0: never. A TTL is whole seconds, or a duration of Go's
 * (ADR-43); -1: it is not understood, and its value must not be kept.
 */
int64_t replica_expiry_of(const struct replica *replica, const struct kv_entry *entry)
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

/* --- Letting go of memory --- */

static bool run_collecting(struct job *job)
{
    struct store *store = (struct store *)((char *)job - offsetof(struct store, collecting));

    while (cache_collect(&store->cache_budget, COLLECT_KEYS)) {
        if (jobs_slice_is_over(store->jobs))
            return true;
    }
    return false;
}

static void stop_dropping(struct replica *replica)
{
    if (!replica->drops)
        return;
    replica->drops = false;
    jobs_remove(replica->store->jobs, &replica->dropping);
    cache_cursor_end(&replica->cache, &replica->drop_cursor);
}

static bool run_dropping(struct job *job)
{
    struct replica *replica = (struct replica *)((char *)job - offsetof(struct replica, dropping));
    struct cache_key *key;

    while ((key = cache_cursor_next(&replica->drop_cursor)) != NULL) {
        cache_drop_value(&replica->cache, key);
        if (jobs_slice_is_over(replica->store->jobs))
            return true;
    }
    stop_dropping(replica);
    return false;
}

/* Nobody reads the values any more. */
static void drop_values(struct replica *replica)
{
    if (replica->drops)
        return;
    replica->drops = true;
    cache_cursor_begin(&replica->cache, &replica->drop_cursor);
    jobs_add(replica->store->jobs, &replica->dropping, run_dropping);
}

static void clear_cache(struct replica *replica)
{
    struct store *store = replica->store;

    stop_dropping(replica);
    cache_clear(&replica->cache);
    if (store->cache_budget.garbage != NULL)
        jobs_add(store->jobs, &store->collecting, run_collecting);
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
        log_warning("bucket %s is not cached: its keys alone, %" PRIu64
                    " of them, take more than there is (cache.max_bytes of %zu)",
                    replica->name, replica->feed.info.subjects, replica->store->conf->cache.max_bytes);
    else if (!replica->is_partial)
        log_warning("bucket %s: there is no room to remember which keys watches were told of (cache.max_bytes); those "
                    "that vanish without a message may not be noticed",
                    replica->name);
    replica->is_partial = true;
    replica->keeps_values = false;
    replica->is_loaded = false;
    replica_end_waits(replica);
    clear_cache(replica);
    cache_init(&replica->cache, &replica->store->cache_budget);
    if (replica->sweeps) /* it ends, with nothing left to tell */
        cache_cursor_begin(&replica->cache, &replica->sweep_cursor);
}

/* One bucket's keys do not push out those of others. What was given up just now takes a moment to be freed. */
static void give_up_largest(struct store *store)
{
    struct replica *replica, *next, *largest = NULL;

    if (store->cache_budget.garbage != NULL)
        return;
    HASH_ITER(hh, store->replicas, replica, next)
    {
        if (largest == NULL || replica->cache.bytes > largest->cache.bytes)
            largest = replica;
    }
    if (largest != NULL)
        give_up_cache(largest);
}

void replica_take(struct replica *replica, const struct kv_entry *entry)
{
    if (replica->is_partial && !replica->keeps_values)
        return;
    int64_t expires_us = replica->keeps_values ? replica_expiry_of(replica, entry) : 0;
    bool with_value = replica->keeps_values && entry->operation == KV_PUT && expires_us >= 0;
    if (cache_set(&replica->cache, entry, expires_us > 0 ? expires_us : 0, with_value) == NULL)
        give_up_largest(replica->store);
}

void replica_note_told(struct replica *replica, const struct kv_entry *entry)
{
    struct cache_key *key;

    if (replica->keeps_values)
        return; /* it has all that the feed and its own readings bring */
    key = cache_find(&replica->cache, entry->key, strlen(entry->key));
    if (key == NULL || key->revision < entry->revision)
        replica_take(replica, entry);
}

/* --- The feed -------------------------------------------------------------------------------------- */

/* All is there once the load is done and the feed has come up to it. */
void replica_settle(struct replica *replica)
{
    if (replica->has_load && replica->keeps_values && feed_is_live(&replica->feed))
        replica->is_loaded = true;
    replica_wake(replica);
}

static void on_feed_begin(void *arg, bool is_anew)
{
    struct replica *replica = arg;
    struct watch *watch, *next;

    if (is_anew) {
        replica_stop_reading(replica);
        replica->is_loaded = false;
        replica->has_load = false;
        replica->acked = 0;
        replica->compacted = 0;
        backlog_begin_epoch(replica);
        replica->compares = false;
        replica_drop_floors(replica);
        DL_FOREACH_SAFE(replica->watches, watch, next)
        {
            watch_follow_anew(watch);
        }
    }
    if (replica->keeps_values && replica->feed.info.subjects > replica->store->conf->cache.max_bytes / KEY_BYTES_MIN)
        give_up_cache(replica); /* not even begun */
    else if (!replica_is_worth_waiting(replica))
        replica_end_waits(replica);
    replica->tells_load = is_anew;
    if (is_anew || replica->keeps_values)
        replica_load(replica);
    else
        feed_go(&replica->feed, &(struct feed_place){.sequence = replica->feed.info.last_sequence,
                                                     .stored_us = replica->feed.info.last_us});
}

static void raise_horizon(struct replica *replica, uint64_t horizon)
{
    if (horizon > replica->compacted)
        replica->compacted = horizon;
}

/* Markers up to this revision are about to be removed, or were just now. */
static void note_removal(struct replica *replica, uint64_t revision)
{
    struct watch *watch;

    raise_horizon(replica, revision);
    if (!replica->is_loaded && replica->reads == REPLICA_LOADS)
        replica_distrust(replica); /* it may have read a value whose marker it will not meet */
    DL_FOREACH(replica->watches, watch)
    {
        watch_note_removal(watch, revision);
    }
}

/*
 * A host is about to remove delete markers. If it is another host, the markers may be gone before the feed delivers
 * them, and deleted keys would stay in memory.
 */
static void note_horizon(struct replica *replica, uint64_t horizon)
{
    note_removal(replica, horizon);
    if (!replica_is_exclusive(replica))
        replica_distrust(replica);
}

void replica_note_removal(struct store *store, const char *bucket, uint64_t revision)
{
    struct replica *replica = replica_find(store, bucket);

    if (replica != NULL)
        note_removal(replica, revision);
}

void replica_note_compacted(struct store *store, const char *bucket, uint64_t revision)
{
    struct replica *replica = replica_find(store, bucket);

    if (replica == NULL)
        return;
    raise_horizon(replica, revision);
    replica->wants_check = true;
    replica_check_if_possible(replica);
}

static void on_feed_entry(void *arg, const struct kv_entry *entry)
{
    struct replica *replica = arg;
    bool is_wanted = replica_tell(replica, entry);

    if (strcmp(entry->key, KV_COMPACTED_KEY) == 0)
        note_horizon(replica, compact_read_horizon(entry));
    if (replica->keeps_values || is_wanted)
        replica_take(replica, entry);
    if (is_wanted && replica->feed.batch.from != 0)
        replica_note_revision(replica->store, replica->name, entry->key, entry->revision, false);
    if (replica->floors != NULL) {
        replica_drop_doubt(replica, entry->key);
        replica_drop_reached_floors(replica);
    }
    replica_wake(replica);
}

void replica_begin_watches(struct replica *replica)
{
    struct watch *watch, *next;

    if (!replica_is_following(replica))
        return;
    DL_FOREACH_SAFE(replica->watches, watch, next)
    {
        if (watch->state == WATCH_OPENING)
            watch_begin(watch);
    }
}

/* What is known of the keys is compared with what the stream has, and until then it is not answered. */
static void begin_comparing(struct replica *replica)
{
    log_warning("bucket %s may have been set back by its server: reading it anew", replica->name);
    replica_stop_reading(replica);
    replica->compares = true;
    replica->lost_us = replica->feed.question_us;
    replica->wants_load = true;
    replica->is_distrusted = true;
}

static void on_feed_caught_up(void *arg, bool is_in_question)
{
    struct replica *replica = arg;

    if (is_in_question)
        begin_comparing(replica);
    replica_drop_reached_floors(replica);
    replica_settle(replica);
    bool is_resynced = replica->feed.resyncs != replica->seen_resyncs;
    if (is_resynced) {
        replica->store->watch_stats.resyncs += replica->feed.resyncs - replica->seen_resyncs;
        replica->seen_resyncs = replica->feed.resyncs;
        replica->wants_check = true;
    }
    replica_begin_watches(replica);
    /* What was written and has expired meanwhile, the feed never tells. */
    if (is_resynced && replica->keeps_values && replica_is_exclusive(replica))
        replica_distrust(replica);
}

static void end_watches(struct replica *replica, const struct error *error)
{
    while (replica->watches != NULL)
        watch_end(replica->watches, error);
}

static void on_feed_ended(void *arg, const struct error *error)
{
    struct replica *replica = arg;

    replica_stop_reading(replica);
    end_watches(replica, error);
    close_replica(replica);
}

static const struct feed_ops feed_ops = {on_feed_begin, on_feed_entry, on_feed_caught_up, on_feed_ended};

/* --- Life ------------------------------------------------------------------------------------------ */

const struct error *replica_trouble(const struct replica *replica)
{
    return &replica->feed.error;
}

static bool grow_matches(struct replica *replica)
{
    if (replica->watch_count < replica->match_capacity)
        return true;
    size_t capacity = replica->match_capacity > 0 ? replica->match_capacity * 2 : 8;
    struct watch **matches = realloc((void *)replica->matches, capacity * sizeof(struct watch *));
    if (matches == NULL)
        return false;
    replica->matches = matches;
    replica->match_capacity = capacity;
    return true;
}

void replica_leave_tree(struct replica *replica, struct watch *watch)
{
    for (size_t i = 0; watch->refs != NULL && i < watch->filter_count; i++)
        filter_tree_remove(&replica->watch_tree, &watch->refs[i]);
    free(watch->refs);
    watch->refs = NULL;
}

bool replica_enter_tree(struct replica *replica, struct watch *watch)
{
    watch->refs = calloc(watch->filter_count, sizeof(*watch->refs));
    for (size_t i = 0; watch->refs != NULL && i < watch->filter_count; i++) {
        if (!filter_tree_add(&replica->watch_tree, &watch->refs[i], watch->filters[i], watch))
            replica_leave_tree(replica, watch);
    }
    return watch->refs != NULL;
}

bool replica_add_watch(struct replica *replica, struct watch *watch)
{
    if (!grow_matches(replica) || !replica_enter_tree(replica, watch))
        return false;
    DL_APPEND2(replica->watches, watch, previous, next);
    replica->watch_count++;
    replica->watch_filter_count += watch->filter_count;
    return true;
}

void replica_remove_watch(struct replica *replica, struct watch *watch)
{
    DL_DELETE2(replica->watches, watch, previous, next);
    replica_leave_tree(replica, watch);
    if (watch->behind != NULL)
        backlog_move(replica, watch, NULL);
    replica->watch_filter_count -= watch->filter_count;
    if (--replica->watch_count == 0)
        replica->used_ms = uv_now(replica->store->loop);
}

struct replica *replica_find(struct store *store, const char *bucket)
{
    struct replica *replica = store->found_replica;

    /* Mostly it is the one that was asked for last. */
    if (replica != NULL && strcmp(replica->name, bucket) == 0)
        return replica;
    HASH_FIND_STR(store->replicas, bucket, replica);
    if (replica != NULL)
        store->found_replica = replica;
    return replica;
}

static void close_replica(struct replica *replica)
{
    feed_stop(&replica->feed);
    replica_stop_reading(replica);
    bucket_wait_cancel(&replica->wait);
    replica_end_waits(replica);
    replica_drop_floors(replica);
    clear_cache(replica);
    if (replica->bucket != NULL)
        bucket_release(replica->bucket);
    if (replica->store->next_ticking == replica)
        replica->store->next_ticking = replica->hh.next;
    HASH_DEL(replica->store->replicas, replica);
    replica->store->found_replica = NULL;
    free((void *)replica->matches);
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
        replica_end_waits(replica);
    } else {
        replica->feed.error = *error;
        replica_end_waits(replica);
        /* Nobody has anything to go on with, and who asks hears at once that there is no NATS. */
        if (!link_get_status(replica->store->link)->was_connected)
            end_watches(replica, error);
    }
}

static void open_bucket(struct replica *replica)
{
    const struct store *store = replica->store;

    replica->is_opening = true;
    bucket_open(replica->store, &replica->wait, replica->name, NULL,
                uv_now(store->loop) + store->conf->calls.max_timeout_ms, on_bucket, replica);
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
    replica_drop_floors(replica);
    drop_values(replica);
}

/* Do the periodic work of one replica. */
static void tick(struct replica *replica)
{
    bool is_free = replica->reads == REPLICA_READS_NOTHING;

    if (replica->is_over || is_idle(replica)) {
        end_watches(replica, &replica->feed.error);
        close_replica(replica);
        return;
    }
    drop_idle_values(replica);
    replica_end_doubt(replica);
    if (replica->bucket == NULL) {
        if (!replica->is_opening)
            open_bucket(replica);
    } else if (is_free && replica->wants_load && (replica_is_before_feed(replica) || feed_is_live(&replica->feed))) {
        replica_load(replica);
    } else {
        replica_check_if_possible(replica);
    }
}

static bool run_ticking(struct job *job)
{
    struct store *store = (struct store *)((char *)job - offsetof(struct store, ticking));
    struct replica *replica;

    while ((replica = store->next_ticking) != NULL) {
        store->next_ticking = replica->hh.next;
        tick(replica);
        if (jobs_slice_is_over(store->jobs))
            return store->next_ticking != NULL;
    }
    return false;
}

static void on_tick(struct timer *timer);

/* One tick for all replicas: an idle daemon wakes once for it, however many buckets it follows. */
static void start_ticking(struct store *store)
{
    unsigned interval_ms = store->conf->watches.check_interval_ms;

    timer_start(store->timers, &store->tick_timer,
                uv_now(store->loop) + (interval_ms < REPLICA_TICK_MS ? interval_ms : REPLICA_TICK_MS), on_tick);
}

static void on_tick(struct timer *timer)
{
    struct store *store = (struct store *)((char *)timer - offsetof(struct store, tick_timer));

    if (store->replicas == NULL)
        return;
    start_ticking(store);
    if (store->next_ticking == NULL) /* the last tick is over */
        store->next_ticking = store->replicas;
    jobs_add(store->jobs, &store->ticking, run_ticking);
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
    if (!timer_is_set(&store->tick_timer))
        start_ticking(store);
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
    stop_dropping(replica);
    replica->keeps_values = true;
    replica->has_load = false;
    /* A feed that has not begun yet waits for the load; beside one that has, it comes at the next tick, or now. */
    replica->wants_load = is_begun || (replica->bucket != NULL && replica->reads != REPLICA_READS_NOTHING);
    if (is_begun && feed_is_live(&replica->feed) && replica->reads == REPLICA_READS_NOTHING)
        replica_load(replica);
}

/* Of buckets that turned out not to exist. They would go at their next tick. */
static void close_those_that_are_over(struct store *store)
{
    struct replica *replica, *next;

    HASH_ITER(hh, store->replicas, replica, next)
    {
        if (replica->is_over) {
            end_watches(replica, &replica->feed.error);
            close_replica(replica);
        }
    }
}

/* Of those that are only kept in memory, the one that was not read for the longest time; NULL: there is none. */
static struct replica *find_least_used(struct store *store)
{
    struct replica *replica, *next, *found = NULL;

    HASH_ITER(hh, store->replicas, replica, next)
    {
        bool is_wanted = replica->watch_count > 0 || replica->is_configured || replica->is_opening;
        if (!is_wanted && (found == NULL || replica->used_ms < found->used_ms))
            found = replica;
    }
    return found;
}

/*
 * Copies of what is read leave for watches, and for what the configuration names. Another bucket that is read has to
 * wait until one has not been read for a while: then the least used one goes, one in PLACE_MS.
 */
static void make_place(struct store *store, enum replica_use use)
{
    uint64_t now_ms = uv_now(store->loop);
    struct replica *replica;

    close_those_that_are_over(store);
    if (HASH_COUNT(store->replicas) < store->conf->watches.buckets ||
        (use == REPLICA_FOR_CACHE && now_ms < store->full_until_ms))
        return;
    store->full_until_ms = now_ms + PLACE_MS;
    replica = find_least_used(store);
    if (replica != NULL && (use != REPLICA_FOR_CACHE || now_ms - replica->used_ms >= UNUSED_MS))
        close_replica(replica);
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
    if (is_new && HASH_COUNT(store->replicas) >= store->conf->watches.buckets)
        make_place(store, use);
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

void replica_distrust(struct replica *replica)
{
    replica->is_distrusted = true;
    replica->wants_check = true;
    /* It may have met what is gone by now. */
    if (replica->reads == REPLICA_ASKS || replica->reads == REPLICA_CHECKS)
        replica_stop_reading(replica);
    replica_check_if_possible(replica);
}

int replica_init_all(struct store *store)
{
    store->cache_budget.max_bytes = store->conf->cache.max_bytes;
    return arena_init(&store->list_arena, 1024) ? 0 : -1;
}

void replica_free_all(struct store *store)
{
    arena_destroy(&store->list_arena);
    jobs_remove(store->jobs, &store->collecting);
    jobs_remove(store->jobs, &store->telling);
    cache_collect(&store->cache_budget, UINT_MAX);
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
    timer_stop(store->timers, &store->tick_timer);
    jobs_remove(store->jobs, &store->ticking);
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
            totals->keys += replica->cache.value_count;
    }
}
