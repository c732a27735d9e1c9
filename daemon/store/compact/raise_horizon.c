#include "daemon/store/compact/raise_horizon.h"

#include "daemon/store/follow/horizon.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ARENA_CHUNK_BYTES 2048u
#define REVISION_BYTES    24u

void raise_horizon_stop(struct raise_horizon *raise)
{
    if (!raise->has_arena)
        return;
    raise->has_arena = false;
    arena_destroy(&raise->arena); /* cancels what is in progress in it */
}

static void raise_horizon_fail(struct raise_horizon *raise, enum error_code code, const char *text)
{
    struct error error;

    error_set(&error, code, "%s", text);
    raise->done(raise->arg, &error);
}

static void on_horizon_read(void *arg, const struct kv_entry *entry, const struct error *error);

static void raise_horizon_read(struct raise_horizon *raise)
{
    struct get *get = &raise->get;

    raise_horizon_stop(raise);
    if (!arena_init(&raise->arena, ARENA_CHUNK_BYTES)) {
        raise_horizon_fail(raise, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    raise->has_arena = true;
    raise->arena.owner = raise->owner;
    memset(get, 0, sizeof(*get));
    get->bucket_name = raise->bucket;
    get->key = KV_COMPACTED_KEY;
    get->consistency = READ_LEADER;
    get->with_markers = true;
    get->deadline_ms = raise->deadline_ms;
    get->done = on_horizon_read;
    get->arg = raise;
    get_start(raise->store, &raise->arena, get);
}

static void on_horizon_written(void *arg, uint64_t revision, const struct error *error)
{
    struct raise_horizon *raise = arg;

    (void)revision;
    /* After a conflict another host was faster, and may have written a lower horizon. */
    if (error == NULL || error->code == ERROR_CONFLICT)
        raise_horizon_read(raise);
    else
        raise->done(raise->arg, error);
}

/* revision_before: of the present horizon's message; 0: there is none. */
static void raise_horizon_write(struct raise_horizon *raise, uint64_t revision_before)
{
    struct write *write = &raise->write;
    char *text = arena_alloc(&raise->arena, REVISION_BYTES);
    struct message_header *header = arena_alloc(&raise->arena, sizeof(*header));

    if (text == NULL || header == NULL) {
        raise_horizon_fail(raise, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    snprintf(text, REVISION_BYTES, "%" PRIu64, raise->wanted);
    *header = (struct message_header){KV_HEADER_COMPACTED, text};
    memset(write, 0, sizeof(*write));
    write->bucket_name = raise->bucket;
    write->operation = (struct operation){.key = KV_COMPACTED_KEY,
                                          .kind = KV_PURGE,
                                          .condition = OPERATION_IF_LAST,
                                          .revision = revision_before,
                                          .value = "",
                                          .headers = header,
                                          .header_count = 1};
    write->deadline_ms = raise->deadline_ms;
    write->done = on_horizon_written;
    write->arg = raise;
    write_start(raise->store, &raise->arena, write);
}

/* The horizon is written before the first marker is removed: see beginning_confirm in watch_beginning. */
static void on_horizon_read(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct raise_horizon *raise = arg;

    if (error != NULL) {
        raise->done(raise->arg, error);
        return;
    }
    raise->horizon = horizon_read(entry);
    if (raise->wanted <= raise->horizon)
        raise->done(raise->arg, NULL);
    else if (connection_number(raise->store->connection) != raise->connection)
        raise_horizon_fail(raise, ERROR_UNAVAILABLE, "the connection to NATS was lost; call again to continue");
    else
        raise_horizon_write(raise, entry != NULL ? entry->revision : 0);
}

void raise_horizon_start(struct raise_horizon *raise, uint64_t revision)
{
    raise->wanted = revision;
    raise_horizon_read(raise);
}
