#include "daemon/store/bulk.h"

#include <string.h>

/* Writes of one call that are on their way at a time: what a group commit can take at once. */
#define WINDOW 1000u

struct bulk_slot {
    struct write write;
    struct bulk_write *bulk;
    struct bulk_slot *next_spare;
    size_t index;
};

struct error *bulk_copy_error(struct arena *arena, const struct error *error)
{
    static struct error out_of_memory = {
        .code = ERROR_RESOURCE_EXHAUSTED, .retryable = true, .message = "out of memory"};
    struct error *copy = arena != NULL ? arena_alloc(arena, sizeof(*copy)) : NULL;

    if (copy == NULL)
        return &out_of_memory;
    *copy = *error;
    return copy;
}

static void fill(struct bulk_write *bulk);

static void on_written(void *arg, uint64_t revision, const struct error *error)
{
    struct bulk_slot *slot = arg;
    struct bulk_write *bulk = slot->bulk;
    struct bulk_result *result = &bulk->results[slot->index];

    result->revision = revision;
    if (error != NULL) {
        result->error = bulk_copy_error(bulk->arena, error);
    }
    slot->next_spare = bulk->spare;
    bulk->spare = slot;
    bulk->in_flight--;
    fill(bulk);
}

static struct bulk_slot *take_slot(struct bulk_write *bulk)
{
    struct bulk_slot *slot = bulk->spare;

    if (slot == NULL)
        return arena_alloc(bulk->arena, sizeof(*slot));
    bulk->spare = slot->next_spare;
    return slot;
}

static void start_next(struct bulk_write *bulk)
{
    struct bulk_slot *slot = take_slot(bulk);
    size_t index = bulk->next++;

    if (slot == NULL) {
        bulk->results[index].error = bulk_copy_error(NULL, NULL);
        return;
    }
    memset(slot, 0, sizeof(*slot));
    slot->bulk = bulk;
    slot->index = index;
    slot->write.bucket = bulk->bucket;
    slot->write.operation = bulk->operations[index];
    slot->write.deadline_ms = bulk->deadline_ms;
    slot->write.done = on_written;
    slot->write.arg = slot;
    bulk->in_flight++;
    write_start(bulk->store, bulk->arena, &slot->write);
}

/* Writes may end while they are begun: only the outermost call goes on and says when all are done. */
static void fill(struct bulk_write *bulk)
{
    if (bulk->is_filling)
        return;
    bulk->is_filling = true;
    while (bulk->next < bulk->count && bulk->in_flight < WINDOW) {
        if (bulk->results[bulk->next].error != NULL)
            bulk->next++;
        else
            start_next(bulk);
    }
    bulk->is_filling = false;
    if (bulk->next == bulk->count && bulk->in_flight == 0)
        bulk->done(bulk->arg);
}

void bulk_write(struct store *store, struct arena *arena, struct bulk_write *bulk)
{
    bulk->store = store;
    bulk->arena = arena;
    fill(bulk);
}
