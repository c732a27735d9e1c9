/*
 * bucket_names: lists the names of buckets.
 *
 * Used by the handlers, and by follow for the buckets that are to be cached. NATS returns up to 1,024 names at a time.
 * They are filtered in slices, because patterns take time. Few lists are in progress at a time, because each holds a
 * page of NATS. The others wait for their turn.
 */
#ifndef DAEMON_STORE_BUCKET_NAMES_H
#define DAEMON_STORE_BUCKET_NAMES_H

#include "daemon/base/arena.h"
#include "daemon/base/turns.h"
#include "daemon/store/context.h"

/* The names in byte order, which live as long as the arena; or an error. */
typedef void bucket_names_fn(void *arg, const char *const *names, size_t count, const struct error *error);

struct bucket_names {
    /* Set by the caller, zeroed otherwise; borrowed until done was called. */
    size_t limit; /* the first names in byte order; 0: all */
    bool (*is_wanted)(void *arg, const char *name);
    uint64_t deadline_ms;
    /* Return whether the memory of the calls is below its limit; NULL: it is not limited. The arena has counted it. */
    bool (*take_memory)(void *arg, size_t bytes);
    void *memory_arg;
    bucket_names_fn *done;
    void *arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct turn turn;
    struct timer deadline; /* while it waits for its turn */
    struct jetstream_call call;
    json_t *page;   /* names of streams; NULL: none are being filtered */
    size_t next;    /* of them */
    uint64_t total; /* number of streams */
    uint64_t offset;
    struct job filtering;
    const char **names;
    size_t count, capacity;
};

/* At a time. */
#define BUCKET_NAMES_LISTS_MAX 8u

/* done is not called from within. */
void bucket_names_list(struct store *store, struct arena *arena, struct bucket_names *names);

#endif
