#include "daemon/base/fair_queue.h"

#include <stdlib.h>
#include <utlist.h>

static struct fair_queue_owner *obtain_owner(struct fair_queue *queue, uint64_t identity)
{
    struct fair_queue_owner *owner = NULL;

    if (identity != 0)
        HASH_FIND(hh, queue->by_identity, &identity, sizeof(identity), owner);
    if (owner != NULL)
        return owner;
    if (identity != 0 && (owner = calloc(1, sizeof(*owner))) != NULL) {
        owner->identity = identity;
        HASH_ADD(hh, queue->by_identity, identity, sizeof(identity), owner);
    } else {
        owner = &queue->anonymous;
    }
    owner->queue = queue;
    return owner;
}

static void enter(struct fair_queue_owner *owner, bool is_newcomer)
{
    struct fair_queue *queue = owner->queue;

    owner->is_newcomer = is_newcomer;
    if (is_newcomer)
        DL_APPEND2(queue->newcomers, owner, previous, next);
    else
        DL_APPEND2(queue->others, owner, previous, next);
}

static void leave(struct fair_queue_owner *owner)
{
    struct fair_queue *queue = owner->queue;

    if (owner->is_newcomer)
        DL_DELETE2(queue->newcomers, owner, previous, next);
    else
        DL_DELETE2(queue->others, owner, previous, next);
}

void fair_queue_append(struct fair_queue *queue, struct fair_queue_entry *entry, uint64_t identity)
{
    struct fair_queue_owner *owner = obtain_owner(queue, identity);

    if (owner->first == NULL)
        enter(owner, true);
    DL_APPEND2(owner->first, entry, previous, next);
    entry->owner = owner;
}

void fair_queue_put_back(struct fair_queue *queue, struct fair_queue_entry *entry, uint64_t identity)
{
    struct fair_queue_owner *owner = obtain_owner(queue, identity);

    if (owner->first != NULL)
        leave(owner);
    DL_PREPEND2(owner->first, entry, previous, next);
    entry->owner = owner;
    owner->is_newcomer = true;
    DL_PREPEND2(queue->newcomers, owner, previous, next);
}

void fair_queue_remove(struct fair_queue_entry *entry)
{
    struct fair_queue_owner *owner = entry->owner;

    if (owner == NULL)
        return;
    struct fair_queue *queue = owner->queue;
    bool was_first = fair_queue_first_owner(queue) == owner;

    entry->owner = NULL;
    DL_DELETE2(owner->first, entry, previous, next);
    if (was_first)
        queue->newcomers_in_a_row = owner->is_newcomer ? queue->newcomers_in_a_row + 1 : 0;
    if (owner->first == NULL || was_first)
        leave(owner);
    if (owner->first != NULL && was_first)
        enter(owner, false);
    if (owner->first == NULL && owner != &queue->anonymous) {
        HASH_DEL(queue->by_identity, owner);
        free(owner);
    }
}
