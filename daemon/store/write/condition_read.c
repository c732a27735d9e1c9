#include "daemon/store/write/condition_read.h"

#include <string.h>

/* A leader's answer without a large value. */
#define CHUNK_BYTES 2048u

static void on_condition_read(void *arg, const struct kv_entry *last, const struct error *error)
{
    struct condition_read *read = arg;
    struct arena arena = read->arena; /* done may end the call, with the memory of *read */

    read->has_arena = false;
    read->done(read->arg, last, error);
    arena_destroy(&arena);
}

void condition_read_start(struct store *store, struct arena *caller, struct condition_read *read)
{
    struct get *get = &read->get;
    struct error error;

    read->has_arena = arena_init(&read->arena, CHUNK_BYTES);
    if (!read->has_arena) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        read->done(read->arg, NULL, &error);
        return;
    }
    read->arena.owner = caller->owner;
    read->arena.call_id = caller->call_id;
    read->arena.caller = caller;
    memset(get, 0, sizeof(*get));
    get->bucket_name = read->bucket_name;
    get->key = read->key;
    get->consistency = READ_LEADER;
    get->with_markers = true;
    get->deadline_ms = read->deadline_ms;
    get->done = on_condition_read;
    get->arg = read;
    get_start(store, &read->arena, get);
}

void condition_read_cancel(struct condition_read *read)
{
    if (read->has_arena)
        arena_destroy(&read->arena);
    read->has_arena = false;
}
