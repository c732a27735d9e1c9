#include "daemon/store/follow/follow.h"

#include "daemon/store/follow/changes.h"
#include "daemon/store/follow/configured_copies.h"
#include "daemon/store/follow/local_copy_read.h"
#include "daemon/store/follow/state.h"

#include <stdlib.h>
#include <string.h>

/* Consumers that are being created at a time; each may then read for long. */
#define CREATIONS_MAX 8u

static void on_bucket_created(struct store *store, const char *bucket)
{
    (void)bucket;
    configured_copies_follow(store);
}

static const struct observer_ops follow_observer_ops = {.revision = local_copy_note_revision,
                                                        .entry = local_copy_note_read,
                                                        .find = local_copy_find_value,
                                                        .known_revision = local_copy_revision_of,
                                                        .absent = local_copy_note_absent,
                                                        .begin_change = local_copy_begin_change,
                                                        .end_change = local_copy_end_change,
                                                        .created = on_bucket_created};

int follow_init(struct store *store)
{
    struct follow_state *follow = calloc(1, sizeof(*follow));

    store->follow = follow;
    if (follow == NULL)
        return -1;
    if (!arena_init(&follow->list_arena, 1024)) {
        free(follow);
        store->follow = NULL;
        return -1;
    }
    follow->store = store;
    follow->walks.jobs = store->jobs;
    follow->cache_budget.max_bytes = store->conf->cache.max_bytes;
    follow->creations.max = CREATIONS_MAX;
    follow->creations.is_of_many_streams = true;
    follow->observer.ops = &follow_observer_ops;
    observe_add(store, &follow->observer);
    return 0;
}

void follow_note_connected(struct store *store)
{
    local_copy_end_doubtful_changes(store);
    configured_copies_follow(store);
}

void follow_reload(struct store *store)
{
    store->follow->cache_budget.max_bytes = store->conf->cache.max_bytes;
    configured_copies_follow(store);
}

void follow_end(struct store *store)
{
    local_copy_end_all(store);
}

void follow_free(struct store *store)
{
    arena_destroy(&store->follow->list_arena);
    jobs_remove(store->jobs, &store->follow->delivering);
    jobs_remove(store->jobs, &store->follow->walks.job);
    contents_free_all(store);
    local_copy_free_changes(store);
    free(store->follow);
    store->follow = NULL;
}

/* What the watches of a copy have not been delivered. */
static void follow_add_backlog(const struct backlog *backlog, struct follow_totals *totals)
{
    if (backlog->first == NULL)
        return;
    totals->behind += backlog->reader_count;
    if (totals->oldest_change_ns == 0 || backlog->first->added_ns < totals->oldest_change_ns)
        totals->oldest_change_ns = backlog->first->added_ns;
}

void follow_total(const struct store *store, struct follow_totals *totals)
{
    const struct local_copy *copy, *next;

    memset(totals, 0, sizeof(*totals));
    totals->backlog_bytes = store->follow->backlog_budget.bytes;
    HASH_ITER(hh, store->follow->local_copies, copy, next)
    {
        totals->buckets++;
        follow_add_backlog(&copy->watches.backlog, totals);
        if (contents_have_values(&copy->contents)) {
            totals->cached_buckets++;
            totals->keys += copy->contents.cache.value_count;
        }
    }
}
