#include "daemon/store/follow/reconcile.h"

#include "daemon/base/clock.h"
#include "daemon/base/log.h"
#include "daemon/store/follow/filter.h"
#include "daemon/store/follow/local_copy.h"
#include "daemon/store/follow/state.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Filters of a check's consumer at most. */
#define CHECK_FILTERS_MAX 16u

/* How long removing waits for watches that are slow to read, in all and at a time; and after how many keys it looks. */
#define STALLED_MAX_MS   2000u
#define STALL_CHECK_MS   5u
#define ROOM_CHECK_EVERY 64u

/* How long a check that is due waits for watches that begin: without progress of any of them, and in all. */
#define STANDSTILL_MAX_MS 10000u
#define BEGINNINGS_MAX_MS 300000u

/* Watches of a bucket with more filters are not worth a reading of their keys alone. */
#define FILTERS_WORTHWHILE 256u

/* A bucket of no more keys is checked at each interval if values expire without a message. */
#define CHECK_KEYS_MAX 10000u

/* --- Reading --------------------------------------------------------------------------------------- */

static void on_reading_restart(void *arg)
{
    struct local_copy *copy = arg;

    cache_unmark_all(&copy->contents.cache);
    copy->reconcile.begin_position = feed_position(&copy->feed);
    consumer_require(&copy->reconcile.reading, copy->reconcile.begin_position);
    copy->reconcile.last_read = (struct feed_place){0};
    copy->reconcile.has_news = false;
}

/*
 * Compare an entry that was read with the key in memory, after the stream was in question. What is known was delivered
 * before that, or by the feed since; the reading has the key's last message. Return whether it was set back.
 */
static bool reconcile_is_set_back(const struct reconcile *reconcile, const struct cache_key *key,
                                  const struct kv_entry *entry)
{
    if (entry->revision > reconcile->begin_position)
        return false; /* the feed delivers it */
    if (key == NULL)  /* a key that watches were never delivered is news if it was written since */
        return entry->created_us > reconcile->question_us;
    return key->revision <= reconcile->begin_position;
}

/* Return whether a server that is behind may answer the load with what was overwritten since. */
static bool reconcile_may_be_misled(const struct local_copy *copy)
{
    return reconcile_is_comparing(&copy->reconcile) && copy->feed.info.replicas > 1;
}

/*
 * A follower that is behind answers with what was overwritten since, before it comes to what is known. So of a
 * replicated stream, what differs from a key is delivered only if the key differed at the end of the load before; and
 * a key that is not known, if anything did.
 */
static bool reconcile_must_confirm(const struct local_copy *copy, const struct cache_key *key)
{
    bool has_differed = copy->reconcile.is_confirmed && (key == NULL || cache_was_doubtful(&copy->contents.cache, key));

    return reconcile_may_be_misled(copy) && !has_differed;
}

static void reconcile_receive_entry(struct local_copy *copy, const struct kv_entry *entry)
{
    struct reconcile *reconcile = &copy->reconcile;
    struct cache_key *key = cache_find(&copy->contents.cache, entry->key, strlen(entry->key));
    bool is_same = key != NULL && key->revision == entry->revision && key->created_us == entry->created_us;
    bool have_values = contents_have_values(&copy->contents);

    bool differs = reconcile_is_comparing(reconcile) && !is_same && reconcile_is_set_back(reconcile, key, entry);
    if (differs && reconcile_must_confirm(copy, key)) {
        reconcile->has_news |= key == NULL;
        if (key != NULL)
            cache_doubt(&copy->contents.cache, key);
        return;
    }
    if (differs) {
        copy->watches.vanished_at = reconcile->begin_position; /* a watch that is resumed at a revision would miss it */
        local_copy_tell_listener(copy, entry);
        if (watch_set_deliver_unrecorded(&copy->watches, entry) || have_values)
            contents_keep(copy, entry);
        return;
    }
    if (key != NULL && !is_same && !local_copy_is_before_feed(copy) && key->revision > entry->revision)
        is_same = true; /* the feed was faster */
    if (is_same) {
        cache_mark(&copy->contents.cache, key);
        contents_restore(copy, key, entry);
        return;
    }
    bool is_wanted = reconcile->purpose == RECONCILE_TO_DELIVER && watch_set_deliver(&copy->watches, entry);
    if (is_wanted || have_values)
        contents_keep(copy, entry);
    else if (key != NULL) /* it was overwritten, and has not vanished: the feed delivers the new entry */
        cache_mark(&copy->contents.cache, key);
}

static enum consumer_verdict on_reading_message(void *arg, struct message *message, const struct kv_delivery *delivery)
{
    struct local_copy *copy = arg;
    struct reconcile *reconcile = &copy->reconcile;
    struct kv_entry entry;

    if (!kv_read_entry(message, message->subject, copy->bucket->prefix, delivery->stream_sequence, delivery->created_us,
                       &entry))
        return CONSUMER_MORE;
    reconcile->last_read.sequence = entry.revision;
    reconcile->last_read.stored_us = entry.created_us;
    feed_batch_note(&reconcile->last_read.batch, message, entry.revision);
    if (feed_info_lacks(&copy->feed.info, entry.revision))
        return CONSUMER_MORE;
    if (reconcile->phase == RECONCILE_LOADING) {
        reconcile_receive_entry(copy, &entry);
    } else {
        struct cache_key *key = cache_find(&copy->contents.cache, entry.key, strlen(entry.key));
        if (key == NULL || key->revision < entry.revision)
            min_revision_note_newer(&copy->min_revisions, entry.key);
        if (key != NULL)
            cache_mark(&copy->contents.cache, key);
    }
    return CONSUMER_MORE;
}

/* --- Removing what the reading did not meet -------------------------------------------------------- */

/* A watch that begins may have been delivered the key before. Of many markers few are later than all before them. */
static void reconcile_note_removed_marker(struct local_copy *copy, uint64_t revision)
{
    if (reconcile_is_removing(&copy->reconcile) && revision <= copy->reconcile.removed_marker)
        return;
    copy->reconcile.removed_marker = revision;
    watch_set_note_removal(&copy->watches, revision);
}

void reconcile_remove_vanished(struct local_copy *copy, struct cache_key *key)
{
    char *name = strdup(cache_key_name(key)); /* foreign clients' keys may be longer than ours */
    struct message message = {0};
    bool was_value = cache_operation(key) == KV_PUT;
    uint64_t revision = key->revision;

    cache_remove(&copy->contents.cache, key);
    if (!was_value || name == NULL) { /* a marker that expired is no news, but to a watch that has not read it yet */
        reconcile_note_removed_marker(copy, revision);
        free(name);
        return;
    }
    copy->store->follow->watch_stats.vanished++;
    /* A watch may have begun before the feed has reached what it was delivered. */
    copy->watches.vanished_at = revision > feed_position(&copy->feed) ? revision : feed_position(&copy->feed);
    struct kv_entry entry = {.key = name,
                             .value = "",
                             .revision = local_copy_is_before_feed(copy) ? copy->reconcile.last_read.sequence
                                                                         : feed_position(&copy->feed),
                             .created_us = clock_epoch_us(),
                             .operation = KV_DELETE,
                             .message = &message,
                             .has_previous = true,
                             .previous = revision};
    local_copy_tell_listener(copy, &entry);
    watch_set_deliver_unrecorded(&copy->watches, &entry);
    free(name);
}

/* Return the revision up to which a key that the reading did not meet is gone. It has reached the feed's position. */
static uint64_t reconcile_removing_limit(const struct local_copy *copy)
{
    return local_copy_is_before_feed(copy) ? UINT64_MAX : copy->reconcile.begin_position;
}

static void reconcile_stop_removing(struct local_copy *copy)
{
    struct reconcile *reconcile = &copy->reconcile;

    jobs_remove(copy->store->jobs, &reconcile->removing);
    timer_stop(copy->store->timers, &reconcile->removing_timer);
    cache_cursor_end(&reconcile->removing_cursor);
}

static void reconcile_finish(struct local_copy *copy);

static bool run_removing(struct job *job);

static void on_removing_timer(struct timer *timer)
{
    struct local_copy *copy =
        (struct local_copy *)((char *)timer - offsetof(struct local_copy, reconcile.removing_timer));

    jobs_add(copy->store->jobs, &copy->reconcile.removing, run_removing);
}

/*
 * A purge can make a million keys vanish at once. So watches whose clients have not read what was delivered, or that
 * have begun since the check, get time to, but little: no watch begins meanwhile. Then the watches that cannot keep up
 * end, and the others continue.
 */
static bool reconcile_must_stall(struct local_copy *copy)
{
    struct reconcile *reconcile = &copy->reconcile;
    uint64_t now_ms = uv_now(copy->store->loop);

    if (copy->watches.beginning_count == 0 && watch_set_has_room(&copy->watches)) {
        reconcile->stalled_ms = 0;
        return false;
    }
    if (reconcile->stalled_ms == 0)
        reconcile->stalled_ms = now_ms;
    return now_ms - reconcile->stalled_ms < STALLED_MAX_MS;
}

static bool run_removing(struct job *job)
{
    struct local_copy *copy = (struct local_copy *)((char *)job - offsetof(struct local_copy, reconcile.removing));
    struct reconcile *reconcile = &copy->reconcile;
    struct store *store = copy->store;
    struct cache_key *key;

    for (unsigned passed = 0;; passed++) {
        if (passed % ROOM_CHECK_EVERY == 0 && reconcile_must_stall(copy)) {
            timer_start(store->timers, &reconcile->removing_timer, uv_now(store->loop) + STALL_CHECK_MS,
                        on_removing_timer);
            return false;
        }
        key = cache_cursor_next(&reconcile->removing_cursor);
        if (key == NULL)
            break;
        if (!cache_is_marked(&copy->contents.cache, key) && key->revision <= reconcile->removing_limit)
            reconcile_remove_vanished(copy, key);
        if (jobs_slice_is_over(store->jobs))
            return true;
    }
    reconcile_stop_removing(copy);
    reconcile_finish(copy);
    return false;
}

/* Remove keys that the reading did not meet, a slice at a time; then the reading is finished. */
static void reconcile_start_removing(struct local_copy *copy)
{
    struct reconcile *reconcile = &copy->reconcile;

    reconcile->phase =
        reconcile->phase == RECONCILE_LOADING ? RECONCILE_REMOVING_AFTER_LOAD : RECONCILE_REMOVING_AFTER_CHECK;
    reconcile->removing_limit = reconcile_removing_limit(copy);
    reconcile->removed_marker = 0;
    reconcile->stalled_ms = 0;
    cache_cursor_begin(&copy->contents.cache, &reconcile->removing_cursor);
    jobs_add(copy->store->jobs, &reconcile->removing, run_removing);
}

/* --- The reading's end ----------------------------------------------------------------------------- */

/* Return whether the load is to be repeated, to deliver what differs. */
static bool reconcile_finds_difference(struct local_copy *copy)
{
    struct reconcile *reconcile = &copy->reconcile;

    if (reconcile->phase != RECONCILE_LOADING || !reconcile_may_be_misled(copy))
        return false;
    bool is_found = copy->contents.cache.doubtful > 0 || (reconcile->has_news && !reconcile->is_confirmed);
    reconcile->is_confirmed |= is_found;
    return is_found;
}

static void reconcile_finish_load(struct local_copy *copy)
{
    struct reconcile *reconcile = &copy->reconcile;

    reconcile->is_confirmed = false;
    contents_note_read(&copy->contents, !reconcile->wants_load); /* values may be wanted since it began */
    if (reconcile_is_comparing(reconcile))
        reconcile->must_check = reconcile->wants_check;
    reconcile->purpose = RECONCILE_TO_FILL;
    if (local_copy_is_before_feed(copy))
        feed_go(&copy->feed, &reconcile->last_read);
    contents_complete(copy);
}

/* All was read, and what is gone was removed. */
static void reconcile_finish(struct local_copy *copy)
{
    struct reconcile *reconcile = &copy->reconcile;
    bool is_load = reconcile_is_loading(reconcile);

    reconcile->phase = RECONCILE_IDLE;
    /* Some of what it met may be later than what the feed has delivered: also of keys whose older entries were purged.
     */
    min_revision_raise_all(&copy->min_revisions, reconcile->last_read.sequence);
    if (is_load) {
        reconcile_finish_load(copy);
    } else {
        reconcile->must_check = false;
        min_revision_trust_all(&copy->min_revisions);
        local_copy_wake_waits(copy);
    }
    local_copy_begin_watches(copy);
    reconcile_load_if_wanted(copy);
}

static void reconcile_free_subjects(struct reconcile *reconcile)
{
    filter_free_subjects(reconcile->subjects, reconcile->subject_count);
    reconcile->subjects = NULL;
    reconcile->subject_count = 0;
}

static void on_reading_done(void *arg, const struct error *error)
{
    struct local_copy *copy = arg;
    struct reconcile *reconcile = &copy->reconcile;
    bool is_load = reconcile_is_loading(reconcile);

    bool is_gone = error != NULL && error->code == ERROR_BUCKET_NOT_FOUND;

    reconcile_free_subjects(reconcile);
    if (error != NULL && !is_gone && reconcile->error.code != error->code)
        log_warning("bucket %s: reading all keys failed: %s; trying again", copy->name, error->message);
    memset(&reconcile->error, 0, sizeof(reconcile->error));
    if (error != NULL)
        error_set(&reconcile->error, error->code, "%s", error->message);
    if (error == NULL && !reconcile_finds_difference(copy)) {
        reconcile_start_removing(copy);
        return;
    }
    reconcile->phase = RECONCILE_IDLE;
    reconcile->wants_load |= is_load;
    reconcile->wants_check |= !is_load;
    if (is_gone)
        feed_look(&copy->feed);
    else if (reconcile->error.code == ERROR_PERMISSION_DENIED)
        watch_set_begin(&copy->watches); /* the watches that have not begun end with this error */
}

static const struct consumer_ops reading_ops = {on_reading_restart, on_reading_message, on_reading_done};

/* --- Starting a reading ---------------------------------------------------------------------------- */

/* Make the subjects of all keys, or of those that watches were delivered. False: out of memory. */
static bool reconcile_make_subjects(struct local_copy *copy, bool of_all)
{
    struct reconcile *reconcile = &copy->reconcile;
    const char *filters[WATCH_FILTERS_MAX];
    struct watch_member *member;
    size_t count = 0;

    filters[0] = ">";
    DL_FOREACH2(copy->watches.members, member, next)
    {
        for (size_t i = 0; !of_all && i < member->filter_count; i++) {
            if (count == WATCH_FILTERS_MAX)
                count = filter_reduce(filters, count, CHECK_FILTERS_MAX);
            if (count < WATCH_FILTERS_MAX)
                filters[count++] = member->filters[i];
        }
    }
    count = of_all || count == 0 ? 1 : filter_reduce(filters, count, CHECK_FILTERS_MAX);
    reconcile->subjects = filter_make_subjects(copy->bucket->prefix, filters, count);
    reconcile->subject_count = reconcile->subjects != NULL ? count : 0;
    return reconcile->subjects != NULL;
}

static void reconcile_start_reading(struct local_copy *copy, bool is_load)
{
    struct reconcile *reconcile = &copy->reconcile;
    bool of_all = is_load || contents_have_values(&copy->contents) || copy->watches.filter_count > FILTERS_WORTHWHILE;

    if (!reconcile_make_subjects(copy, of_all)) {
        reconcile->wants_load |= is_load;
        return;
    }
    struct consumer_scope scope = {.stream = copy->bucket->stream,
                                   .filters = reconcile->subjects,
                                   .filter_count = reconcile->subject_count,
                                   .last_per_subject = !(is_load && reconcile->purpose == RECONCILE_TO_DELIVER),
                                   .leaves_place = true,
                                   .headers_only = !is_load};
    reconcile->phase = is_load ? RECONCILE_LOADING : RECONCILE_CHECKING;
    if (!is_load && copy->feed.info.replicas <= 1) /* a follower that is behind meets nothing newer */
        min_revision_begin_check(&copy->min_revisions);
    reconcile->reading.request.limit = &copy->store->follow->creations;
    consumer_read(&copy->store->jetstream, &reconcile->reading, &scope, UINT64_MAX, &reading_ops, copy);
}

void reconcile_load(struct local_copy *copy)
{
    copy->reconcile.wants_load = false;
    reconcile_start_reading(copy, true);
}

void reconcile_stop(struct local_copy *copy)
{
    struct reconcile *reconcile = &copy->reconcile;

    if (reconcile->phase == RECONCILE_ASKING)
        jetstream_cancel(&reconcile->question);
    else
        consumer_stop(&reconcile->reading);
    reconcile_stop_removing(copy);
    reconcile->phase = RECONCILE_IDLE;
    reconcile_free_subjects(reconcile);
}

void reconcile_begin(struct local_copy *copy, bool is_recreated)
{
    if (is_recreated)
        reconcile_stop(copy);
    copy->reconcile.purpose = is_recreated ? RECONCILE_TO_DELIVER : RECONCILE_TO_FILL;
}

void reconcile_compare(struct local_copy *copy, int64_t question_us)
{
    reconcile_stop(copy);
    copy->reconcile.purpose = RECONCILE_TO_COMPARE;
    copy->reconcile.question_us = question_us;
    copy->reconcile.is_confirmed = false;
    copy->reconcile.wants_load = true;
}

/* --- Checks ---------------------------------------------------------------------------------------- */

/* Return whether the stream's numbers show that the copy may have keys which the stream does not have. */
static bool reconcile_is_worthwhile(const struct local_copy *copy, const struct feed_info *info, bool is_forced)
{
    const struct reconcile *reconcile = &copy->reconcile;
    bool have_values = contents_have_values(&copy->contents);
    uint64_t known = copy->contents.cache.count;
    bool has_less = have_values ? info->subjects < known : info->subjects < reconcile->checked_subjects;
    bool may_have_expired = !have_values && info->expires_silently && known <= CHECK_KEYS_MAX;
    bool has_doubts = min_revision_has_open_keys(&copy->min_revisions);
    /* Each key of the stream was delivered. If it has as many keys as the copy, they are the same ones. */
    bool is_as_known = copy->contents.state == CONTENTS_COMPLETE && info->last_sequence <= feed_position(&copy->feed) &&
                       info->subjects == known;

    if (known == 0 || copy->contents.state == CONTENTS_UNREAD)
        return false;
    return has_less || may_have_expired || has_doubts || (!reconcile_is_trusted(reconcile) && !is_as_known) ||
           (is_forced && !have_values);
}

/* The bucket is empty, and so is the copy: nothing is to come of what was skipped. */
static void reconcile_trust_empty(struct local_copy *copy, const struct feed_info *info)
{
    bool is_empty = info->subjects == 0 && copy->contents.cache.count == 0 && info->replicas <= 1;

    if (!is_empty || copy->contents.state != CONTENTS_COMPLETE || info->last_sequence > feed_position(&copy->feed))
        return;
    min_revision_begin_check(&copy->min_revisions);
    min_revision_trust_all(&copy->min_revisions);
    local_copy_wake_waits(copy);
}

static void on_check_info(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct local_copy *copy = arg;
    struct reconcile *reconcile = &copy->reconcile;
    struct feed_info info = {0};
    bool is_forced = reconcile->wants_check;

    (void)error;
    reconcile->phase = RECONCILE_IDLE;
    reconcile->checked_ms = uv_now(copy->store->loop);
    bool is_gone = answer != NULL ? !feed_is_of(&copy->feed, answer) : err_code == JETSTREAM_STREAM_NOT_FOUND;
    if (is_gone)
        feed_look(&copy->feed);
    if (is_gone || answer == NULL || !feed_is_live(&copy->feed))
        return;
    feed_read_info(answer, &info);
    copy->feed.info = info;
    feed_note_last(&copy->feed, &info);
    reconcile->wants_check = false;
    reconcile_trust_empty(copy, &info);
    bool is_worthwhile = reconcile_is_worthwhile(copy, &info, is_forced);
    reconcile->checked_subjects = info.subjects;
    if (is_worthwhile)
        reconcile_start_reading(copy, false);
    else
        reconcile->must_check = false;
}

static void reconcile_check(struct local_copy *copy)
{
    struct store *store = copy->store;

    copy->reconcile.phase = RECONCILE_ASKING;
    jetstream_call(&store->jetstream, &copy->reconcile.question, "STREAM.INFO", copy->bucket->stream, NULL,
                   uv_now(store->loop) + store->conf->calls.max_timeout_ms, on_check_info, copy);
}

/*
 * Return whether a check should wait for watches that begin: they would miss deletions that have no message. A client
 * that does not read, or reads a little now and then, must not prevent all checks.
 */
static bool reconcile_must_await_beginnings(struct local_copy *copy)
{
    struct reconcile *reconcile = &copy->reconcile;
    uint64_t now_ms = uv_now(copy->store->loop);

    if (copy->watches.beginning_count == 0) {
        reconcile->awaits_ms = 0;
        return false;
    }
    if (reconcile->awaits_ms == 0)
        reconcile->awaits_ms = now_ms;
    uint64_t since_ms = now_ms > STANDSTILL_MAX_MS ? now_ms - STANDSTILL_MAX_MS : 0;
    /* Until a check that must be made, reads and snapshots of the bucket wait or go to NATS. */
    unsigned max_ms = reconcile->must_check ? STANDSTILL_MAX_MS : BEGINNINGS_MAX_MS;
    return now_ms - reconcile->awaits_ms < max_ms && watch_set_begins(&copy->watches, since_ms);
}

void reconcile_check_if_due(struct local_copy *copy)
{
    struct reconcile *reconcile = &copy->reconcile;
    uint64_t age_ms = uv_now(copy->store->loop) - reconcile->checked_ms;
    bool is_due = reconcile->wants_check || age_ms >= copy->store->conf->watches.reconcile_interval_ms;

    if (!is_due || !reconcile_is_idle(reconcile) || !feed_is_live(&copy->feed) || reconcile_must_await_beginnings(copy))
        return;
    reconcile->awaits_ms = 0;
    reconcile_check(copy);
}

void reconcile_distrust(struct local_copy *copy)
{
    struct reconcile *reconcile = &copy->reconcile;

    reconcile->must_check = true;
    reconcile->wants_check = true;
    /* It may have met what is gone by now. */
    if (reconcile->phase == RECONCILE_ASKING || reconcile->phase == RECONCILE_CHECKING ||
        reconcile->phase == RECONCILE_REMOVING_AFTER_CHECK)
        reconcile_stop(copy);
    reconcile_check_if_due(copy);
}

bool reconcile_load_if_wanted(struct local_copy *copy)
{
    const struct reconcile *reconcile = &copy->reconcile;
    bool may_load = local_copy_is_before_feed(copy) || feed_is_live(&copy->feed);

    if (!reconcile->wants_load || !reconcile_is_idle(reconcile) || !may_load)
        return false;
    reconcile_load(copy);
    return true;
}

void reconcile_tick(struct local_copy *copy)
{
    if (!reconcile_load_if_wanted(copy))
        reconcile_check_if_due(copy);
}
