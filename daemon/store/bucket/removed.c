#include "daemon/store/bucket/removed.h"

#include "daemon/base/table.h"
#include "daemon/nats/kv.h"

#include <stdio.h>
#include <stdlib.h>

/* The number of buckets that are remembered, and for how long. */
#define REMOVED_MAX 4096u
#define REMOVED_MS  60000u

struct removed_bucket {
    UT_hash_handle hh;    /* by name; in the order in which they were deleted */
    uint64_t removed_ms;  /* loop time; 0: it was not deleted, as far as is known */
    unsigned in_progress; /* deletions */
    char name[KV_BUCKET_LENGTH_MAX + 1];
};

static struct removed_bucket *removed_find(struct removed_bucket *all, const char *bucket)
{
    struct removed_bucket *removed = NULL;

    if (all != NULL)
        HASH_FIND_STR(all, bucket, removed);
    return removed;
}

static void removed_forget(struct removed_bucket **all, struct removed_bucket *removed)
{
    HASH_DEL(*all, removed);
    free(removed);
}

/* Return the record of a bucket, made if it is new; NULL: out of memory. */
static struct removed_bucket *removed_obtain(struct removed_bucket **all, const char *bucket)
{
    struct removed_bucket *removed = removed_find(*all, bucket);

    if (removed != NULL)
        return removed;
    if (HASH_COUNT(*all) >= REMOVED_MAX && (*all)->in_progress == 0)
        removed_forget(all, *all); /* the oldest */
    removed = calloc(1, sizeof(*removed));
    if (removed == NULL)
        return NULL;
    snprintf(removed->name, sizeof(removed->name), "%s", bucket);
    HASH_ADD_STR(*all, name, removed);
    return removed;
}

void removed_begin(struct removed_bucket **all, const char *bucket)
{
    struct removed_bucket *removed = removed_obtain(all, bucket);

    if (removed != NULL)
        removed->in_progress++;
}

void removed_end(struct removed_bucket **all, const char *bucket)
{
    struct removed_bucket *removed = removed_find(*all, bucket);

    if (removed == NULL || removed->in_progress == 0)
        return;
    if (--removed->in_progress == 0 && removed->removed_ms == 0)
        removed_forget(all, removed);
}

bool removed_is_in_progress(const struct removed_bucket *all, const char *bucket)
{
    const struct removed_bucket *removed = removed_find((struct removed_bucket *)all, bucket);

    return removed != NULL && removed->in_progress > 0;
}

void removed_note(struct removed_bucket **all, const char *bucket, uint64_t now_ms)
{
    struct removed_bucket *removed = removed_obtain(all, bucket);

    if (removed == NULL)
        return;
    removed->removed_ms = now_ms;
    HASH_DEL(*all, removed); /* it becomes the newest */
    HASH_ADD_STR(*all, name, removed);
}

bool removed_is_recent(const struct removed_bucket *all, const char *bucket, uint64_t now_ms)
{
    const struct removed_bucket *removed = removed_find((struct removed_bucket *)all, bucket);

    return removed != NULL && removed->removed_ms > 0 && now_ms - removed->removed_ms < REMOVED_MS;
}

void removed_forget_all(struct removed_bucket **all)
{
    while (*all != NULL)
        removed_forget(all, *all);
}
