/*
 * fair_queue: a queue in which owners take turns.
 *
 * Used for requests that wait for something scarce, so that an owner who asks for much does not keep the others
 * waiting. An owner that begins to wait is a newcomer. It comes before owners that have had a turn and still wait, so a
 * single entry need not wait for an entry of each of a hundred greedy owners. The entries of one owner keep their
 * order. An owner is an identity, in general the id of a session. The queue
 * allocates a record for each owner that waits. If memory runs out, the entry joins those without an owner.
 */
#ifndef DAEMON_FAIR_QUEUE_H
#define DAEMON_FAIR_QUEUE_H

#include "daemon/base/table.h"

#include <stdbool.h>
#include <stddef.h>

/* The owner of the memory embeds it, zeroed, and removes it before the memory goes. */
struct fair_queue_entry {
    struct fair_queue_entry *next, *previous;
    struct fair_queue_owner *owner; /* NULL: not queued */
};

struct fair_queue_owner {
    UT_hash_handle hh; /* by identity */
    struct fair_queue_owner *next, *previous;
    struct fair_queue *queue;
    uint64_t identity;
    bool is_newcomer;
    struct fair_queue_entry *first;
};

/* Zeroed: empty. All members are private. */
struct fair_queue {
    struct fair_queue_owner *by_identity; /* uthash */
    struct fair_queue_owner *newcomers;   /* each list in the order of the owners' turns */
    struct fair_queue_owner *others;
    unsigned newcomers_in_a_row;       /* newcomers that have had a turn since one of the others had */
    struct fair_queue_owner anonymous; /* of entries without an owner */
};

/* Append an entry to those of its owner. identity 0: it has none. */
void fair_queue_append(struct fair_queue *queue, struct fair_queue_entry *entry, uint64_t identity);

/*
 * Remove an entry, because its turn came or because it gave up. If it was its owner's turn, the owner's next turn comes
 * after those of all who wait. Does nothing if the entry is not queued.
 */
void fair_queue_remove(struct fair_queue_entry *entry);

/*
 * Put an entry that was removed when its turn came, but could not use it, before the others of its owner. The owner has
 * its turn back: it is the first of the newcomers. Of several entries, the last that was removed is put back first.
 */
void fair_queue_put_back(struct fair_queue *queue, struct fair_queue_entry *entry, uint64_t identity);

/* After this number of newcomers, one of the others has its turn. */
#define FAIR_QUEUE_NEWCOMERS_MAX 8u

static inline struct fair_queue_owner *fair_queue_first_owner(const struct fair_queue *queue)
{
    bool must_wait = queue->others != NULL && queue->newcomers_in_a_row >= FAIR_QUEUE_NEWCOMERS_MAX;

    return queue->newcomers != NULL && !must_wait ? queue->newcomers : queue->others;
}

/* Return the entry whose turn it is; NULL: the queue is empty. */
static inline struct fair_queue_entry *fair_queue_first(const struct fair_queue *queue)
{
    const struct fair_queue_owner *owner = fair_queue_first_owner(queue);

    return owner != NULL ? owner->first : NULL;
}

static inline bool fair_queue_has(const struct fair_queue_entry *entry)
{
    return entry->owner != NULL;
}

#endif
