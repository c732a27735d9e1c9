#include "daemon/store/write/bucket_writes.h"

#include "daemon/store/write/group_commit.h"
#include "daemon/store/write/ledger.h"

#include <stdlib.h>

static void bucket_writes_release(void *attachment)
{
    struct bucket_writes *writes = attachment;

    if (writes->group != NULL)
        group_commit_release(writes->group);
    if (writes->ledger != NULL)
        ledger_release(writes->ledger);
    free(writes);
}

static void *bucket_writes_make(struct store *store)
{
    struct bucket_writes *writes = calloc(1, sizeof(*writes));

    if (writes == NULL)
        return NULL;
    writes->group = group_commit_new(store);
    writes->ledger = ledger_new(store->jobs, &store->requests);
    if (writes->group != NULL && writes->ledger != NULL)
        return writes;
    bucket_writes_release(writes);
    return NULL;
}

/* A key in doubt, or a write that waits for one, holds the ledger. Without it, the key would take another write. */
static bool bucket_writes_are_in_use(const void *attachment)
{
    return ledger_is_shared(((const struct bucket_writes *)attachment)->ledger);
}

static const struct bucket_attachment_ops bucket_writes_ops = {
    .make = bucket_writes_make, .release = bucket_writes_release, .is_in_use = bucket_writes_are_in_use};

void bucket_writes_init(struct store *store)
{
    bucket_attach(store, &bucket_writes_ops);
}
