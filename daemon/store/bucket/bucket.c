#include "daemon/store/bucket/bucket.h"

#include "daemon/base/clock.h"
#include "daemon/base/table.h"
#include "daemon/store/bucket/settings.h"
#include "daemon/store/journal.h"
#include "daemon/store/observe.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Look-ups that are at NATS at a time. */
#define LOOK_UPS_MAX 32u

/* Number of buckets beyond which idle ones are dropped. Names that are only looked up do not count. */
#define BUCKETS_MAX 10000u

/* Number of entries that are looked at for each new bucket. */
#define LOOKED_AT_MAX 16u

enum bucket_look_up {
    BUCKET_LOOK_UP_NONE,
    BUCKET_LOOK_UP_RUNS,
    BUCKET_LOOK_UP_STALE /* it runs, and the bucket was forgotten meanwhile: it is looked up again */
};

/* While a change of the settings may still come, a look-up is trusted for this time. */
#define DOUBTFUL_TTL_MS 1000u

/* What is known of one name: a bucket, or a look-up that runs, or both while the bucket is looked up again. */
struct bucket_entry {
    UT_hash_handle hh;
    struct store *store;
    struct bucket *bucket; /* as it was looked up last; NULL: it was not */
    uint64_t looked_up_ms;
    uint64_t doubtful_until_ms; /* until then, its settings may change at any time */
    enum bucket_look_up look_up;
    bool is_answering;    /* a caller is being answered now, and may open the bucket again */
    bool is_forgotten;    /* bucket is no longer used, except for what it shares with the next one */
    struct error failure; /* of the look-up that has ended, for callers that still wait; code ERROR_NONE: none */
    struct job answering; /* answers the callers that waited for it */
    struct bucket_wait *last_waited; /* the last of them */
    struct jetstream_call call;
    struct bucket_wait *waiting;
    char name[KV_BUCKET_LENGTH_MAX + 1];
};

struct bucket_table {
    struct bucket_entry *by_name;  /* uthash */
    unsigned count;                /* entries with a bucket */
    bool is_ending;                /* all waiters are being answered */
    struct request_limit look_ups; /* at NATS at a time */
    const struct bucket_attachment_ops *attachment_ops;
    uint64_t removals;            /* see bucket_note_removal */
    uint64_t doubtful_removal_on; /* the connection on which a removal may still come; 0: none may */
};

/* --- Handles --------------------------------------------------------------------------------------- */

/* One block: the bucket and its strings. */
struct bucket_memory {
    struct bucket bucket;
    char name[KV_BUCKET_LENGTH_MAX + 1];
    char origin[KV_STREAM_BYTES];
    char stream[KV_STREAM_BYTES];
    char prefix[KV_PREFIX_BYTES];
    char put_prefix[KV_PREFIX_BYTES + 256];
};

static void bucket_set_prefix(char *prefix, size_t size, const char *api_prefix, const char *stream)
{
    if (strncmp(stream, "KV_", 3) == 0)
        stream += 3;
    snprintf(prefix, size, "%s%s$KV.%s.", api_prefix != NULL ? api_prefix : "", api_prefix != NULL ? "." : "", stream);
}

/*
 * A mirror stores the messages of its origin under the origin's subjects. It takes no writes: they go to the origin.
 * The subjects of another JetStream domain are prefixed with that domain's API prefix.
 */
static void bucket_set_prefixes(struct bucket_memory *memory, const struct store *store, const char *name,
                                json_t *mirror)
{
    const char *origin = json_string_value(json_object_get(mirror, "name"));
    const char *api = json_string_value(json_object_get(json_object_get(mirror, "external"), "api"));

    if (origin == NULL)
        origin = name;
    snprintf(memory->origin, sizeof(memory->origin), "%s", strncmp(origin, "KV_", 3) == 0 ? origin + 3 : origin);
    if (api == NULL || api[0] == '\0')
        api = store->conf->nats.domain != NULL ? store->jetstream.prefix : NULL;
    bucket_set_prefix(memory->prefix, sizeof(memory->prefix), NULL, origin);
    bucket_set_prefix(memory->put_prefix, sizeof(memory->put_prefix), api, origin);
}

/* What the structs of one bucket share. It outlives a look-up. */
struct bucket_shared {
    unsigned references;
    struct stream_state stream;
    const struct bucket_attachment_ops *ops; /* NULL: nothing is attached */
    void *attachment;
};

/* --- The stream ------------------------------------------------------------------------------------ */

static uint64_t bucket_present_keeper(const struct store *store, const struct bucket *bucket)
{
    return bucket->is_clustered ? bucket->keeper : stream_server_keeper(store, bucket->leader);
}

struct stream_state bucket_stream(const struct store *store, const struct bucket *bucket)
{
    struct stream_state stream = bucket->shared->stream;

    stream.keeper = bucket_present_keeper(store, bucket);
    stream.removals = store->buckets->removals;
    return stream;
}

void bucket_note_sequence(const struct store *store, struct bucket *bucket, uint64_t sequence)
{
    stream_note_sequence(&bucket->shared->stream, sequence, bucket_present_keeper(store, bucket));
}

uint64_t bucket_keeper(const struct store *store, const struct bucket *bucket)
{
    return bucket->is_clustered ? 0 : stream_server_keeper(store, bucket->leader);
}

void bucket_note_removal(struct store *store, bool is_in_doubt)
{
    store->buckets->removals++;
    journal_note_removal(store->journal, clock_boot_ms());
    if (is_in_doubt)
        store->buckets->doubtful_removal_on = connection_number(store->connection);
}

bool bucket_has_removed_since(const struct store *store, uint64_t removals, uint64_t connection)
{
    return store->buckets->removals != removals || store->buckets->doubtful_removal_on >= connection;
}

/* info: an answer of STREAM.INFO. An unclustered server names a leader and no cluster. */
static struct bucket *bucket_make(struct store *store, const char *name, json_t *info)
{
    json_t *config = json_object_get(info, "config"), *cluster = json_object_get(info, "cluster");
    struct bucket_memory *memory = calloc(1, sizeof(*memory));

    if (memory == NULL)
        return NULL;
    struct bucket *bucket = &memory->bucket;
    snprintf(memory->name, sizeof(memory->name), "%s", name);
    snprintf(memory->stream, sizeof(memory->stream), "KV_%s", name);
    bucket_set_prefixes(memory, store, name, json_object_get(config, "mirror"));
    bucket->name = memory->name;
    bucket->origin = memory->origin;
    bucket->stream = memory->stream;
    bucket->prefix = memory->prefix;
    bucket->put_prefix = memory->put_prefix;
    bucket->history = (unsigned)json_integer_value(json_object_get(config, "max_msgs_per_subject"));
    bucket->replicas = (unsigned)json_integer_value(json_object_get(config, "num_replicas"));
    bucket->allows_ttl = json_is_true(json_object_get(config, "allow_msg_ttl"));
    bucket->allows_atomic = json_is_true(json_object_get(config, "allow_atomic"));
    bucket->allows_direct =
        json_is_true(json_object_get(config, "allow_direct")) || json_is_true(json_object_get(config, "mirror_direct"));
    bucket->is_mirror = json_is_object(json_object_get(config, "mirror"));
    bucket->is_exclusive = store->conf->nats.mode == CONF_NATS_EMBEDDED && !bucket_config_has_origin(config);
    bucket->is_clustered = !json_is_object(cluster) || json_object_get(cluster, "name") != NULL;
    bucket->max_value_size = bucket_config_max_value_size(config);
    bucket->marker_ttl_s = bucket_config_marker_ttl(config);
    bucket->max_age_ms = (uint64_t)json_integer_value(json_object_get(config, "max_age")) / 1000000u;
    snprintf(bucket->leader, sizeof(bucket->leader), "%s", stream_leader(info));
    bucket->references = 1;
    return bucket;
}

static struct bucket_shared *bucket_shared_new(struct store *store)
{
    const struct bucket_attachment_ops *ops = store->buckets->attachment_ops;
    struct bucket_shared *shared = calloc(1, sizeof(*shared));
    void *attachment = shared != NULL && ops != NULL ? ops->make(store) : NULL;

    if (shared != NULL && ops != NULL && attachment == NULL) {
        free(shared);
        return NULL;
    }
    if (shared != NULL)
        *shared = (struct bucket_shared){.references = 1, .ops = ops, .attachment = attachment};
    return shared;
}

static void bucket_shared_release(struct bucket_shared *shared)
{
    assert(shared->references > 0);
    if (--shared->references > 0)
        return;
    if (shared->ops != NULL)
        shared->ops->release(shared->attachment);
    free(shared);
}

/* Return whether something beside the table uses it: a former struct of the bucket, or the attachment. */
static bool bucket_shared_is_in_use(const struct bucket_shared *shared)
{
    return shared->references > 1 || (shared->ops != NULL && shared->ops->is_in_use(shared->attachment));
}

struct bucket *bucket_retain(struct bucket *bucket)
{
    bucket->references++;
    return bucket;
}

void bucket_release(struct bucket *bucket)
{
    assert(bucket->references > 0);
    if (--bucket->references > 0)
        return;
    if (bucket->shared != NULL)
        bucket_shared_release(bucket->shared);
    free(bucket); /* the first member of its block */
}

void *bucket_attachment(const struct bucket *bucket)
{
    return bucket->shared->attachment;
}

/* --- Waiting --------------------------------------------------------------------------------------- */

static void bucket_remove_wait(struct bucket_wait *wait)
{
    struct bucket_entry *entry = wait->entry;

    /* If it is the last waiter that is being answered, the waiter before it becomes the last. */
    if (entry->last_waited == wait)
        entry->last_waited = entry->waiting == wait ? NULL : wait->previous;
    DL_DELETE2(wait->entry->waiting, wait, previous, next);
    wait->entry = NULL;
    timer_stop(wait->store->timers, &wait->timer);
    if (wait->caller != NULL)
        arena_note_answered(wait->caller, uv_now(wait->store->loop));
}

static void bucket_set_late_error(const struct bucket_wait *wait, struct error *error)
{
    error_set(error, ERROR_UNAVAILABLE, "timed out looking up the bucket: %s; nothing was changed, try again later",
              request_trouble_text(&wait->entry->call.request));
}

/* --- Looking up ------------------------------------------------------------------------------------ */

static void bucket_drop_entry(struct bucket_entry *entry)
{
    HASH_DEL(entry->store->buckets->by_name, entry);
    entry->store->buckets->count -= entry->bucket != NULL;
    jobs_remove(entry->store->jobs, &entry->answering);
    if (entry->bucket != NULL)
        bucket_release(entry->bucket);
    free(entry);
}

/*
 * Give up the look-up of an unknown name if nobody waits for it. Otherwise clients that come and go could leave any
 * number of look-ups behind. That of a bucket in doubt goes on.
 */
static void bucket_drop_unwanted_entry(struct bucket_entry *entry)
{
    bool is_asked_for = entry->call.request.state != REQUEST_IDLE;
    bool is_doubtful = entry->doubtful_until_ms > uv_now(entry->store->loop);

    if (entry->waiting != NULL || entry->bucket != NULL || !is_asked_for || is_doubtful ||
        entry->store->buckets->is_ending)
        return;
    jetstream_cancel(&entry->call);
    bucket_drop_entry(entry);
}

static void on_bucket_wait_over(struct timer *timer)
{
    struct bucket_wait *wait = (struct bucket_wait *)((char *)timer - offsetof(struct bucket_wait, timer));
    struct bucket_entry *entry = wait->entry;
    struct error error;

    bucket_set_late_error(wait, &error);
    bucket_remove_wait(wait);
    if (entry->call.request.state != REQUEST_SENT)
        bucket_drop_unwanted_entry(entry);
    wait->ready(wait->arg, NULL, &error);
}

static void bucket_start_look_up(struct bucket_entry *entry);

static void bucket_finish_look_up(struct bucket_entry *entry)
{
    bool is_stale = entry->look_up == BUCKET_LOOK_UP_STALE;

    entry->look_up = BUCKET_LOOK_UP_NONE;
    if (entry->waiting != NULL)
        bucket_start_look_up(entry);
    else if (entry->bucket == NULL)
        bucket_drop_entry(entry);
    else
        entry->is_forgotten = entry->is_forgotten || is_stale;
}

/*
 * Answer the waiters of the look-up that has ended, a slice at a time. Later ones wait for the next look-up.
 * The look-up counts as running until all are answered, because a caller may forget the bucket, or open it again.
 */
static bool bucket_run_answering(struct job *job)
{
    struct bucket_entry *entry = (struct bucket_entry *)((char *)job - offsetof(struct bucket_entry, answering));
    bool has_failed = entry->failure.code != ERROR_NONE;

    while (entry->last_waited != NULL) {
        struct bucket_wait *wait = entry->waiting;
        bucket_remove_wait(wait);
        entry->is_answering = !has_failed;
        wait->ready(wait->arg, has_failed ? NULL : bucket_retain(entry->bucket), has_failed ? &entry->failure : NULL);
        entry->is_answering = false;
        if (entry->last_waited != NULL && jobs_slice_is_over(entry->store->jobs))
            return true;
    }
    bucket_finish_look_up(entry);
    return false;
}

static void bucket_answer_waits(struct bucket_entry *entry)
{
    entry->last_waited = entry->waiting != NULL ? entry->waiting->previous : NULL; /* utlist: the head's is the tail */
    if (bucket_run_answering(&entry->answering))
        jobs_add_shared(entry->store->jobs, &entry->answering, bucket_run_answering);
}

/* Give the new struct what it shares with the former one (NULL: there is none). False: out of memory. */
static bool bucket_share(struct bucket_entry *entry, const struct bucket *old, json_t *info)
{
    struct bucket *bucket = entry->bucket;
    struct stream_state stream;

    if (old != NULL)
        old->shared->references++;
    bucket->shared = old != NULL ? old->shared : bucket_shared_new(entry->store);
    if (bucket->shared == NULL)
        return false;
    stream_read_info(entry->store, info, &stream);
    bucket->keeper = stream.keeper;
    bucket->shared->stream = stream; /* also if its last sequence is lower: the stream was set back */
    return true;
}

/* Return whether nobody uses the bucket. */
static bool bucket_entry_is_idle(const struct bucket_entry *entry)
{
    return entry->look_up == BUCKET_LOOK_UP_NONE && entry->waiting == NULL && entry->bucket->references == 1 &&
           !bucket_shared_is_in_use(entry->bucket->shared);
}

/*
 * Make room: drop idle buckets, the oldest first (uthash keeps the order of insertion). A bucket in use stays, because
 * its attachment knows which keys are in doubt and which writes wait. It becomes the newest, so that the next call
 * looks at others: if thousands are in use, each new one would look at all of them.
 */
static void bucket_evict_idle(struct store *store)
{
    struct bucket_table *table = store->buckets;

    for (unsigned i = 0; i < LOOKED_AT_MAX && table->count > BUCKETS_MAX; i++) {
        struct bucket_entry *entry = table->by_name;
        if (bucket_entry_is_idle(entry)) {
            bucket_drop_entry(entry);
        } else {
            HASH_DEL(table->by_name, entry);
            HASH_ADD_STR(table->by_name, name, entry);
        }
    }
}

static void on_bucket_looked_up(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct bucket_entry *entry = arg;
    struct bucket *old = entry->bucket;
    struct bucket_table *table = entry->store->buckets;

    (void)err_code;
    if (entry->look_up == BUCKET_LOOK_UP_STALE && entry->waiting != NULL) {
        bucket_start_look_up(entry);
        return;
    }
    table->count -= old != NULL;
    entry->bucket = NULL;
    entry->is_forgotten = false;
    entry->failure.code = ERROR_NONE;
    if (answer != NULL) {
        entry->bucket = bucket_make(entry->store, entry->name, answer);
        if (entry->bucket != NULL && !bucket_share(entry, old, answer)) {
            bucket_release(entry->bucket);
            entry->bucket = NULL;
        }
        entry->looked_up_ms = uv_now(entry->store->loop);
        if (entry->bucket == NULL)
            error_set(&entry->failure, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        else
            observe_opened(entry->store, entry->name, entry->bucket->marker_ttl_s);
    } else if (error->code == ERROR_BUCKET_NOT_FOUND) {
        error_set(&entry->failure, ERROR_BUCKET_NOT_FOUND, "bucket \"%s\" does not exist; bucket.create creates it",
                  entry->name);
    } else {
        entry->failure = *error;
        entry->bucket = old; /* the look-up failed, so the bucket may still be right */
        entry->is_forgotten = true;
        old = NULL;
    }
    if (old != NULL)
        bucket_release(old);
    table->count += entry->bucket != NULL;
    if (table->count > BUCKETS_MAX)
        bucket_evict_idle(entry->store);
    bucket_answer_waits(entry);
}

/*
 * Each caller that waits has its own deadline, so the look-up itself may take as long as any call: a caller that tries
 * again finds it still at NATS, or answered. If it is only queued when the last caller's time is over, it is given up.
 */
static void bucket_start_look_up(struct bucket_entry *entry)
{
    struct store *store = entry->store;
    char stream[KV_STREAM_BYTES];

    entry->look_up = BUCKET_LOOK_UP_RUNS;
    snprintf(stream, sizeof(stream), "KV_%s", entry->name);
    entry->call.request.limit = &store->buckets->look_ups;
    entry->call.request.owner = entry->waiting != NULL ? entry->waiting->owner : 0;
    jetstream_call(&store->jetstream, &entry->call, "STREAM.INFO", stream, NULL,
                   uv_now(store->loop) + store->conf->calls.max_timeout_ms, on_bucket_looked_up, entry);
}

static struct bucket_entry *bucket_find_entry(const struct store *store, const char *name)
{
    struct bucket_entry *entry = NULL;

    HASH_FIND_STR(store->buckets->by_name, name, entry);
    return entry;
}

const struct bucket *bucket_find_known(const struct store *store, const char *name)
{
    const struct bucket_entry *entry = bucket_find_entry(store, name);

    return entry != NULL && !entry->is_forgotten ? entry->bucket : NULL;
}

static struct bucket_entry *bucket_add_entry(struct store *store, const char *name)
{
    struct bucket_entry *entry = calloc(1, sizeof(*entry));

    if (entry == NULL)
        return NULL;
    entry->store = store;
    snprintf(entry->name, sizeof(entry->name), "%s", name);
    HASH_ADD_STR(store->buckets->by_name, name, entry);
    return entry;
}

static bool bucket_entry_is_fresh(const struct bucket_entry *entry)
{
    uint64_t now_ms = uv_now(entry->store->loop), ttl_ms = (uint64_t)entry->store->conf->buckets.metadata_ttl_s * 1000;

    if (entry->doubtful_until_ms > now_ms)
        ttl_ms = DOUBTFUL_TTL_MS;
    bool is_over =
        entry->look_up == BUCKET_LOOK_UP_NONE || (entry->look_up == BUCKET_LOOK_UP_RUNS && entry->is_answering);
    return entry->bucket != NULL && !entry->is_forgotten && is_over && now_ms - entry->looked_up_ms < ttl_ms;
}

void bucket_open(struct store *store, struct bucket_wait *wait, const char *name, uint64_t owner, uint64_t deadline_ms,
                 bucket_ready_fn *ready, void *arg)
{
    struct bucket_entry *entry = bucket_find_entry(store, name);
    struct error error;

    if (entry == NULL && (entry = bucket_add_entry(store, name)) == NULL) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        ready(arg, NULL, &error);
        return;
    }
    if (bucket_entry_is_fresh(entry)) {
        ready(arg, bucket_retain(entry->bucket), NULL);
        return;
    }
    wait->store = store;
    wait->owner = owner;
    wait->ready = ready;
    wait->arg = arg;
    wait->entry = entry;
    if (wait->caller != NULL)
        arena_note_sent(wait->caller, uv_now(store->loop));
    DL_APPEND2(entry->waiting, wait, previous, next);
    timer_start(store->timers, &wait->timer, deadline_ms, on_bucket_wait_over);
    if (entry->look_up == BUCKET_LOOK_UP_NONE)
        bucket_start_look_up(entry);
}

void bucket_wait_cancel(struct bucket_wait *wait)
{
    struct bucket_entry *entry = wait->entry;

    if (entry == NULL)
        return;
    bucket_remove_wait(wait);
    bucket_drop_unwanted_entry(entry);
}

void bucket_each(const struct store *store, void (*visit)(void *arg, const struct bucket *bucket), void *arg)
{
    for (const struct bucket_entry *entry = store->buckets->by_name; entry != NULL; entry = entry->hh.next) {
        if (entry->bucket != NULL)
            visit(arg, entry->bucket);
    }
}

void bucket_forget(struct store *store, const char *name)
{
    struct bucket_entry *entry = bucket_find_entry(store, name);

    if (entry == NULL)
        return;
    if (entry->look_up != BUCKET_LOOK_UP_NONE)
        entry->look_up = BUCKET_LOOK_UP_STALE;
    else
        entry->is_forgotten = true;
}

void bucket_doubt(struct store *store, const char *name)
{
    struct bucket_entry *entry = bucket_find_entry(store, name);

    bucket_forget(store, name);
    if (entry == NULL) {
        entry = bucket_add_entry(store, name);
        if (entry == NULL)
            return; /* nor is memory left for a look-up that could be stale */
        bucket_start_look_up(entry);
    }
    entry->doubtful_until_ms = uv_now(store->loop) + (uint64_t)store->conf->buckets.metadata_ttl_s * 1000;
}

size_t bucket_fail_waiting(struct store *store)
{
    struct bucket_entry *entry, *next;
    struct error error;
    size_t count = 0;

    store->buckets->is_ending = true;
    error_set(&error, ERROR_UNAVAILABLE, "the daemon is shutting down");
    HASH_ITER(hh, store->buckets->by_name, entry, next)
    {
        while (entry->waiting != NULL) {
            struct bucket_wait *wait = entry->waiting;
            bucket_remove_wait(wait);
            wait->ready(wait->arg, NULL, &error);
            count++;
        }
    }
    return count;
}

int bucket_init_table(struct store *store)
{
    store->buckets = calloc(1, sizeof(*store->buckets));
    if (store->buckets == NULL)
        return -1;
    store->buckets->look_ups.max = LOOK_UPS_MAX;
    store->buckets->look_ups.is_of_many_streams = true;
    return 0;
}

void bucket_attach(struct store *store, const struct bucket_attachment_ops *ops)
{
    store->buckets->attachment_ops = ops;
}

void bucket_free_table(struct store *store)
{
    struct bucket_entry *entry, *next;

    HASH_ITER(hh, store->buckets->by_name, entry, next)
    {
        if (entry->look_up != BUCKET_LOOK_UP_NONE)
            jetstream_cancel(&entry->call);
        bucket_drop_entry(entry);
    }
    free(store->buckets);
    store->buckets = NULL;
}
