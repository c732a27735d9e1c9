#include "daemon/store/follow/changes.h"

#include "daemon/store/follow/state.h"

#include <stdlib.h>
#include <string.h>

/* The changes of one bucket. */
struct local_copy_change {
    UT_hash_handle hh; /* by the bucket's name */
    unsigned under_way;
    /*
     * Number of the connection on which an unanswered change may still be carried out; 0: none. Later answers of the
     * server are no proof: STREAM.INFO was seen to overtake a purge.
     */
    uint64_t doubtful_on;
    char bucket[];
};

static struct local_copy_change *change_find(const struct store *store, const char *bucket)
{
    struct local_copy_change *change = NULL;

    if (store->follow->changes != NULL)
        HASH_FIND_STR(store->follow->changes, bucket, change);
    return change;
}

static void change_drop(struct store *store, struct local_copy_change *change)
{
    HASH_DEL(store->follow->changes, change);
    free(change);
}

bool local_copy_is_changing(const struct local_copy *copy)
{
    return copy->store->follow->uncounted_changes > 0 || change_find(copy->store, copy->name) != NULL;
}

void local_copy_begin_change(struct store *store, const char *bucket)
{
    struct local_copy_change *change = change_find(store, bucket);

    if (change == NULL) {
        size_t bytes = strlen(bucket) + 1;
        change = calloc(1, sizeof(*change) + bytes);
        if (change == NULL) {
            store->follow->uncounted_changes++;
            return;
        }
        memcpy(change->bucket, bucket, bytes);
        HASH_ADD_STR(store->follow->changes, bucket, change);
    }
    change->under_way++;
}

void local_copy_end_change(struct store *store, const char *bucket, bool is_known)
{
    struct local_copy_change *change = change_find(store, bucket);
    struct local_copy *copy = local_copy_find(store, bucket);

    if (change == NULL || change->under_way == 0) {
        store->follow->uncounted_changes--;
    } else {
        change->under_way--;
        if (!is_known)
            change->doubtful_on = connection_number(store->connection);
        if (change->under_way == 0 && change->doubtful_on == 0)
            change_drop(store, change);
    }
    if (copy == NULL)
        return;
    /* A feed that is just beginning may have asked for the former bucket, and make its consumer in a new one. */
    if (!feed_is_live(&copy->feed) && !local_copy_is_before_feed(copy))
        feed_look(&copy->feed);
    reconcile_distrust(copy);
}

/* copy: of the change's bucket, or NULL. */
static void change_end_doubt_if_closed(struct store *store, struct local_copy_change *change, struct local_copy *copy)
{
    bool is_of_earlier = change->doubtful_on != 0 && change->doubtful_on != connection_number(store->connection);

    if (!is_of_earlier || !connection_earlier_are_closed(store->connection, change->doubtful_on))
        return;
    change->doubtful_on = 0;
    if (change->under_way == 0)
        change_drop(store, change);
    if (copy != NULL)
        reconcile_distrust(copy);
}

void local_copy_end_doubtful_change(struct local_copy *copy)
{
    struct local_copy_change *change = change_find(copy->store, copy->name);

    if (change != NULL)
        change_end_doubt_if_closed(copy->store, change, copy);
}

void local_copy_end_doubtful_changes(struct store *store)
{
    struct local_copy_change *change, *next;

    HASH_ITER(hh, store->follow->changes, change, next)
    {
        change_end_doubt_if_closed(store, change, local_copy_find(store, change->bucket));
    }
}

void local_copy_free_changes(struct store *store)
{
    struct local_copy_change *change, *next;

    HASH_ITER(hh, store->follow->changes, change, next)
    {
        change_drop(store, change);
    }
}
