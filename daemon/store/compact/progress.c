#include "daemon/store/compact/progress.h"

#include "daemon/base/table.h"
#include "daemon/nats/kv.h"
#include "daemon/store/compact/state.h"

#include <stdio.h>
#include <stdlib.h>

/* Beyond this number of buckets, the oldest is dropped. */
#define PROGRESS_MAX 1000u

struct compact_progress {
    UT_hash_handle hh; /* by the bucket's name */
    uint64_t incarnation, sequence;
    char bucket[KV_BUCKET_LENGTH_MAX + 1];
};

static struct compact_progress *compact_progress_of(const struct store *store, const char *bucket)
{
    struct compact_progress *progress = NULL;

    HASH_FIND_STR(store->compact->progress, bucket, progress);
    return progress;
}

static void compact_progress_drop(struct store *store, struct compact_progress *progress)
{
    HASH_DEL(store->compact->progress, progress);
    free(progress);
}

uint64_t compact_progress_find(const struct store *store, const char *bucket, uint64_t incarnation)
{
    const struct compact_progress *progress = compact_progress_of(store, bucket);

    return progress != NULL && progress->incarnation == incarnation ? progress->sequence : 0;
}

void compact_progress_note(struct store *store, const char *bucket, uint64_t incarnation, uint64_t sequence)
{
    struct compact_progress *progress = compact_progress_of(store, bucket);

    if (progress != NULL)
        compact_progress_drop(store, progress);
    if (sequence == 0 || (progress = calloc(1, sizeof(*progress))) == NULL)
        return;
    if (HASH_COUNT(store->compact->progress) >= PROGRESS_MAX)
        compact_progress_drop(store, store->compact->progress); /* uthash keeps the order of insertion */
    progress->incarnation = incarnation;
    progress->sequence = sequence;
    snprintf(progress->bucket, sizeof(progress->bucket), "%s", bucket);
    HASH_ADD_STR(store->compact->progress, bucket, progress);
}

void compact_progress_forget_all(struct store *store)
{
    while (store->compact->progress != NULL)
        compact_progress_drop(store, store->compact->progress);
}
