#include "daemon/store/follow/local_copy_parts.h"

#include "daemon/base/log.h"
#include "daemon/store/follow/filter.h"
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
    struct replica *replica = arg;

    cache_unmark_all(&replica->cache);
    replica->reading_from = feed_position(&replica->feed);
    replica->read = (struct feed_place){0};
}

/*
 * The stream was in question. What is known was told before that, or by the feed since; the reading has the key's last
 * message. False: it is as known.
 */
static bool is_set_back(const struct replica *replica, const struct cache_key *key, const struct kv_entry *entry)
{
    if (entry->revision > replica->reading_from)
        return false; /* the feed tells it */
    if (key == NULL)  /* of keys that watches were never told of it is news if it was written since */
        return entry->created_us > replica->lost_us;
    return key->revision <= replica->reading_from;
}

static void take_loaded(struct replica *replica, const struct kv_entry *entry)
{
    struct cache_key *key = cache_find(&replica->cache, entry->key, strlen(entry->key));
    bool is_same = key != NULL && key->revision == entry->revision && key->created_us == entry->created_us;

    if (replica->compares && !is_same && is_set_back(replica, key, entry)) {
        replica->vanished_at = replica->reading_from; /* no revision tells it to who begins again */
        if (replica_tell_again(replica, entry) || replica->keeps_values)
            replica_take(replica, entry);
        return;
    }
    if (key != NULL && !is_same && !replica_is_before_feed(replica) && key->revision > entry->revision)
        is_same = true; /* the feed was faster */
    if (is_same) {
        cache_mark(&replica->cache, key);
        if (replica->keeps_values && key->revision == entry->revision && !cache_has_value(key)) {
            int64_t expires_us = replica_expiry_of(replica, entry);
            if (expires_us >= 0)
                cache_restore(&replica->cache, key, entry, expires_us);
        }
        return;
    }
    bool is_wanted = replica->tells_load && replica_tell(replica, entry);
    if (is_wanted || replica->keeps_values)
        replica_take(replica, entry);
}

static enum consumer_verdict on_reading_message(void *arg, struct message *message, const struct kv_delivery *delivery)
{
    struct replica *replica = arg;
    struct kv_entry entry;

    if (!kv_read_entry(message, message->subject, replica->bucket->prefix, delivery->stream_sequence,
                       delivery->created_us, &entry))
        return CONSUMER_MORE;
    replica->read.sequence = entry.revision;
    replica->read.stored_us = entry.created_us;
    feed_batch_note(&replica->read.batch, message, entry.revision);
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

/* --- Telling what is gone --------------------------------------------------------------------------- */

/* Up to this revision a key that the reading did not meet is gone. */
static uint64_t revision_limit(const struct replica *replica)
{
    uint64_t limit = replica->reading_from, first = replica->feed.info.first_sequence;

    if (replica_is_before_feed(replica))
        return UINT64_MAX;
    if (replica->feed.info.replicas <= 1 || replica->read.sequence >= limit)
        return limit;
    /* A follower may have answered that is behind. But what the leader said is gone is gone. */
    if (replica->read.sequence + 1 > first)
        return replica->read.sequence;
    return limit < first ? limit : first - 1;
}

static void end_sweep(struct replica *replica)
{
    if (!replica->sweeps)
        return;
    replica->sweeps = false;
    jobs_remove(replica->store->jobs, &replica->sweeping);
    timer_stop(replica->store->timers, &replica->sweep_timer);
    cache_cursor_end(&replica->cache, &replica->sweep_cursor);
}

static void finish_reading(struct replica *replica);

static bool run_sweep(struct job *job);

static void on_sweep_timer(struct timer *timer)
{
    struct replica *replica = (struct replica *)((char *)timer - offsetof(struct replica, sweep_timer));

    jobs_add(replica->store->jobs, &replica->sweeping, run_sweep);
}

/*
 * A purge can make a million keys vanish at once. So watches that have not read what they were told get time to, though
 * not for ever: then those that cannot keep up end, and the others go on.
 */
static bool must_wait(struct replica *replica)
{
    uint64_t now_ms = uv_now(replica->store->loop);

    if (replica_has_room(replica)) {
        replica->sweep_waits_from_ms = 0;
        return false;
    }
    if (replica->sweep_waits_from_ms == 0)
        replica->sweep_waits_from_ms = now_ms;
    return now_ms - replica->sweep_waits_from_ms < SWEEP_PATIENCE_MS;
}

static bool run_sweep(struct job *job)
{
    struct replica *replica = (struct replica *)((char *)job - offsetof(struct replica, sweeping));
    struct store *store = replica->store;
    struct cache_key *key;

    for (unsigned told = 0;; told++) {
        if (told % SWEEP_ROOM_EVERY == 0 && must_wait(replica)) {
            timer_start(store->timers, &replica->sweep_timer, uv_now(store->loop) + SWEEP_WAIT_MS, on_sweep_timer);
            return false;
        }
        key = cache_cursor_next(&replica->sweep_cursor);
        if (key == NULL)
            break;
        if (!cache_is_marked(&replica->cache, key) && key->revision <= replica->sweep_limit)
            replica_vanish(replica, key);
        if (jobs_slice_is_over(store->jobs))
            return true;
    }
    end_sweep(replica);
    finish_reading(replica);
    return false;
}

/* Tell of what the reading did not meet, a slice at a time; then the reading is finished. */
static void begin_sweep(struct replica *replica)
{
    replica->sweep_limit = revision_limit(replica);
    replica->sweep_waits_from_ms = 0;
    replica->sweeps = true;
    cache_cursor_begin(&replica->cache, &replica->sweep_cursor);
    jobs_add(replica->store->jobs, &replica->sweeping, run_sweep);
}

static void free_filters(struct replica *replica)
{
    filter_free_subjects(replica->filters, replica->filter_count);
    replica->filters = NULL;
    replica->filter_count = 0;
}

/* --- The reading's end ------------------------------------------------------------------------------ */

/* A follower that is behind the feed has answered: the load comes again, at the next tick. */
static bool is_too_old(struct replica *replica)
{
    bool is_behind = replica->feed.info.replicas > 1 && replica->read.sequence < replica->reading_from;

    return replica->reads == REPLICA_LOADS && !replica_is_before_feed(replica) && is_behind &&
           replica->reading_tries++ < READING_TRIES_MAX;
}

/* A check says which keys are there. Whether their values are as known, the load says that compares them. */
static void trust(struct replica *replica)
{
    replica->is_distrusted = replica->compares;
}

/* All was read, and what is gone was told. */
static void finish_reading(struct replica *replica)
{
    enum replica_reading reads = replica->reads;

    replica->reads = REPLICA_READS_NOTHING;
    if (reads == REPLICA_LOADS) {
        replica->reading_tries = 0;
        replica->has_load = !replica->wants_load; /* values may be wanted since it began */
        replica->tells_load = false;
        if (replica->compares && !replica->wants_check)
            replica->is_distrusted = false;
        replica->compares = false;
        if (replica_is_before_feed(replica))
            feed_go(&replica->feed, &replica->read);
        /* Of what it found some may be later than what the feed has brought. */
        replica_raise_floor(replica, replica->read.sequence);
        replica_settle(replica);
    } else {
        trust(replica);
        replica_drop_doubts(replica);
    }
    replica_begin_watches(replica);
}

static void on_reading_done(void *arg, const struct error *error)
{
    struct replica *replica = arg;
    bool loads = replica->reads == REPLICA_LOADS;

    free_filters(replica);
    if (error != NULL)
        log_warning("bucket %s could not be read: %s; trying again", replica->name, error->message);
    if (error == NULL && !is_too_old(replica)) {
        begin_sweep(replica);
        return;
    }
    replica->reads = REPLICA_READS_NOTHING;
    replica->wants_load |= loads;
    replica->wants_check |= !loads;
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
    replica->filters = filter_make_subjects(replica->bucket->prefix, filters, count);
    replica->filter_count = replica->filters != NULL ? count : 0;
    return replica->filters != NULL;
}

static void read_all(struct replica *replica, enum replica_reading reads)
{
    bool loads = reads == REPLICA_LOADS;

    if (!make_filters(replica, loads || replica->keeps_values || replica->watch_filter_count > FILTERS_WORTHWHILE)) {
        replica->wants_load |= loads;
        return;
    }
    struct consumer_scope scope = {.stream = replica->bucket->stream,
                                   .filters = replica->filters,
                                   .filter_count = replica->filter_count,
                                   /* Of a bucket that was made anew watches are told all that it has. */
                                   .last_per_subject = !(loads && replica->tells_load),
                                   .leaves_place = true,
                                   .headers_only = !loads};
    replica->reads = reads;
    replica->reading.request.limit = &replica->store->creations;
    consumer_read(&replica->store->jetstream, &replica->reading, &scope, UINT64_MAX, &reading_ops, replica);
}

void replica_load(struct replica *replica)
{
    replica->wants_load = false;
    read_all(replica, REPLICA_LOADS);
}

void replica_stop_reading(struct replica *replica)
{
    if (replica->reads == REPLICA_ASKS)
        jetstream_cancel(&replica->ask);
    else
        consumer_stop(&replica->reading);
    end_sweep(replica);
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
    if (!feed_is_of(&replica->feed, answer)) { /* removed, and made again */
        feed_look(&replica->feed);
        return;
    }
    feed_read_info(answer, &info);
    replica->feed.info = info;
    feed_note_last(&replica->feed, &info);
    replica->wants_check = false;

    uint64_t known = replica->cache.count;
    bool has_less = replica->keeps_values ? info.subjects < known : info.subjects < replica->checked_subjects;
    bool may_have_expired = !replica->keeps_values && info.expires_silently && known <= CHECK_KEYS_MAX;
    bool has_doubts = replica->doubt_count > 0;
    /* Each key that the stream has was told. Then as many keys are the same ones. */
    bool is_as_known =
        replica->is_loaded && info.last_sequence <= feed_position(&replica->feed) && info.subjects == known;
    replica->checked_subjects = info.subjects;
    bool is_worth_while =
        known > 0 && (has_less || may_have_expired || has_doubts || (replica->is_distrusted && !is_as_known) ||
                      (is_forced && !replica->keeps_values));
    if (is_worth_while && !(replica->keeps_values && !replica->has_load))
        read_all(replica, REPLICA_CHECKS);
    else
        trust(replica);
}

static void check(struct replica *replica)
{
    struct store *store = replica->store;

    replica->reads = REPLICA_ASKS;
    jetstream_call(&store->jetstream, &replica->ask, "STREAM.INFO", replica->bucket->stream, NULL,
                   uv_now(store->loop) + store->conf->calls.max_timeout_ms, on_asked, replica);
}

/* What is told of a check would come in the middle of what a watch is told at its beginning. */
void replica_check_if_possible(struct replica *replica)
{
    unsigned interval_ms = replica->store->conf->watches.check_interval_ms;
    bool is_time = uv_now(replica->store->loop) - replica->checked_ms >= interval_ms;

    if (replica->reads == REPLICA_READS_NOTHING && feed_is_live(&replica->feed) && replica->beginning_count == 0 &&
        (replica->wants_check || is_time))
        check(replica);
}
