#include "daemon/store/write/group_commit.h"

#include "daemon/base/key_index.h"
#include "daemon/store/write/batch.h"
#include "daemon/store/write/bucket_writes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/*
 * With group_commit: auto, the least number of writes in a batch. On nats-server 2.15 with a quick disk, a batch takes
 * 1.3 ms plus 14 µs a write; a single write takes 90 µs.
 */
#define BATCH_MIN 16u

/* Single writes of a bucket in flight: a tenth of a second of work for a server that syncs each. */
#define WRITES_MAX 1024u

/*
 * Bytes of the messages of one batch. A write waits for the batch in flight and for its own: beside a flood of 8 kB
 * values, 40 ms with 2 MB in a batch and 130 ms with 8 MB, and the flood has 0.77 of the throughput with 2 MB.
 */
#define BATCH_BYTES_MAX (4u * 1024u * 1024u)

/* To put a batch together, the daemon examines this number of queued writes at most. */
#define CANDIDATES_MAX (4u * BATCH_MESSAGES_MAX)

/* How many of these are sent singly, because they cannot be in a batch. */
#define SINGLES_MAX 64u

/* Of the memory of the indexes of a batch. */
#define INDEX_CHUNK_BYTES (64u * 1024u)

/* A write with less time left is sent singly: in a batch, its deadline would end the attempts for all. */
#define DEADLINE_MIN_MS 1000u
/* Deadlines in a batch differ by no more than this, because the first one ends the attempts for all. */
#define DEADLINE_SPREAD_MS 1000u

/* After a failed condition has failed a batch, conditional writes are sent singly for this long. */
#define CONDITION_PAUSE_MS 1000u

/* How long a batch waits for more writes, and which share of the usual number of writes is enough. */
#define LINGER_MS    2u
#define LINGER_SHARE 0.9

/* The group commits of all buckets. */
struct group_commits {
    struct store *store;
    struct group_commit *dirty; /* a list: they have something to send at the end of the turn */
    struct job flushing;
    struct group_commit *lingering; /* a list: they wait a moment for more writes */
    uv_timer_t linger_timer;
    struct group_commit_stats stats;
};

/* Whether a group waits a moment for writes that are about to come. */
enum group_commit_linger {
    LINGER_NONE,
    LINGER_ON,        /* it waits, and is in the list of the timer */
    LINGER_CUT_SHORT, /* it no longer waits, and is still in the list */
    LINGER_OVER       /* it has waited as long as it may */
};

struct group_commit {
    struct store *store;
    struct request_limit writes, batches;
    unsigned references;
    struct group_commit *next_dirty;
    struct group_commit *next_lingering;
    bool is_dirty;
    bool cannot_batch; /* the server has said so */
    enum group_commit_linger linger;
    struct fair_queue waiting; /* by session */
    struct fair_queue alone;   /* those that cannot be in a batch: they are sent singly at once */
    size_t waiting_count;      /* in both queues */
    size_t single;             /* single writes in flight */
    size_t in_batch;           /* writes in the batch in flight; 0: none is in flight */

    double concurrency; /* recent number of writes that wait for an answer at the same time */
    uint64_t conditions_single_until_ms;
};

struct group_commit_batch {
    struct batch batch;
    struct group_commit *group;
    size_t bytes;
    unsigned singles;         /* writes that are sent alone instead */
    struct arena arena;       /* of the indexes, while the batch is put together */
    struct key_index taken;   /* keys of the writes in the batch */
    struct key_index skipped; /* keys of the examined writes that stay in the queue */
    struct write *writes[BATCH_MESSAGES_MAX];
    struct batch_message messages[BATCH_MESSAGES_MAX];
};

/* --- Life ------------------------------------------------------------------------------------------ */

struct group_commit *group_commit_new(struct store *store)
{
    struct group_commit *group = calloc(1, sizeof(*group));

    if (group == NULL)
        return NULL;
    group->store = store;
    group->references = 1;
    group->writes.max = WRITES_MAX;
    group->batches.max = BATCH_WEIGHTS_MAX;
    return group;
}

struct request_limit *group_commit_writes_limit(struct group_commit *group)
{
    return &group->writes;
}

struct request_limit *group_commit_batches_limit(struct group_commit *group)
{
    return &group->batches;
}

struct group_commit *group_commit_retain(struct group_commit *group)
{
    group->references++;
    return group;
}

static void group_commit_mark_dirty(struct group_commit *group);

/* The wait is over for all groups; one that began late waits less. */
static void on_group_commit_linger_over(uv_timer_t *timer)
{
    struct store *store = timer->data;

    while (store->group_commits->lingering != NULL) {
        struct group_commit *group = store->group_commits->lingering;
        store->group_commits->lingering = group->next_lingering;
        group->linger = group->linger == LINGER_ON ? LINGER_OVER : LINGER_NONE;
        group_commit_mark_dirty(group);
        group_commit_release(group);
    }
}

static void group_commit_mark_dirty(struct group_commit *group)
{
    if (group->is_dirty)
        return;
    group->is_dirty = true;
    group->next_dirty = group->store->group_commits->dirty;
    group->store->group_commits->dirty = group_commit_retain(group);
}

void group_commit_release(struct group_commit *group)
{
    if (group == NULL || --group->references > 0)
        return;
    requests_forget_limit(&group->store->requests, &group->writes);
    requests_forget_limit(&group->store->requests, &group->batches);
    free(group);
}

/* --- Deciding -------------------------------------------------------------------------------------- */

/* Return how many writes must wait for a batch; SIZE_MAX: send no batches. Without syncs they gain nothing. */
static size_t group_commit_batch_min(const struct group_commit *group)
{
    const struct conf *conf = group->store->conf;
    bool is_synced = conf->nats.mode == CONF_NATS_EMBEDDED && conf->nats.sync_always;

    if (group->cannot_batch || conf->buckets.group_commit == CONF_GROUP_COMMIT_OFF)
        return SIZE_MAX;
    if (conf->buckets.group_commit == CONF_GROUP_COMMIT_ON)
        return 2;
    return is_synced ? BATCH_MIN : SIZE_MAX;
}

static void group_commit_note_concurrency(struct group_commit *group)
{
    double now = (double)(group->waiting_count + group->single + group->in_batch);

    group->concurrency = now > group->concurrency ? now : group->concurrency * 0.95 + now * 0.05;
}

/* --- Sending --------------------------------------------------------------------------------------- */

/* Return the write whose turn it is; NULL: the queue is empty. */
static struct write *group_commit_first(const struct fair_queue *queue)
{
    struct fair_queue_entry *entry = fair_queue_first(queue);

    return entry != NULL ? (struct write *)((char *)entry - offsetof(struct write, group_commit_entry)) : NULL;
}

static void group_commit_dequeue(struct group_commit *group, struct write *write)
{
    fair_queue_remove(&write->group_commit_entry);
    group->waiting_count--;
    timer_stop(group->store->timers, &write->group_commit_timer);
}

static void on_group_commit_deadline(struct timer *timer)
{
    struct write *write = (struct write *)((char *)timer - offsetof(struct write, group_commit_timer));
    struct group_commit *group = write->group;
    struct error error;

    group_commit_dequeue(group, write);
    write->group = NULL;
    write->place = WRITE_UNGROUPED;
    error_set(&error, ERROR_DEADLINE_EXCEEDED,
              "timed out waiting for earlier writes to the bucket; nothing was written, try again");
    error.outcome = ERROR_OUTCOME_NONE;
    write_finish(write, 0, &error);
    group_commit_release(group);
}

static void group_commit_send_singly(struct group_commit *group, struct write *write)
{
    group->single++;
    write->place = WRITE_SENT_SINGLY;
    write_send_singly(write);
}

/* Send what a slice of the turn allows; the rest is sent in the next one. */
static void group_commit_send_all_singly(struct group_commit *group, struct fair_queue *queue)
{
    struct write *write;

    while ((write = group_commit_first(queue)) != NULL) {
        group_commit_dequeue(group, write);
        group_commit_send_singly(group, write);
        if (jobs_slice_is_over(group->store->jobs)) {
            group_commit_mark_dirty(group);
            return;
        }
    }
}

static void on_group_commit_batch_done(void *arg, uint64_t first_sequence, unsigned err_code, const struct error *error)
{
    struct group_commit_batch *batch = arg;
    struct group_commit *group = batch->group;
    size_t count = batch->batch.count;
    bool is_refused = error != NULL && err_code != 0;

    group->in_batch = 0;
    for (size_t i = 0; i < count; i++)
        arena_note_answered(batch->writes[i]->arena, uv_now(group->store->loop));
    if (is_refused) {
        /* Nothing was written, because of one of the writes. Sent singly, each gets its own answer. */
        group->store->group_commits->stats.failed++;
        group->conditions_single_until_ms = uv_now(group->store->loop) + CONDITION_PAUSE_MS;
        if (err_code == JETSTREAM_ATOMIC_DISABLED)
            group->cannot_batch = true;
        for (size_t i = 0; i < count; i++) {
            journal_note_refused(group->store->journal, &batch->writes[i]->journal);
            group_commit_send_singly(group, batch->writes[i]);
        }
    }
    for (size_t i = 0; !is_refused && i < count; i++) {
        struct write *write = batch->writes[i];
        write->group = NULL;
        write->place = WRITE_UNGROUPED;
        write_finish(write, error == NULL ? first_sequence + i : 0, error);
        group_commit_release(group);
    }
    bucket_release(batch->batch.bucket);
    group_commit_mark_dirty(group);
    free(batch);
    group_commit_release(group);
}

/* Return whether the write cannot be in a batch now. */
static bool group_commit_must_be_single(const struct group_commit *group, const struct write *write)
{
    uint64_t now_ms = uv_now(group->store->loop);

    return write->deadline_ms < now_ms + DEADLINE_MIN_MS ||
           (write->operation.condition != OPERATION_ALWAYS && now_ms < group->conditions_single_until_ms);
}

/* Return whether the write may join the batch as it is. */
static bool group_commit_fits_batch(const struct group_commit_batch *batch, const struct write *write)
{
    const struct operation *operation = &write->operation;
    bool is_first_of_key =
        operation->condition != OPERATION_ALWAYS || operation_rolls_up(operation, write->request.bucket);

    if (is_first_of_key && key_index_find(&batch->taken, operation->key) != KEY_INDEX_NONE)
        return false; /* no condition and no roll-up may come after another message of the key */
    if (batch->batch.count == 0)
        return true;
    uint64_t first_ms = batch->writes[0]->deadline_ms;
    return batch->bytes + operation_bytes(operation) <= BATCH_BYTES_MAX &&
           write->deadline_ms <= first_ms + DEADLINE_SPREAD_MS && write->deadline_ms + DEADLINE_SPREAD_MS >= first_ms;
}

static void group_commit_add_to_batch(struct group_commit_batch *batch, struct write *write)
{
    struct batch_message *message = &batch->messages[batch->batch.count];

    message->operation = &write->operation;
    message->message = write->message;
    message->has_condition = write->operation.condition != OPERATION_ALWAYS;
    message->expected = write->expected;
    message->condition_subject = NULL;
    message->journal = write->journal.place != 0 ? &write->journal : NULL;
    batch->batch.is_remembered = batch->batch.is_remembered || message->journal != NULL;
    batch->writes[batch->batch.count++] = write;
    write->place = WRITE_IN_BATCH;
    if (batch->batch.count == 1 || write->deadline_ms < batch->batch.deadline_ms)
        batch->batch.deadline_ms = write->deadline_ms;
}

/*
 * Put the write whose turn it is into the batch, or into the queue of those that are sent alone. Return false if
 * neither can be: it waits for the next batch, as do later writes of its key.
 */
static bool group_commit_place(struct group_commit *group, struct group_commit_batch *batch, struct write *write)
{
    const char *key = write->operation.key;
    bool is_single = group_commit_must_be_single(group, write);

    if (key_index_find(&batch->skipped, key) != KEY_INDEX_NONE)
        return false;
    if (!is_single && group_commit_fits_batch(batch, write)) {
        group_commit_dequeue(group, write);
        key_index_add(&batch->taken, key, 0);
        batch->bytes += operation_bytes(&write->operation);
        group_commit_add_to_batch(batch, write);
        return true;
    }
    key_index_add(&batch->skipped, key, 0);
    if (!is_single || batch->singles == SINGLES_MAX || key_index_find(&batch->taken, key) != KEY_INDEX_NONE)
        return false;
    batch->singles++;
    fair_queue_remove(&write->group_commit_entry);
    fair_queue_append(&group->alone, &write->group_commit_entry, write->arena->owner);
    return true;
}

/*
 * Put a batch together. What cannot join it stays in the queue, and the rest goes on: so clients with different
 * timeouts do not make many small batches.
 */
static void group_commit_gather(struct group_commit *group, struct group_commit_batch *batch)
{
    struct write *skipped[CANDIDATES_MAX], *write;
    unsigned skipped_count = 0;

    for (unsigned looked = 0; looked < CANDIDATES_MAX && batch->batch.count < BATCH_MESSAGES_MAX &&
                              (write = group_commit_first(&group->waiting)) != NULL;
         looked++) {
        if (group_commit_place(group, batch, write))
            continue;
        fair_queue_remove(&write->group_commit_entry);
        skipped[skipped_count++] = write;
    }
    while (skipped_count > 0) {
        write = skipped[--skipped_count];
        fair_queue_put_back(&group->waiting, &write->group_commit_entry, write->arena->owner);
    }
}

/* NULL: out of memory. */
static struct group_commit_batch *group_commit_new_batch(struct group_commit *group)
{
    struct group_commit_batch *batch = malloc(sizeof(*batch));

    if (batch == NULL || !arena_init(&batch->arena, INDEX_CHUNK_BYTES)) {
        free(batch);
        return NULL;
    }
    memset(&batch->batch, 0, sizeof(batch->batch));
    batch->group = group;
    batch->bytes = 0;
    batch->singles = 0;
    size_t waiting = group->waiting_count < CANDIDATES_MAX ? group->waiting_count : CANDIDATES_MAX;
    if (key_index_init(&batch->taken, &batch->arena, waiting < BATCH_MESSAGES_MAX ? waiting : BATCH_MESSAGES_MAX) &&
        key_index_init(&batch->skipped, &batch->arena, waiting))
        return batch;
    arena_destroy(&batch->arena);
    free(batch);
    return NULL;
}

static void group_commit_start_batch(struct group_commit *group, struct group_commit_batch *batch)
{
    struct store *store = group->store;

    for (size_t i = 0; i < batch->batch.count; i++)
        arena_note_sent(batch->writes[i]->arena, uv_now(store->loop));
    batch->batch.bucket = batch->writes[0]->request.bucket;
    batch->batch.bucket->references++;
    batch->batch.messages = batch->messages;
    batch->batch.done = on_group_commit_batch_done;
    batch->batch.arg = batch;
    group->in_batch = batch->batch.count;
    store->group_commits->stats.batches++;
    store->group_commits->stats.grouped += batch->batch.count;
    metrics_note(&store->group_commits->stats.sizes, batch->batch.count);
    group_commit_retain(group);
    batch_start(store, &batch->batch);
}

static void group_commit_send_batch(struct group_commit *group)
{
    struct group_commit_batch *batch = group_commit_new_batch(group);

    if (batch == NULL) {
        group_commit_send_all_singly(group, &group->waiting);
        return;
    }
    group_commit_gather(group, batch);
    arena_destroy(&batch->arena);
    if (batch->batch.count >= 2) {
        group_commit_start_batch(group, batch); /* it may be over already */
    } else {
        struct write *only = batch->batch.count == 1 ? batch->writes[0] : NULL;
        free(batch);
        if (only != NULL)
            group_commit_send_singly(group, only);
    }
    group_commit_send_all_singly(group, &group->alone);
    if (group->waiting_count > 0)
        group_commit_mark_dirty(group);
}

/*
 * Return whether a batch waits a moment: clients that were answered just now may be about to write again. Two half-full
 * batches take nearly twice the time of a full one.
 */
static bool group_commit_must_linger(struct group_commit *group)
{
    struct group_commits *all = group->store->group_commits;

    if (group->linger == LINGER_OVER || (double)group->waiting_count >= group->concurrency * LINGER_SHARE ||
        group->waiting_count >= BATCH_MESSAGES_MAX) {
        bool is_listed = group->linger == LINGER_ON || group->linger == LINGER_CUT_SHORT;
        group->linger = is_listed ? LINGER_CUT_SHORT : LINGER_NONE;
        return false;
    }
    if (group->linger == LINGER_NONE) {
        group->next_lingering = all->lingering;
        all->lingering = group_commit_retain(group);
        if (!uv_is_active((uv_handle_t *)&all->linger_timer))
            uv_timer_start(&all->linger_timer, on_group_commit_linger_over, LINGER_MS, 0);
    }
    group->linger = LINGER_ON;
    return true;
}

/*
 * One batch is in flight at a time: new writes wait for its end. Single writes in flight count for the size of the next
 * batch, because a moment later their clients may write again. So do the writes of the last batch, by way of the
 * concurrency: otherwise the first few that write again would be sent singly, before the others. (256 clients: 0.98 to
 * 1.07 of the speed of group_commit: on, instead of 0.74 to 0.90.)
 */
static void group_commit_flush(struct group_commit *group)
{
    size_t min = group_commit_batch_min(group);

    group_commit_note_concurrency(group);
    group_commit_send_all_singly(group, &group->alone); /* what a slice of the turn before has left */
    if (group->waiting_count == 0 || group->in_batch > 0 || group_commit_first(&group->alone) != NULL)
        return;
    if (group->waiting_count + group->single < min && group->concurrency < (double)min)
        group_commit_send_all_singly(group, &group->waiting);
    else if (group_commit_must_linger(group))
        return;
    else if (group->waiting_count >= min)
        group_commit_send_batch(group);
    else
        group_commit_send_all_singly(group, &group->waiting);
}

int group_commit_init_all(struct store *store)
{
    struct group_commits *all = calloc(1, sizeof(*all));

    store->group_commits = all;
    if (all == NULL)
        return -1;
    all->store = store;
    uv_timer_init(store->loop, &all->linger_timer);
    all->linger_timer.data = store;
    return 0;
}

void group_commit_close_all(struct store *store)
{
    uv_close((uv_handle_t *)&store->group_commits->linger_timer, NULL);
}

void group_commit_free_all(struct store *store)
{
    struct group_commits *all = store->group_commits;

    jobs_remove(store->jobs, &all->flushing);
    while (all->lingering != NULL) {
        struct group_commit *group = all->lingering;
        all->lingering = group->next_lingering;
        group_commit_release(group);
    }
    free(all);
    store->group_commits = NULL;
}

const struct group_commit_stats *group_commit_statistics(const struct store *store)
{
    return &store->group_commits->stats;
}

static bool group_commit_run_flushing(struct job *job)
{
    group_commit_flush_all(((struct group_commits *)((char *)job - offsetof(struct group_commits, flushing)))->store);
    return false;
}

void group_commit_flush_all(struct store *store)
{
    struct group_commit *dirty = store->group_commits->dirty, *group;

    if (dirty == NULL)
        return;
    jobs_begin_slice(store->jobs);
    store->group_commits->dirty = NULL;
    while ((group = dirty) != NULL) {
        dirty = group->next_dirty;
        group->is_dirty = false;
        group_commit_flush(group);
        group_commit_release(group);
    }
    /* Groups with more to send continue in the next turn, which follows at once. */
    if (store->group_commits->dirty != NULL)
        jobs_add_shared(store->jobs, &store->group_commits->flushing, group_commit_run_flushing);
}

void group_commit_submit(struct write *write)
{
    struct store *store = write->store;
    struct group_commit *group = bucket_writes_group(write->request.bucket);

    if (!write->request.bucket->allows_atomic) {
        write_send_singly(write);
        return;
    }
    write->group = group_commit_retain(group);
    write->place = WRITE_QUEUED;
    if (group->waiting_count == 0 && group->in_batch == 0 && group_commit_batch_min(group) == SIZE_MAX) {
        group_commit_send_singly(group, write);
        return;
    }
    fair_queue_append(&group->waiting, &write->group_commit_entry, write->arena->owner);
    group->waiting_count++;
    timer_start(store->timers, &write->group_commit_timer, write->deadline_ms, on_group_commit_deadline);
    group_commit_mark_dirty(group);
}

void group_commit_cancel(struct write *write)
{
    struct group_commit *group = write->group;

    /* A batch in flight reads the memory of its writes. Nobody drops a call before its write has an outcome. */
    assert(write->place != WRITE_IN_BATCH);
    if (write->place == WRITE_QUEUED)
        group_commit_dequeue(group, write);
    else
        group->single--;
    write->group = NULL;
    write->place = WRITE_UNGROUPED;
    group_commit_mark_dirty(group);
    group_commit_release(group);
}

void group_commit_write_ended(struct write *write)
{
    struct group_commit *group = write->group;

    write->group = NULL;
    write->place = WRITE_UNGROUPED;
    group->single--;
    group_commit_mark_dirty(group);
    group_commit_release(group);
}

/* --- Seeing inside --------------------------------------------------------------------------------- */

struct group_commit_visit {
    void (*visit)(void *arg, const struct group_commit_info *info);
    void *arg;
};

static void group_commit_visit_bucket(void *arg, const struct bucket *bucket)
{
    const struct group_commit_visit *each = arg;
    const struct group_commit *group = bucket_writes_group(bucket);
    const struct group_commit_info info = {bucket->name, group->waiting_count, group->single, group->in_batch};

    if (info.waiting + info.single + info.in_batch > 0)
        each->visit(each->arg, &info);
}

void group_commit_each(const struct store *store, void (*visit)(void *arg, const struct group_commit_info *info),
                       void *arg)
{
    struct group_commit_visit each = {visit, arg};

    bucket_each(store, group_commit_visit_bucket, &each);
}
