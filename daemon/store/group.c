#include "daemon/store/group.h"

#include "daemon/store/batch.h"
#include "daemon/store/pace.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* What a batch takes before one was measured: 3.1 ms of fixed cost on one server, and its messages. */
#define BATCH_BASE_US 3500.0
#define BATCH_EACH_US 12.0
/* Where batches have become too slow to be sent, none tells when they are quicker again: the measure is forgotten. */
#define BATCH_FORGETTING 0.02

/*
 * While batches are sent, few writes go alone, and the pace of those says little: a lone write's latency is mostly the
 * way to the server and back. So now and then some that wait are sent one after the other, to measure.
 */
#define PROBE_WRITES   32u
#define PROBE_EVERY_MS 1000u
/* A batch must be clearly better: the measure is rough, and a batch makes the first of its writes wait for the last. */
#define BATCH_ADVANTAGE 1.5

/* Writes that are messages of their own and under way: a tenth of a second of a server that syncs each. */
#define WRITES_MAX 1024u

/* Bytes of values in one batch. */
#define BATCH_BYTES_MAX (8u * 1024u * 1024u)

/* A write with less time than this goes alone: in a batch it would end the others' tries with its own. */
#define DEADLINE_MIN_MS 1000u
/* In one batch deadlines differ by no more than this, since the first one ends the tries of all. */
#define DEADLINE_SPREAD_MS 1000u

/* After a condition failed a whole batch, conditional writes go alone for this long. */
#define CONDITION_PAUSE_MS 1000u

/* How long a batch waits at most for writes that are about to come, and which share of the usual company is enough. */
#define GATHER_MS      2u
#define GATHERED_SHARE 0.9
/* What the gathering costs, about: on a busy machine single writes look slow too, and batches must not be taken for the
 * cure. */
#define GATHER_US 1500.0

struct group {
    struct store *store;
    struct request_limit writes, batches;
    unsigned references;
    struct group *next_dirty;
    struct group *next_gathering;
    bool is_dirty;
    bool cannot_batch; /* the server has said so */
    bool is_gathering; /* writes wait for the others that are about to come */
    bool has_gathered; /* for as long as they may */
    bool is_listed;    /* among those whom the timer tells */
    struct write *waiting;
    size_t waiting_count;
    size_t alone;    /* writes in flight that were sent alone */
    size_t in_batch; /* writes in the batch that is in flight; 0: none is */

    /* Measured. */
    struct pace pace;            /* of single writes */
    struct quickest batch_times; /* what they took without their messages */
    double batch_base_us;        /* what the next one is expected to take without its messages */
    double concurrency;          /* writes that wait for an answer at the same time, of late */
    uint64_t conditions_alone_until_ms;
    uint64_t next_probe_ms;
    bool is_probing; /* the stretch of acks under way is for measuring */
};

struct group_batch {
    struct batch batch;
    struct group *group;
    uint64_t sent_ns;
    struct write *writes[BATCH_MESSAGES_MAX];
    struct batch_message messages[BATCH_MESSAGES_MAX];
};

/* --- Life ------------------------------------------------------------------------------------------ */

struct group *group_new(struct store *store)
{
    struct group *group = calloc(1, sizeof(*group));

    if (group == NULL)
        return NULL;
    group->store = store;
    group->references = 1;
    group->writes.max = WRITES_MAX;
    group->batches.max = BATCH_WEIGHTS_MAX;
    group->batch_base_us = BATCH_BASE_US;
    return group;
}

struct request_limit *group_writes_limit(struct group *group)
{
    return &group->writes;
}

struct request_limit *group_batches_limit(struct group *group)
{
    return &group->batches;
}

struct group *group_retain(struct group *group)
{
    group->references++;
    return group;
}

static void mark_dirty(struct group *group);

/* The moment is over for all groups that gather: one that began late in it gathers less. */
static void on_gathered(uv_timer_t *timer)
{
    struct store *store = timer->data;

    while (store->gathering_groups != NULL) {
        struct group *group = store->gathering_groups;
        store->gathering_groups = group->next_gathering;
        group->is_listed = false;
        group->has_gathered = group->is_gathering;
        group->is_gathering = false;
        mark_dirty(group);
        group_release(group);
    }
}

static void mark_dirty(struct group *group)
{
    if (group->is_dirty)
        return;
    group->is_dirty = true;
    group->next_dirty = group->store->dirty_groups;
    group->store->dirty_groups = group_retain(group);
}

void group_release(struct group *group)
{
    if (group != NULL && --group->references == 0)
        free(group);
}

/* --- Deciding -------------------------------------------------------------------------------------- */

/* Whether count writes are sooner done in a batch than one after the other. */
static bool batch_pays(const struct group *group, double count)
{
    if (group->cannot_batch || count < 2 || group->store->conf->buckets.group_commit == CONF_GROUP_COMMIT_OFF)
        return false;
    if (group->store->conf->buckets.group_commit == CONF_GROUP_COMMIT_ON)
        return true;
    return count * group->pace.write.us > BATCH_ADVANTAGE * (group->batch_base_us + GATHER_US + count * BATCH_EACH_US);
}

/* Whether no company is large enough: then the server may begin with the first of many writes at once. */
static bool never_pays(const struct group *group)
{
    if (group->store->conf->buckets.group_commit == CONF_GROUP_COMMIT_AUTO && group->pace.write.us <= 0)
        return false; /* nobody knows */
    return group->in_batch == 0 && !group->is_probing && !batch_pays(group, BATCH_MESSAGES_MAX);
}

static void note_concurrency(struct group *group)
{
    double now = (double)(group->waiting_count + group->alone + group->in_batch);

    group->concurrency = now > group->concurrency ? now : group->concurrency * 0.95 + now * 0.05;
}

/* What this turn's acks tell of the server's pace. */
static void settle_pace(struct group *group)
{
    if (group->pace.acks == 0 || !pace_settle(&group->pace, group->alone == 0, uv_hrtime()))
        return;
    group->is_probing = false;
    group->batch_base_us += (BATCH_BASE_US - group->batch_base_us) * BATCH_FORGETTING;
}

static void note_batch(struct group *group, const struct group_batch *batch)
{
    double took_us = (double)(uv_hrtime() - batch->sent_ns) / 1000.0;
    double base_us = took_us - (double)batch->batch.count * BATCH_EACH_US;

    quickest_note(&group->batch_times, base_us < 100 ? 100 : base_us);
    group->batch_base_us = group->batch_times.us;
}

/* --- Sending --------------------------------------------------------------------------------------- */

static void on_waited_too_long(struct timer *timer);

static void take_from_queue(struct group *group, struct write *write)
{
    DL_DELETE2(group->waiting, write, previous_in_group, next_in_group);
    group->waiting_count--;
    timer_stop(group->store->timers, &write->group_timer);
}

static void on_waited_too_long(struct timer *timer)
{
    struct write *write = (struct write *)((char *)timer - offsetof(struct write, group_timer));
    struct group *group = write->group;
    struct error error;

    take_from_queue(group, write);
    write->group = NULL;
    error_set(&error, ERROR_DEADLINE_EXCEEDED,
              "the writes before this one were not answered in time; nothing was written");
    error.outcome = ERROR_OUTCOME_NONE;
    write_finish(write, 0, &error);
    group_release(group);
}

static void send_alone(struct group *group, struct write *write)
{
    if (group->alone++ == 0)
        pace_begin(&group->pace, uv_hrtime());
    write_send_alone(write);
}

/* As far as a slice of the turn goes; the group comes again for the rest. */
static void send_all_alone(struct group *group)
{
    while (group->waiting != NULL) {
        struct write *write = group->waiting;
        take_from_queue(group, write);
        send_alone(group, write);
        if (jobs_slice_is_over(group->store->jobs)) {
            mark_dirty(group);
            return;
        }
    }
}

static void on_batch_done(void *arg, uint64_t first_sequence, unsigned err_code, const struct error *error)
{
    struct group_batch *batch = arg;
    struct group *group = batch->group;
    size_t count = batch->batch.count;
    bool is_refused = error != NULL && err_code != 0;

    note_batch(group, batch);
    group->in_batch = 0;
    if (is_refused) {
        /* Nothing was written. One of them is to blame: alone, each gets the answer that is its own. */
        group->store->group_stats.failed++;
        group->conditions_alone_until_ms = uv_now(group->store->loop) + CONDITION_PAUSE_MS;
        if (err_code == JETSTREAM_ATOMIC_DISABLED)
            group->cannot_batch = true;
        for (size_t i = 0; i < count; i++) {
            batch->writes[i]->is_in_batch = false;
            send_alone(group, batch->writes[i]);
        }
    }
    for (size_t i = 0; !is_refused && i < count; i++) {
        struct write *write = batch->writes[i];
        write->group = NULL;
        write->is_in_batch = false;
        write_finish(write, error == NULL ? first_sequence + i : 0, error);
        group_release(group);
    }
    bucket_release(batch->batch.bucket);
    mark_dirty(group);
    free(batch);
    group_release(group);
}

/* Whether the batch has a message for the key already: no condition and no roll-up may come after it. */
static bool batch_has_key(const struct group_batch *batch, const char *key)
{
    for (size_t i = 0; i < batch->batch.count; i++) {
        if (strcmp(batch->messages[i].operation->key, key) == 0)
            return true;
    }
    return false;
}

/* Whether the write may join what the batch has by now. */
static bool fits(const struct group *group, const struct group_batch *batch, const struct write *write, size_t bytes)
{
    uint64_t now_ms = uv_now(group->store->loop);
    bool is_conditional = write->operation.condition != OPERATION_ALWAYS;

    if (batch->batch.count == BATCH_MESSAGES_MAX || write->deadline_ms < now_ms + DEADLINE_MIN_MS)
        return false;
    if (is_conditional && now_ms < group->conditions_alone_until_ms)
        return false;
    if ((is_conditional || operation_rolls_up(&write->operation, write->handle)) &&
        batch_has_key(batch, write->operation.key))
        return false;
    if (batch->batch.count == 0)
        return true;
    uint64_t first_ms = batch->writes[0]->deadline_ms;
    return bytes + write->operation.value_bytes <= BATCH_BYTES_MAX &&
           write->deadline_ms <= first_ms + DEADLINE_SPREAD_MS && write->deadline_ms + DEADLINE_SPREAD_MS >= first_ms;
}

static void add_to_batch(struct group_batch *batch, struct write *write)
{
    struct batch_message *message = &batch->messages[batch->batch.count];

    message->operation = &write->operation;
    message->message = write->message;
    message->has_condition = write->operation.condition != OPERATION_ALWAYS;
    message->expected = write->expected;
    message->condition_subject = NULL;
    batch->writes[batch->batch.count++] = write;
    write->is_in_batch = true;
    if (batch->batch.count == 1 || write->deadline_ms < batch->batch.deadline_ms)
        batch->batch.deadline_ms = write->deadline_ms;
}

static void send_batch(struct group *group)
{
    struct store *store = group->store;
    struct group_batch *batch = malloc(sizeof(*batch));
    size_t bytes = 0;

    if (batch == NULL) {
        send_all_alone(group);
        return;
    }
    memset(&batch->batch, 0, sizeof(batch->batch));
    batch->group = group;
    while (group->waiting != NULL && fits(group, batch, group->waiting, bytes)) {
        struct write *write = group->waiting;
        take_from_queue(group, write);
        bytes += write->operation.value_bytes;
        add_to_batch(batch, write);
    }
    /* What stands before the first that fits, or a company of one, goes alone; those behind it keep their place. */
    if (batch->batch.count < 2) {
        struct write *write = batch->batch.count == 1 ? batch->writes[0] : group->waiting;
        write->is_in_batch = false;
        if (batch->batch.count == 0)
            take_from_queue(group, write);
        free(batch);
        send_alone(group, write);
        return;
    }
    batch->batch.bucket = batch->writes[0]->handle;
    batch->batch.bucket->references++;
    batch->batch.messages = batch->messages;
    batch->batch.done = on_batch_done;
    batch->batch.arg = batch;
    batch->sent_ns = uv_hrtime();
    group->in_batch = batch->batch.count;
    store->group_stats.batches++;
    store->group_stats.grouped += batch->batch.count;
    metrics_note(&store->group_stats.sizes, batch->batch.count);
    group_retain(group);
    batch_start(store, &batch->batch);
}

static bool must_probe(const struct group *group)
{
    return group->store->conf->buckets.group_commit == CONF_GROUP_COMMIT_AUTO &&
           group->waiting_count >= PACE_ACKS_MIN && uv_now(group->store->loop) >= group->next_probe_ms;
}

/* Many writes at once before anything is known of the pace: some go first, and tell how the others should. */
static bool must_probe_first(struct group *group)
{
    bool has_failed = group->is_probing; /* the probe is over and nothing was measured */

    group->is_probing = false;
    return group->store->conf->buckets.group_commit == CONF_GROUP_COMMIT_AUTO && !group->cannot_batch && !has_failed &&
           group->pace.write.us <= 0 && group->waiting_count > PROBE_WRITES;
}

static void probe(struct group *group)
{
    for (unsigned i = 0; i < PROBE_WRITES && group->waiting != NULL; i++) {
        struct write *write = group->waiting;
        take_from_queue(group, write);
        send_alone(group, write);
    }
    group->is_probing = true;
    group->next_probe_ms = uv_now(group->store->loop) + PROBE_EVERY_MS;
}

/*
 * Those who were answered a moment ago are about to write again. Two half-full batches take nearly
 * twice the time of a full one, so the next batch waits a moment for them. (A write that is alone does not.)
 */
static bool gathers_more(struct group *group)
{
    struct store *store = group->store;

    if (group->has_gathered || (double)group->waiting_count >= group->concurrency * GATHERED_SHARE ||
        group->waiting_count >= BATCH_MESSAGES_MAX) {
        group->is_gathering = false;
        group->has_gathered = false;
        return false;
    }
    group->is_gathering = true;
    if (!group->is_listed) {
        group->is_listed = true;
        group->next_gathering = store->gathering_groups;
        store->gathering_groups = group_retain(group);
        if (!uv_is_active((uv_handle_t *)&store->gather_timer))
            uv_timer_start(&store->gather_timer, on_gathered, GATHER_MS, 0);
    }
    return true;
}

/*
 * One commit at a time, where batches pay: what comes while one is on its way waits for its
 * end. Where they do not, everything is sent as it comes.
 */
static void flush_group(struct group *group)
{
    settle_pace(group);
    note_concurrency(group);
    if (group->waiting_count == 0 || group->in_batch > 0)
        return;
    if (group->alone > 0) {
        if (!group->is_probing && !batch_pays(group, group->concurrency))
            send_all_alone(group);
        return;
    }
    if (must_probe_first(group)) {
        probe(group);
        return;
    }
    if (batch_pays(group, (double)group->waiting_count)) {
        if (must_probe(group))
            probe(group);
        else if (!gathers_more(group))
            send_batch(group);
    } else if (batch_pays(group, group->concurrency)) {
        /* Others are about to come: the first goes at once, and they gather behind it. */
        struct write *write = group->waiting;
        take_from_queue(group, write);
        send_alone(group, write);
    } else {
        send_all_alone(group);
    }
}

void group_init_all(struct store *store)
{
    uv_timer_init(store->loop, &store->gather_timer);
    store->gather_timer.data = store;
}

void group_close_all(struct store *store)
{
    uv_close((uv_handle_t *)&store->gather_timer, NULL);
}

static bool run_flushing(struct job *job)
{
    group_flush_all((struct store *)((char *)job - offsetof(struct store, group_flushing)));
    return false;
}

void group_flush_all(struct store *store)
{
    struct group *dirty = store->dirty_groups, *group;

    if (dirty == NULL)
        return;
    jobs_begin_slice(store->jobs);
    store->dirty_groups = NULL;
    while ((group = dirty) != NULL) {
        dirty = group->next_dirty;
        group->is_dirty = false;
        flush_group(group);
        group_release(group);
    }
    /* Those that have more to send go on in the next turn, which then follows at once. */
    if (store->dirty_groups != NULL)
        jobs_add(store->jobs, &store->group_flushing, run_flushing);
}

void group_submit(struct write *write)
{
    struct store *store = write->store;
    struct group *group = write->handle->group;

    if (!write->handle->allows_atomic) {
        write_send_alone(write);
        return;
    }
    write->group = group_retain(group);
    if (group->waiting == NULL && never_pays(group)) {
        send_alone(group, write);
        return;
    }
    DL_APPEND2(group->waiting, write, previous_in_group, next_in_group);
    group->waiting_count++;
    timer_start(store->timers, &write->group_timer, write->deadline_ms, on_waited_too_long);
    mark_dirty(group);
}

void group_cancel(struct write *write)
{
    struct group *group = write->group;

    write->group = NULL;
    /* A batch under way reads the writes' memory. Nobody drops a call before its write has an outcome. */
    assert(!write->is_in_batch);
    if (timer_is_set(&write->group_timer))
        take_from_queue(group, write);
    else
        group->alone--;
    mark_dirty(group);
    group_release(group);
}

void group_write_ended(struct write *write, const struct error *error)
{
    struct group *group = write->group;

    write->group = NULL;
    group->alone--;
    /* A refusal takes the server as long as an ack does. */
    if (error == NULL || !error->retryable)
        pace_ack(&group->pace);
    mark_dirty(group);
    group_release(group);
}
