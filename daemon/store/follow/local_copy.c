#include "daemon/store/follow/local_copy_parts.h"

#include "daemon/base/log.h"
#include "daemon/store/follow/horizon.h"
#include "daemon/store/follow/state.h"
#include "daemon/store/follow/watch.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Consumers that are being created at a time; each may then read for long. */
#define CREATIONS_MAX 8u

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

static void close_local_copy(struct local_copy *copy);

/* --- Telling watches ------------------------------------------------------------------------------- */

/* A watch matches once, however many of its filters do. */
static void note_match(void *arg, void *owner)
{
    struct local_copy *copy = arg;
    struct watch *watch = owner;

    if (watch->matched_serial == copy->store->follow->entry_serial)
        return;
    watch->matched_serial = copy->store->follow->entry_serial;
    copy->matches[copy->match_count++] = watch;
}

/* Finds the watches that a key matches: whoever is told may end, and leave the tree. */
static void find_matches(struct local_copy *copy, const char *key)
{
    copy->store->follow->entry_serial++;
    copy->match_count = 0;
    filter_tree_match(&copy->watch_tree, key, note_match, copy);
}

/* Add a change if watches are behind, or if it matches so many that they must fall behind. NULL: tell it at once. */
static struct change *add_to_backlog(struct local_copy *copy, const struct kv_entry *entry, bool is_again)
{
    const struct watch *packer = backlog_any(copy);

    if (packer == NULL && copy->match_count <= TOLD_AT_ONCE_MAX)
        return NULL;
    struct change *change = backlog_add(copy, entry, is_again, packer != NULL ? packer : copy->matches[0]);
    if (change == NULL)
        backlog_lose_all(copy);
    return change;
}

/* Return whether a watch may want to hear of such a key. */
static bool tell(struct local_copy *copy, const struct kv_entry *entry, bool is_again)
{
    bool is_wanted = copy->backlog.watch_count > 0;

    find_matches(copy, entry->key);
    struct change *change = add_to_backlog(copy, entry, is_again);
    for (size_t i = 0; i < copy->match_count; i++) {
        struct watch *watch = copy->matches[i];
        is_wanted |= watch_is_live(watch);
        if (change != NULL) /* even if few match: their session may be full of what others were told */
            watch_fall_behind(watch, change);
        else if (is_again)
            watch_tell_again(watch, entry, copy->store->follow->entry_serial);
        else
            watch_tell(watch, entry, copy->store->follow->entry_serial);
    }
    backlog_trim(copy);
    return is_wanted;
}

bool local_copy_tell(struct local_copy *copy, const struct kv_entry *entry)
{
    return tell(copy, entry, false);
}

bool local_copy_has_room(const struct local_copy *copy)
{
    const struct watch *watch;

    if (copy->backlog.first != NULL)
        return false;
    DL_FOREACH(copy->watches, watch)
    {
        if (watch->state == WATCH_LIVE && !watch->ops->has_room(watch->arg))
            return false;
    }
    return true;
}

bool local_copy_is_before_feed(const struct local_copy *copy)
{
    return copy->feed.phase == FEED_HELD;
}

bool local_copy_tell_again(struct local_copy *copy, const struct kv_entry *entry)
{
    return tell(copy, entry, true);
}

void local_copy_vanish(struct local_copy *copy, struct cache_key *key)
{
    char *name = strdup(cache_key_name(key)); /* foreign clients' keys may be longer than ours */
    struct message message = {0};
    bool was_there = cache_operation(key) == KV_PUT;

    cache_remove(&copy->cache, key);
    if (!was_there || name == NULL) { /* a marker that expired is no news */
        free(name);
        return;
    }
    copy->store->follow->watch_stats.vanished++;
    copy->vanished_at = feed_position(&copy->feed);
    struct kv_entry entry = {.key = name,
                             .value = "",
                             .revision =
                                 local_copy_is_before_feed(copy) ? copy->read.sequence : feed_position(&copy->feed),
                             .created_us = store_now_us(),
                             .operation = KV_DELETE,
                             .message = &message};
    local_copy_tell_again(copy, &entry);
    free(name);
}

/* --- What the cache takes -------------------------------------------------------------------------- */

/*
 * When an entry expires by the bucket's age or its own TTL; 0: never. A TTL is whole seconds, or a duration of Go's
 * (ADR-43); -1: it is not understood, and its value must not be kept.
 */
int64_t local_copy_expiry_of(const struct local_copy *copy, const struct kv_entry *entry)
{
    int64_t max_age_us = copy->feed.info.max_age_us;
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
    struct store *store = ((struct follow_state *)((char *)job - offsetof(struct follow_state, collecting)))->store;

    while (cache_collect(&store->follow->cache_budget, COLLECT_KEYS)) {
        if (jobs_slice_is_over(store->jobs))
            return true;
    }
    return false;
}

static void stop_dropping(struct local_copy *copy)
{
    if (!copy->drops)
        return;
    copy->drops = false;
    jobs_remove(copy->store->jobs, &copy->dropping);
    cache_cursor_end(&copy->cache, &copy->drop_cursor);
}

static bool run_dropping(struct job *job)
{
    struct local_copy *copy = (struct local_copy *)((char *)job - offsetof(struct local_copy, dropping));
    struct cache_key *key;

    while ((key = cache_cursor_next(&copy->drop_cursor)) != NULL) {
        cache_drop_value(&copy->cache, key);
        if (jobs_slice_is_over(copy->store->jobs))
            return true;
    }
    stop_dropping(copy);
    return false;
}

/* Nobody reads the values any more. */
static void drop_values(struct local_copy *copy)
{
    if (copy->drops)
        return;
    copy->drops = true;
    cache_cursor_begin(&copy->cache, &copy->drop_cursor);
    jobs_add(copy->store->jobs, &copy->dropping, run_dropping);
}

static void clear_cache(struct local_copy *copy)
{
    struct store *store = copy->store;

    stop_dropping(copy);
    cache_clear(&copy->cache);
    if (store->follow->cache_budget.garbage != NULL)
        jobs_add(store->jobs, &store->follow->collecting, run_collecting);
}

/* There is no room for the keys alone. */
static void give_up_cache(struct local_copy *copy)
{
    struct watch *watch, *next;

    DL_FOREACH_SAFE(copy->watches, watch, next)
    {
        watch_leave_cache(watch);
    }
    if (copy->keeps_values)
        log_warning("bucket %s is not cached: its keys alone, %" PRIu64
                    " of them, take more than there is (cache.max_bytes of %zu)",
                    copy->name, copy->feed.info.subjects, copy->store->conf->cache.max_bytes);
    else if (!copy->is_partial)
        log_warning("bucket %s: there is no room to remember which keys watches were told of (cache.max_bytes); those "
                    "that vanish without a message may not be noticed",
                    copy->name);
    copy->is_partial = true;
    copy->keeps_values = false;
    copy->is_loaded = false;
    local_copy_end_waits(copy);
    clear_cache(copy);
    cache_init(&copy->cache, &copy->store->follow->cache_budget);
    if (copy->sweeps) /* it ends, with nothing left to tell */
        cache_cursor_begin(&copy->cache, &copy->sweep_cursor);
}

/* One bucket's keys do not push out those of others. What was given up just now takes a moment to be freed. */
static void give_up_largest(struct store *store)
{
    struct local_copy *copy, *next, *largest = NULL;

    if (store->follow->cache_budget.garbage != NULL)
        return;
    HASH_ITER(hh, store->follow->local_copies, copy, next)
    {
        if (largest == NULL || copy->cache.bytes > largest->cache.bytes)
            largest = copy;
    }
    if (largest != NULL)
        give_up_cache(largest);
}

void local_copy_take(struct local_copy *copy, const struct kv_entry *entry)
{
    if (copy->is_partial && !copy->keeps_values)
        return;
    int64_t expires_us = copy->keeps_values ? local_copy_expiry_of(copy, entry) : 0;
    bool with_value = copy->keeps_values && entry->operation == KV_PUT && expires_us >= 0;
    if (cache_set(&copy->cache, entry, expires_us > 0 ? expires_us : 0, with_value) == NULL)
        give_up_largest(copy->store);
}

void local_copy_note_told(struct local_copy *copy, const struct kv_entry *entry)
{
    struct cache_key *key;

    if (copy->keeps_values)
        return; /* it has all that the feed and its own readings bring */
    key = cache_find(&copy->cache, entry->key, strlen(entry->key));
    if (key == NULL || key->revision < entry->revision)
        local_copy_take(copy, entry);
}

/* --- The feed -------------------------------------------------------------------------------------- */

/* All is there once the load is done and the feed has come up to it. */
void local_copy_settle(struct local_copy *copy)
{
    if (copy->has_load && copy->keeps_values && feed_is_live(&copy->feed))
        copy->is_loaded = true;
    local_copy_wake(copy);
}

static void on_feed_begin(void *arg, bool is_anew)
{
    struct local_copy *copy = arg;
    struct watch *watch, *next;

    if (is_anew) {
        local_copy_stop_reading(copy);
        copy->is_loaded = false;
        copy->has_load = false;
        copy->acked = 0;
        copy->compacted = 0;
        backlog_begin_epoch(copy);
        copy->compares = false;
        local_copy_drop_floors(copy);
        DL_FOREACH_SAFE(copy->watches, watch, next)
        {
            watch_follow_anew(watch);
        }
    }
    if (copy->keeps_values && copy->feed.info.subjects > copy->store->conf->cache.max_bytes / KEY_BYTES_MIN)
        give_up_cache(copy); /* not even begun */
    else if (!local_copy_is_worth_waiting(copy))
        local_copy_end_waits(copy);
    copy->tells_load = is_anew;
    if (is_anew || copy->keeps_values)
        local_copy_load(copy);
    else
        feed_go(&copy->feed,
                &(struct feed_place){.sequence = copy->feed.info.last_sequence, .stored_us = copy->feed.info.last_us});
}

static void raise_horizon(struct local_copy *copy, uint64_t horizon)
{
    if (horizon > copy->compacted)
        copy->compacted = horizon;
}

/* Markers up to this revision are about to be removed, or were just now. */
static void note_removal(struct local_copy *copy, uint64_t revision)
{
    struct watch *watch;

    raise_horizon(copy, revision);
    if (!copy->is_loaded && copy->reads == REPLICA_LOADS)
        local_copy_distrust(copy); /* it may have read a value whose marker it will not meet */
    DL_FOREACH(copy->watches, watch)
    {
        watch_note_removal(watch, revision);
    }
}

/*
 * A host is about to remove delete markers. If it is another host, the markers may be gone before the feed delivers
 * them, and deleted keys would stay in memory.
 */
static void note_horizon(struct local_copy *copy, uint64_t horizon)
{
    note_removal(copy, horizon);
    if (!local_copy_is_exclusive(copy))
        local_copy_distrust(copy);
}

void local_copy_note_removal(struct store *store, const char *bucket, uint64_t revision)
{
    struct local_copy *copy = local_copy_find(store, bucket);

    if (copy != NULL)
        note_removal(copy, revision);
}

void local_copy_note_compacted(struct store *store, const char *bucket, uint64_t revision)
{
    struct local_copy *copy = local_copy_find(store, bucket);

    if (copy == NULL)
        return;
    raise_horizon(copy, revision);
    copy->wants_check = true;
    local_copy_check_if_possible(copy);
}

static void on_feed_entry(void *arg, const struct kv_entry *entry)
{
    struct local_copy *copy = arg;
    bool is_wanted = local_copy_tell(copy, entry);

    if (strcmp(entry->key, KV_COMPACTED_KEY) == 0)
        note_horizon(copy, horizon_read(entry));
    if (copy->keeps_values || is_wanted)
        local_copy_take(copy, entry);
    if (is_wanted && copy->feed.batch.from != 0)
        local_copy_note_revision(copy->store, copy->name, entry->key, entry->revision, false);
    if (copy->floors != NULL) {
        local_copy_drop_doubt(copy, entry->key);
        local_copy_drop_reached_floors(copy);
    }
    local_copy_wake(copy);
}

void local_copy_begin_watches(struct local_copy *copy)
{
    struct watch *watch, *next;

    if (!local_copy_is_following(copy))
        return;
    DL_FOREACH_SAFE(copy->watches, watch, next)
    {
        if (watch->state == WATCH_OPENING)
            watch_begin(watch);
    }
}

/* What is known of the keys is compared with what the stream has, and until then it is not answered. */
static void begin_comparing(struct local_copy *copy)
{
    log_warning("bucket %s may have been set back by its server: reading it anew", copy->name);
    local_copy_stop_reading(copy);
    copy->compares = true;
    copy->lost_us = copy->feed.question_us;
    copy->wants_load = true;
    copy->is_distrusted = true;
}

static void on_feed_caught_up(void *arg, bool is_in_question)
{
    struct local_copy *copy = arg;

    if (is_in_question)
        begin_comparing(copy);
    local_copy_drop_reached_floors(copy);
    local_copy_settle(copy);
    bool is_resynced = copy->feed.resyncs != copy->seen_resyncs;
    if (is_resynced) {
        copy->store->follow->watch_stats.resyncs += copy->feed.resyncs - copy->seen_resyncs;
        copy->seen_resyncs = copy->feed.resyncs;
        copy->wants_check = true;
    }
    local_copy_begin_watches(copy);
    /* What was written and has expired meanwhile, the feed never tells. */
    if (is_resynced && copy->keeps_values && local_copy_is_exclusive(copy))
        local_copy_distrust(copy);
}

static void end_watches(struct local_copy *copy, const struct error *error)
{
    while (copy->watches != NULL)
        watch_end(copy->watches, error);
}

static void on_feed_ended(void *arg, const struct error *error)
{
    struct local_copy *copy = arg;

    local_copy_stop_reading(copy);
    end_watches(copy, error);
    close_local_copy(copy);
}

static const struct feed_ops feed_ops = {on_feed_begin, on_feed_entry, on_feed_caught_up, on_feed_ended};

/* --- Life ------------------------------------------------------------------------------------------ */

const struct error *local_copy_trouble(const struct local_copy *copy)
{
    return &copy->feed.error;
}

static bool grow_matches(struct local_copy *copy)
{
    if (copy->watch_count < copy->match_capacity)
        return true;
    size_t capacity = copy->match_capacity > 0 ? copy->match_capacity * 2 : 8;
    struct watch **matches = realloc((void *)copy->matches, capacity * sizeof(struct watch *));
    if (matches == NULL)
        return false;
    copy->matches = matches;
    copy->match_capacity = capacity;
    return true;
}

void local_copy_leave_tree(struct local_copy *copy, struct watch *watch)
{
    for (size_t i = 0; watch->refs != NULL && i < watch->filter_count; i++)
        filter_tree_remove(&copy->watch_tree, &watch->refs[i]);
    free(watch->refs);
    watch->refs = NULL;
}

bool local_copy_enter_tree(struct local_copy *copy, struct watch *watch)
{
    watch->refs = calloc(watch->filter_count, sizeof(*watch->refs));
    for (size_t i = 0; watch->refs != NULL && i < watch->filter_count; i++) {
        if (!filter_tree_add(&copy->watch_tree, &watch->refs[i], watch->filters[i], watch))
            local_copy_leave_tree(copy, watch);
    }
    return watch->refs != NULL;
}

bool local_copy_add_watch(struct local_copy *copy, struct watch *watch)
{
    if (!grow_matches(copy) || !local_copy_enter_tree(copy, watch))
        return false;
    DL_APPEND2(copy->watches, watch, previous, next);
    copy->watch_count++;
    copy->watch_filter_count += watch->filter_count;
    return true;
}

void local_copy_remove_watch(struct local_copy *copy, struct watch *watch)
{
    DL_DELETE2(copy->watches, watch, previous, next);
    local_copy_leave_tree(copy, watch);
    if (watch->behind != NULL)
        backlog_move(copy, watch, NULL);
    copy->watch_filter_count -= watch->filter_count;
    if (--copy->watch_count == 0)
        copy->used_ms = uv_now(copy->store->loop);
}

struct local_copy *local_copy_find(struct store *store, const char *bucket)
{
    struct local_copy *copy = store->follow->found_local_copy;

    /* Mostly it is the one that was asked for last. */
    if (copy != NULL && strcmp(copy->name, bucket) == 0)
        return copy;
    HASH_FIND_STR(store->follow->local_copies, bucket, copy);
    if (copy != NULL)
        store->follow->found_local_copy = copy;
    return copy;
}

static void close_local_copy(struct local_copy *copy)
{
    feed_stop(&copy->feed);
    local_copy_stop_reading(copy);
    bucket_wait_cancel(&copy->wait);
    local_copy_end_waits(copy);
    local_copy_drop_floors(copy);
    clear_cache(copy);
    if (copy->bucket != NULL)
        bucket_release(copy->bucket);
    if (copy->store->follow->next_ticking == copy)
        copy->store->follow->next_ticking = copy->hh.next;
    HASH_DEL(copy->store->follow->local_copies, copy);
    copy->store->follow->found_local_copy = NULL;
    free((void *)copy->matches);
    free(copy);
}

static void on_bucket(void *arg, struct bucket *bucket, const struct error *error)
{
    struct local_copy *copy = arg;

    copy->is_opening = false;
    if (error == NULL) {
        copy->bucket = bucket;
        feed_start(copy->store, &copy->feed, bucket, &feed_ops, copy);
    } else if (error->code == ERROR_BUCKET_NOT_FOUND) {
        copy->is_over = true; /* at the next tick: whoever asked for it is still at it */
        copy->feed.error = *error;
        end_watches(copy, error);
        local_copy_end_waits(copy);
    } else {
        copy->feed.error = *error;
        local_copy_end_waits(copy);
        /* Nobody has anything to go on with, and who asks hears at once that there is no NATS. */
        if (!connection_get_status(copy->store->connection)->was_connected)
            end_watches(copy, error);
    }
}

static void open_bucket(struct local_copy *copy)
{
    const struct store *store = copy->store;

    copy->is_opening = true;
    bucket_open(copy->store, &copy->wait, copy->name, NULL, uv_now(store->loop) + store->conf->calls.max_timeout_ms,
                on_bucket, copy);
}

static bool is_idle(const struct local_copy *copy)
{
    const struct conf *conf = copy->store->conf;
    uint64_t idle_ms = uv_now(copy->store->loop) - copy->used_ms;

    if (copy->watch_count > 0 || copy->is_configured)
        return false;
    return idle_ms >= (copy->keeps_values ? conf->cache.idle_timeout_ms : LINGER_MS);
}

/* Cached reads are over, but it is watched: the values go. */
static void drop_idle_values(struct local_copy *copy)
{
    const struct conf *conf = copy->store->conf;

    if (!copy->keeps_values || copy->is_configured || copy->beginning_count > 0 ||
        uv_now(copy->store->loop) - copy->read_ms < conf->cache.idle_timeout_ms)
        return;
    copy->keeps_values = false;
    copy->is_loaded = false;
    copy->has_load = false;
    local_copy_drop_floors(copy);
    drop_values(copy);
}

/* Do the periodic work of one replica. */
static void tick(struct local_copy *copy)
{
    bool is_free = copy->reads == REPLICA_READS_NOTHING;

    if (copy->is_over || is_idle(copy)) {
        end_watches(copy, &copy->feed.error);
        close_local_copy(copy);
        return;
    }
    drop_idle_values(copy);
    local_copy_end_doubt(copy);
    if (copy->bucket == NULL) {
        if (!copy->is_opening)
            open_bucket(copy);
    } else if (is_free && copy->wants_load && (local_copy_is_before_feed(copy) || feed_is_live(&copy->feed))) {
        local_copy_load(copy);
    } else {
        local_copy_check_if_possible(copy);
    }
}

static bool run_ticking(struct job *job)
{
    struct store *store = ((struct follow_state *)((char *)job - offsetof(struct follow_state, ticking)))->store;
    struct local_copy *copy;

    while ((copy = store->follow->next_ticking) != NULL) {
        store->follow->next_ticking = copy->hh.next;
        tick(copy);
        if (jobs_slice_is_over(store->jobs))
            return store->follow->next_ticking != NULL;
    }
    return false;
}

static void on_tick(struct timer *timer);

/* One tick for all replicas: an idle daemon wakes once for it, however many buckets it follows. */
static void start_ticking(struct store *store)
{
    unsigned interval_ms = store->conf->watches.check_interval_ms;

    timer_start(store->timers, &store->follow->tick_timer,
                uv_now(store->loop) + (interval_ms < REPLICA_TICK_MS ? interval_ms : REPLICA_TICK_MS), on_tick);
}

static void on_tick(struct timer *timer)
{
    struct store *store = ((struct follow_state *)((char *)timer - offsetof(struct follow_state, tick_timer)))->store;

    if (store->follow->local_copies == NULL)
        return;
    start_ticking(store);
    if (store->follow->next_ticking == NULL) /* the last tick is over */
        store->follow->next_ticking = store->follow->local_copies;
    jobs_add(store->jobs, &store->follow->ticking, run_ticking);
}

static struct local_copy *make_local_copy(struct store *store, const char *bucket)
{
    struct local_copy *copy = calloc(1, sizeof(*copy));

    if (copy == NULL)
        return NULL;
    copy->store = store;
    snprintf(copy->name, sizeof(copy->name), "%s", bucket);
    cache_init(&copy->cache, &store->follow->cache_budget);
    HASH_ADD_STR(store->follow->local_copies, name, copy);
    copy->checked_ms = copy->used_ms = uv_now(store->loop);
    if (!timer_is_set(&store->follow->tick_timer))
        start_ticking(store);
    return copy;
}

/* Values are wanted from now on. */
static void keep_values(struct local_copy *copy)
{
    bool is_begun = copy->feed.is_placed;

    copy->read_ms = copy->used_ms = uv_now(copy->store->loop);
    /* What there was no room for a while ago there is none for now. */
    if (copy->keeps_values || copy->is_partial)
        return;
    stop_dropping(copy);
    copy->keeps_values = true;
    copy->has_load = false;
    /* A feed that has not begun yet waits for the load; beside one that has, it comes at the next tick, or now. */
    copy->wants_load = is_begun || (copy->bucket != NULL && copy->reads != REPLICA_READS_NOTHING);
    if (is_begun && feed_is_live(&copy->feed) && copy->reads == REPLICA_READS_NOTHING)
        local_copy_load(copy);
}

/* Of buckets that turned out not to exist. They would go at their next tick. */
static void close_those_that_are_over(struct store *store)
{
    struct local_copy *copy, *next;

    HASH_ITER(hh, store->follow->local_copies, copy, next)
    {
        if (copy->is_over) {
            end_watches(copy, &copy->feed.error);
            close_local_copy(copy);
        }
    }
}

/* Of those that are only kept in memory, the one that was not read for the longest time; NULL: there is none. */
static struct local_copy *find_least_used(struct store *store)
{
    struct local_copy *copy, *next, *found = NULL;

    HASH_ITER(hh, store->follow->local_copies, copy, next)
    {
        bool is_wanted = copy->watch_count > 0 || copy->is_configured || copy->is_opening;
        if (!is_wanted && (found == NULL || copy->used_ms < found->used_ms))
            found = copy;
    }
    return found;
}

/*
 * Copies of what is read leave for watches, and for what the configuration names. Another bucket that is read has to
 * wait until one has not been read for a while: then the least used one goes, one in PLACE_MS.
 */
static void make_place(struct store *store, enum local_copy_use use)
{
    uint64_t now_ms = uv_now(store->loop);
    struct local_copy *copy;

    close_those_that_are_over(store);
    if (HASH_COUNT(store->follow->local_copies) < store->conf->watches.buckets ||
        (use == REPLICA_FOR_CACHE && now_ms < store->follow->full_until_ms))
        return;
    store->follow->full_until_ms = now_ms + PLACE_MS;
    copy = find_least_used(store);
    if (copy != NULL && (use != REPLICA_FOR_CACHE || now_ms - copy->used_ms >= UNUSED_MS))
        close_local_copy(copy);
}

struct local_copy *local_copy_obtain(struct store *store, const char *bucket, enum local_copy_use use,
                                     struct error *error)
{
    struct local_copy *copy = local_copy_find(store, bucket);

    if (copy != NULL && copy->is_over) {
        end_watches(copy, &copy->feed.error);
        close_local_copy(copy);
        copy = NULL;
    }
    bool is_new = copy == NULL;
    if (is_new && HASH_COUNT(store->follow->local_copies) >= store->conf->watches.buckets)
        make_place(store, use);
    if (is_new && HASH_COUNT(store->follow->local_copies) >= store->conf->watches.buckets) {
        error_set(error, ERROR_RESOURCE_EXHAUSTED,
                  "%u buckets are followed already, which is the limit "
                  "(watches.buckets)",
                  store->conf->watches.buckets);
        return NULL;
    }
    if (is_new)
        copy = make_local_copy(store, bucket);
    if (copy == NULL) {
        error_set(error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return NULL;
    }
    if (use == REPLICA_CONFIGURED)
        copy->is_configured = true;
    if (use != REPLICA_FOR_WATCH)
        keep_values(copy);
    if (is_new)
        open_bucket(copy);
    return copy;
}

void local_copy_distrust(struct local_copy *copy)
{
    copy->is_distrusted = true;
    copy->wants_check = true;
    /* It may have met what is gone by now. */
    if (copy->reads == REPLICA_ASKS || copy->reads == REPLICA_CHECKS)
        local_copy_stop_reading(copy);
    local_copy_check_if_possible(copy);
}

static void on_bucket_created(struct store *store, const char *bucket)
{
    (void)bucket;
    local_copy_follow_configured(store);
}

static const struct observer_ops local_copy_observer_ops = {.revision = local_copy_note_revision,
                                                            .entry = local_copy_note_read,
                                                            .known_revision = local_copy_revision_of,
                                                            .absent = local_copy_note_absent,
                                                            .begin_change = local_copy_begin_change,
                                                            .end_change = local_copy_end_change,
                                                            .created = on_bucket_created};

int local_copy_init_all(struct store *store)
{
    struct follow_state *follow = calloc(1, sizeof(*follow));

    store->follow = follow;
    if (follow == NULL)
        return -1;
    if (!arena_init(&follow->list_arena, 1024)) {
        free(follow);
        store->follow = NULL;
        return -1;
    }
    follow->store = store;
    follow->cache_budget.max_bytes = store->conf->cache.max_bytes;
    follow->creations.max = CREATIONS_MAX;
    follow->creations.is_of_many_streams = true;
    follow->observer.ops = &local_copy_observer_ops;
    observe_add(store, &follow->observer);
    return 0;
}

void local_copy_reload(struct store *store)
{
    store->follow->cache_budget.max_bytes = store->conf->cache.max_bytes;
    local_copy_follow_configured(store);
}

void local_copy_free_all(struct store *store)
{
    arena_destroy(&store->follow->list_arena);
    jobs_remove(store->jobs, &store->follow->collecting);
    jobs_remove(store->jobs, &store->follow->telling);
    cache_collect(&store->follow->cache_budget, UINT_MAX);
    free(store->follow);
    store->follow = NULL;
}

void local_copy_end_all(struct store *store)
{
    struct local_copy *copy, *next;
    struct error error;

    error_set(&error, ERROR_UNAVAILABLE, "the daemon ends");
    HASH_ITER(hh, store->follow->local_copies, copy, next)
    {
        end_watches(copy, &error);
        close_local_copy(copy);
    }
    timer_stop(store->timers, &store->follow->tick_timer);
    jobs_remove(store->jobs, &store->follow->ticking);
}

void local_copy_total(const struct store *store, struct local_copy_totals *totals)
{
    const struct local_copy *copy, *next;

    memset(totals, 0, sizeof(*totals));
    HASH_ITER(hh, store->follow->local_copies, copy, next)
    {
        totals->buckets++;
        totals->cached_buckets += copy->keeps_values;
        if (copy->keeps_values)
            totals->keys += copy->cache.value_count;
    }
}
