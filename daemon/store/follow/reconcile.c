#include "daemon/store/follow/local_copy_parts.h"

#include "daemon/base/log.h"
#include "daemon/store/follow/filter.h"
#include "daemon/store/follow/state.h"
#include "daemon/store/follow/watch.h"

#include <string.h>
#include <utlist.h>

/* Readings that a follower of a replicated bucket answered which was behind, before it is taken for all there is. */
#define READING_TRIES_MAX 5u

/* Filters of a check's consumer at most. */
#define CHECK_FILTERS_MAX 16u

/* How long a sweep waits for watches that are slow to read, in all and at a time; and after how many keys it looks. */
#define SWEEP_PATIENCE_MS 2000u
#define SWEEP_WAIT_MS     5u
#define SWEEP_ROOM_EVERY  64u

/* Watches of a bucket with more filters are not worth a reading of their keys alone. */
#define FILTERS_WORTHWHILE 256u

/* A bucket of no more keys is looked through now and then, where values expire without a word. */
#define CHECK_KEYS_MAX 10000u

/* --- Reading all that there is --------------------------------------------------------------------- */

static void on_reading_restart(void *arg)
{
    struct local_copy *copy = arg;

    cache_unmark_all(&copy->cache);
    copy->reading_from = feed_position(&copy->feed);
    copy->read = (struct feed_place){0};
}

/*
 * The stream was in question. What is known was told before that, or by the feed since; the reading has the key's last
 * message. False: it is as known.
 */
static bool is_set_back(const struct local_copy *copy, const struct cache_key *key, const struct kv_entry *entry)
{
    if (entry->revision > copy->reading_from)
        return false; /* the feed tells it */
    if (key == NULL)  /* of keys that watches were never told of it is news if it was written since */
        return entry->created_us > copy->lost_us;
    return key->revision <= copy->reading_from;
}

static void take_loaded(struct local_copy *copy, const struct kv_entry *entry)
{
    struct cache_key *key = cache_find(&copy->cache, entry->key, strlen(entry->key));
    bool is_same = key != NULL && key->revision == entry->revision && key->created_us == entry->created_us;

    if (copy->compares && !is_same && is_set_back(copy, key, entry)) {
        copy->vanished_at = copy->reading_from; /* no revision tells it to who begins again */
        if (local_copy_tell_again(copy, entry) || copy->keeps_values)
            local_copy_take(copy, entry);
        return;
    }
    if (key != NULL && !is_same && !local_copy_is_before_feed(copy) && key->revision > entry->revision)
        is_same = true; /* the feed was faster */
    if (is_same) {
        cache_mark(&copy->cache, key);
        if (copy->keeps_values && key->revision == entry->revision && !cache_has_value(key)) {
            int64_t expires_us = local_copy_expiry_of(copy, entry);
            if (expires_us >= 0)
                cache_restore(&copy->cache, key, entry, expires_us);
        }
        return;
    }
    bool is_wanted = copy->tells_load && local_copy_tell(copy, entry);
    if (is_wanted || copy->keeps_values)
        local_copy_take(copy, entry);
}

static enum consumer_verdict on_reading_message(void *arg, struct message *message, const struct kv_delivery *delivery)
{
    struct local_copy *copy = arg;
    struct kv_entry entry;

    if (!kv_read_entry(message, message->subject, copy->bucket->prefix, delivery->stream_sequence, delivery->created_us,
                       &entry))
        return CONSUMER_MORE;
    copy->read.sequence = entry.revision;
    copy->read.stored_us = entry.created_us;
    feed_batch_note(&copy->read.batch, message, entry.revision);
    if (copy->reads == REPLICA_LOADS) {
        take_loaded(copy, &entry);
    } else {
        struct cache_key *key = cache_find(&copy->cache, entry.key, strlen(entry.key));
        /* The leader said what is gone; a follower that is behind may still have it. */
        if (key != NULL && entry.revision >= copy->feed.info.first_sequence)
            cache_mark(&copy->cache, key);
    }
    return CONSUMER_MORE;
}

/* --- Telling what is gone --------------------------------------------------------------------------- */

/* Up to this revision a key that the reading did not meet is gone. */
static uint64_t revision_limit(const struct local_copy *copy)
{
    uint64_t limit = copy->reading_from, first = copy->feed.info.first_sequence;

    if (local_copy_is_before_feed(copy))
        return UINT64_MAX;
    if (copy->feed.info.replicas <= 1 || copy->read.sequence >= limit)
        return limit;
    /* A follower may have answered that is behind. But what the leader said is gone is gone. */
    if (copy->read.sequence + 1 > first)
        return copy->read.sequence;
    return limit < first ? limit : first - 1;
}

static void end_sweep(struct local_copy *copy)
{
    if (!copy->sweeps)
        return;
    copy->sweeps = false;
    jobs_remove(copy->store->jobs, &copy->sweeping);
    timer_stop(copy->store->timers, &copy->sweep_timer);
    cache_cursor_end(&copy->cache, &copy->sweep_cursor);
}

static void finish_reading(struct local_copy *copy);

static bool run_sweep(struct job *job);

static void on_sweep_timer(struct timer *timer)
{
    struct local_copy *copy = (struct local_copy *)((char *)timer - offsetof(struct local_copy, sweep_timer));

    jobs_add(copy->store->jobs, &copy->sweeping, run_sweep);
}

/*
 * A purge can make a million keys vanish at once. So watches that have not read what they were told get time to, though
 * not for ever: then those that cannot keep up end, and the others go on.
 */
static bool must_wait(struct local_copy *copy)
{
    uint64_t now_ms = uv_now(copy->store->loop);

    if (local_copy_has_room(copy)) {
        copy->sweep_waits_from_ms = 0;
        return false;
    }
    if (copy->sweep_waits_from_ms == 0)
        copy->sweep_waits_from_ms = now_ms;
    return now_ms - copy->sweep_waits_from_ms < SWEEP_PATIENCE_MS;
}

static bool run_sweep(struct job *job)
{
    struct local_copy *copy = (struct local_copy *)((char *)job - offsetof(struct local_copy, sweeping));
    struct store *store = copy->store;
    struct cache_key *key;

    for (unsigned told = 0;; told++) {
        if (told % SWEEP_ROOM_EVERY == 0 && must_wait(copy)) {
            timer_start(store->timers, &copy->sweep_timer, uv_now(store->loop) + SWEEP_WAIT_MS, on_sweep_timer);
            return false;
        }
        key = cache_cursor_next(&copy->sweep_cursor);
        if (key == NULL)
            break;
        if (!cache_is_marked(&copy->cache, key) && key->revision <= copy->sweep_limit)
            local_copy_vanish(copy, key);
        if (jobs_slice_is_over(store->jobs))
            return true;
    }
    end_sweep(copy);
    finish_reading(copy);
    return false;
}

/* Tell of what the reading did not meet, a slice at a time; then the reading is finished. */
static void begin_sweep(struct local_copy *copy)
{
    copy->sweep_limit = revision_limit(copy);
    copy->sweep_waits_from_ms = 0;
    copy->sweeps = true;
    cache_cursor_begin(&copy->cache, &copy->sweep_cursor);
    jobs_add(copy->store->jobs, &copy->sweeping, run_sweep);
}

static void free_filters(struct local_copy *copy)
{
    filter_free_subjects(copy->filters, copy->filter_count);
    copy->filters = NULL;
    copy->filter_count = 0;
}

/* --- The reading's end ------------------------------------------------------------------------------ */

/* A follower that is behind the feed has answered: the load comes again, at the next tick. */
static bool is_too_old(struct local_copy *copy)
{
    bool is_behind = copy->feed.info.replicas > 1 && copy->read.sequence < copy->reading_from;

    return copy->reads == REPLICA_LOADS && !local_copy_is_before_feed(copy) && is_behind &&
           copy->reading_tries++ < READING_TRIES_MAX;
}

/* A check says which keys are there. Whether their values are as known, the load says that compares them. */
static void trust(struct local_copy *copy)
{
    copy->is_distrusted = copy->compares;
}

/* All was read, and what is gone was told. */
static void finish_reading(struct local_copy *copy)
{
    enum local_copy_reading reads = copy->reads;

    copy->reads = REPLICA_READS_NOTHING;
    if (reads == REPLICA_LOADS) {
        copy->reading_tries = 0;
        copy->has_load = !copy->wants_load; /* values may be wanted since it began */
        copy->tells_load = false;
        if (copy->compares && !copy->wants_check)
            copy->is_distrusted = false;
        copy->compares = false;
        if (local_copy_is_before_feed(copy))
            feed_go(&copy->feed, &copy->read);
        /* Of what it found some may be later than what the feed has brought. */
        local_copy_raise_floor(copy, copy->read.sequence);
        local_copy_settle(copy);
    } else {
        trust(copy);
        local_copy_drop_doubts(copy);
    }
    local_copy_begin_watches(copy);
}

static void on_reading_done(void *arg, const struct error *error)
{
    struct local_copy *copy = arg;
    bool loads = copy->reads == REPLICA_LOADS;

    free_filters(copy);
    if (error != NULL)
        log_warning("bucket %s could not be read: %s; trying again", copy->name, error->message);
    if (error == NULL && !is_too_old(copy)) {
        begin_sweep(copy);
        return;
    }
    copy->reads = REPLICA_READS_NOTHING;
    copy->wants_load |= loads;
    copy->wants_check |= !loads;
}

static const struct consumer_ops reading_ops = {on_reading_restart, on_reading_message, on_reading_done};

/* The subjects of all keys, or of those that watches were told of. False: out of memory. */
static bool make_filters(struct local_copy *copy, bool of_all)
{
    const char *filters[WATCH_FILTERS_MAX];
    size_t count = 0;
    struct watch *watch;

    filters[0] = ">";
    DL_FOREACH(copy->watches, watch)
    {
        for (size_t i = 0; !of_all && i < watch->filter_count; i++) {
            if (count == WATCH_FILTERS_MAX)
                count = filter_reduce(filters, count, CHECK_FILTERS_MAX);
            if (count < WATCH_FILTERS_MAX)
                filters[count++] = watch->filters[i];
        }
    }
    count = of_all || count == 0 ? 1 : filter_reduce(filters, count, CHECK_FILTERS_MAX);
    copy->filters = filter_make_subjects(copy->bucket->prefix, filters, count);
    copy->filter_count = copy->filters != NULL ? count : 0;
    return copy->filters != NULL;
}

static void read_all(struct local_copy *copy, enum local_copy_reading reads)
{
    bool loads = reads == REPLICA_LOADS;

    if (!make_filters(copy, loads || copy->keeps_values || copy->watch_filter_count > FILTERS_WORTHWHILE)) {
        copy->wants_load |= loads;
        return;
    }
    struct consumer_scope scope = {.stream = copy->bucket->stream,
                                   .filters = copy->filters,
                                   .filter_count = copy->filter_count,
                                   /* Of a bucket that was made anew watches are told all that it has. */
                                   .last_per_subject = !(loads && copy->tells_load),
                                   .leaves_place = true,
                                   .headers_only = !loads};
    copy->reads = reads;
    copy->reading.request.limit = &copy->store->follow->creations;
    consumer_read(&copy->store->jetstream, &copy->reading, &scope, UINT64_MAX, &reading_ops, copy);
}

void local_copy_load(struct local_copy *copy)
{
    copy->wants_load = false;
    read_all(copy, REPLICA_LOADS);
}

void local_copy_stop_reading(struct local_copy *copy)
{
    if (copy->reads == REPLICA_ASKS)
        jetstream_cancel(&copy->ask);
    else
        consumer_stop(&copy->reading);
    end_sweep(copy);
    copy->reads = REPLICA_READS_NOTHING;
    free_filters(copy);
}

/* --- Looking for what vanished --------------------------------------------------------------------- */

static void on_asked(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct local_copy *copy = arg;
    struct feed_info info = {0};
    bool is_forced = copy->wants_check;

    (void)err_code;
    (void)error; /* of a bucket that is gone the feed hears too */
    copy->reads = REPLICA_READS_NOTHING;
    copy->checked_ms = uv_now(copy->store->loop);
    if (answer == NULL || !feed_is_live(&copy->feed))
        return;
    if (!feed_is_of(&copy->feed, answer)) { /* removed, and made again */
        feed_look(&copy->feed);
        return;
    }
    feed_read_info(answer, &info);
    copy->feed.info = info;
    feed_note_last(&copy->feed, &info);
    copy->wants_check = false;

    uint64_t known = copy->cache.count;
    bool has_less = copy->keeps_values ? info.subjects < known : info.subjects < copy->checked_subjects;
    bool may_have_expired = !copy->keeps_values && info.expires_silently && known <= CHECK_KEYS_MAX;
    bool has_doubts = copy->doubt_count > 0;
    /* Each key that the stream has was told. Then as many keys are the same ones. */
    bool is_as_known = copy->is_loaded && info.last_sequence <= feed_position(&copy->feed) && info.subjects == known;
    copy->checked_subjects = info.subjects;
    bool is_worth_while = known > 0 && (has_less || may_have_expired || has_doubts ||
                                        (copy->is_distrusted && !is_as_known) || (is_forced && !copy->keeps_values));
    if (is_worth_while && !(copy->keeps_values && !copy->has_load))
        read_all(copy, REPLICA_CHECKS);
    else
        trust(copy);
}

static void check(struct local_copy *copy)
{
    struct store *store = copy->store;

    copy->reads = REPLICA_ASKS;
    jetstream_call(&store->jetstream, &copy->ask, "STREAM.INFO", copy->bucket->stream, NULL,
                   uv_now(store->loop) + store->conf->calls.max_timeout_ms, on_asked, copy);
}

/* What is told of a check would come in the middle of what a watch is told at its beginning. */
void local_copy_check_if_possible(struct local_copy *copy)
{
    unsigned interval_ms = copy->store->conf->watches.check_interval_ms;
    bool is_time = uv_now(copy->store->loop) - copy->checked_ms >= interval_ms;

    if (copy->reads == REPLICA_READS_NOTHING && feed_is_live(&copy->feed) && copy->beginning_count == 0 &&
        (copy->wants_check || is_time))
        check(copy);
}
