/*
 * bulk_write: many writes in one call, each with a result of its own.
 *
 * Used by the handlers. The writes are sent like single ones, as many at a time as bulk_window allows.
 */
#ifndef DAEMON_STORE_BULK_WRITE_H
#define DAEMON_STORE_BULK_WRITE_H

#include "daemon/base/arena.h"
#include "daemon/base/timers.h"
#include "daemon/store/write/bulk_window.h"
#include "daemon/store/write/operation.h"
#include "daemon/store/write/write.h"

struct bulk_result {
    uint64_t revision;
    struct error *error; /* NULL: it was written */
};

struct bulk_write {
    /* Set by the caller; borrowed until done was called. */
    const char *bucket_name;
    const struct operation *operations;
    size_t count;
    struct bulk_result
        *results; /* one for each operation; an operation whose result has an error already is left out */
    uint64_t deadline_ms;
    void (*done)(void *arg);
    bool (*is_cancelled)(void *arg); /* true: begin no further write; NULL: always false */
    void *arg;
    struct journal_call journal; /* the client's id, if there is one; each operation is a part */

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct bulk_claim claim;
    struct timer deadline;
    struct bulk_slot *spare;
    struct error unbegun; /* of all writes that have not begun at the deadline, or when the call was cancelled */
    size_t next;
    bool is_filling;
};

/* Write all. done is called once, when each has its result; maybe from within. */
void bulk_write(struct store *store, struct arena *arena, struct bulk_write *bulk);

/*
 * Copy the error of a key into the arena. A failed key must never look like a written one: without memory, or if arena
 * is NULL, return the error "out of memory".
 */
struct error *bulk_copy_error(struct arena *arena, const struct error *error);

/* --- For the facade --- */

/* Return 0, or -1 if memory ran out. */
int bulk_write_init_all(struct store *store);
void bulk_write_free_all(struct store *store);

#endif
