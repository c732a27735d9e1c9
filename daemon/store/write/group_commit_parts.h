/*
 * group_commit_parts: what group_commit.c and group_gather.c share. Nobody else includes it.
 */
#ifndef DAEMON_STORE_GROUP_COMMIT_PARTS_H
#define DAEMON_STORE_GROUP_COMMIT_PARTS_H

#include "daemon/base/fair_queue.h"
#include "daemon/base/key_index.h"
#include "daemon/store/write/batch.h"
#include "daemon/store/write/group_commit.h"

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
    struct fair_queue waiting;
    struct fair_queue alone; /* writes that cannot be in a batch; each is sent singly, at once */
    size_t waiting_count;    /* in both queues */
    size_t single;           /* single writes in flight */
    size_t in_batch;         /* writes in the batch in flight; 0: none is in flight */

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

/* Return the write whose turn it is; NULL: the queue is empty. */
static inline struct write *group_commit_first(const struct fair_queue *queue)
{
    struct fair_queue_entry *entry = fair_queue_first(queue);

    return entry != NULL ? (struct write *)((char *)entry - offsetof(struct write, group_commit_entry)) : NULL;
}

/* Take a write out of the queue it is in, to send it. */
void group_commit_dequeue(struct group_commit *group, struct write *write);

/*
 * Put a batch together of what waits. What has to be sent alone is in group->alone then. The batch may be empty. NULL:
 * out of memory.
 */
struct group_commit_batch *group_gather(struct group_commit *group);

#endif
