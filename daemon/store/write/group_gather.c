#include "daemon/store/write/group_commit_parts.h"

#include <stdlib.h>
#include <string.h>

/*
 * Bytes of the messages of one batch. A write waits for the batch in flight and for its own: beside a flood of 4 kB
 * values, 20 to 29 ms with 1 MB in a batch, and 55 to 65 ms with 4 MB. The throughput of the flood is the same.
 */
#define BATCH_BYTES_MAX (1024u * 1024u)

/* From here on only few writes would still fit. */
#define BATCH_BYTES_ENOUGH (BATCH_BYTES_MAX / 8 * 7)

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

/* Return whether the write cannot be in a batch now. */
static bool group_gather_must_be_single(const struct group_commit *group, const struct write *write)
{
    uint64_t now_ms = uv_now(group->store->loop);

    return write->deadline_ms < now_ms + DEADLINE_MIN_MS ||
           (write->operation.condition != OPERATION_ALWAYS && now_ms < group->conditions_single_until_ms);
}

/* Return whether the write may join the batch as it is. */
static bool group_gather_fits(const struct group_commit_batch *batch, const struct write *write)
{
    const struct operation *operation = &write->operation;
    bool is_first_of_key =
        operation->condition != OPERATION_ALWAYS || operation_rolls_up(operation, write->request.bucket);

    if (is_first_of_key && key_index_find(&batch->taken, operation->key) != KEY_INDEX_NONE)
        return false; /* no condition and no roll-up may come after another message of the key */
    if (batch->batch.count == 0)
        return true;
    uint64_t first_ms = batch->writes[0]->deadline_ms;
    return batch->bytes + write->group_commit_bytes <= BATCH_BYTES_MAX &&
           write->deadline_ms <= first_ms + DEADLINE_SPREAD_MS && write->deadline_ms + DEADLINE_SPREAD_MS >= first_ms;
}

static void group_gather_add(struct group_commit_batch *batch, struct write *write)
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
 * Move the first waiting write into the batch, or into group->alone. Return false if it fits into neither: it waits for
 * the next batch, as do later writes of its key.
 */
static bool group_gather_place(struct group_commit *group, struct group_commit_batch *batch, struct write *write)
{
    const char *key = write->operation.key;
    bool is_single = group_gather_must_be_single(group, write);

    if (key_index_find(&batch->skipped, key) != KEY_INDEX_NONE)
        return false;
    if (!is_single && group_gather_fits(batch, write)) {
        group_commit_dequeue(group, write);
        key_index_add(&batch->taken, key, 0);
        batch->bytes += write->group_commit_bytes;
        group_gather_add(batch, write);
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
static void group_gather_all(struct group_commit *group, struct group_commit_batch *batch)
{
    struct write *skipped[CANDIDATES_MAX], *write;
    unsigned skipped_count = 0;

    for (unsigned looked = 0;
         looked < CANDIDATES_MAX && batch->batch.count < BATCH_MESSAGES_MAX && batch->bytes < BATCH_BYTES_ENOUGH &&
         (write = group_commit_first(&group->waiting)) != NULL;
         looked++) {
        if (group_gather_place(group, batch, write))
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
static struct group_commit_batch *group_gather_new_batch(struct group_commit *group)
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

struct group_commit_batch *group_gather(struct group_commit *group)
{
    struct group_commit_batch *batch = group_gather_new_batch(group);

    if (batch == NULL)
        return NULL;
    group_gather_all(group, batch);
    arena_destroy(&batch->arena);
    return batch;
}
