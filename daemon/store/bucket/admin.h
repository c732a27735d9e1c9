/*
 * admin: creates, updates, deletes, purges and describes buckets.
 *
 * Used by the handlers. Each operation makes one or more calls of the JetStream API, and calls back once. A bucket that
 * was changed is forgotten: see bucket_forget.
 */
#ifndef DAEMON_STORE_ADMIN_H
#define DAEMON_STORE_ADMIN_H

#include "daemon/base/arena.h"
#include "daemon/base/turns.h"
#include "daemon/store/bucket/settings.h"
#include "daemon/store/context.h"

struct admin;

/* The bucket as it is now (NULL after a delete or a purge), valid during the call; or an error. */
typedef void admin_info_fn(void *arg, const struct bucket_info *info, const struct error *error);

struct admin {
    /* Set by the caller, zeroed otherwise; borrowed until done was called. */
    const char *bucket_name;
    const struct bucket_config *config; /* of create and update */
    bool is_forced;                     /* update: even if it removes values, locks or ephemeral keys */
    unsigned held;                      /* update: locks and ephemeral keys of sessions in the bucket */
    bool updates_existing;              /* create: if the bucket exists with other settings, update it */
    uint64_t deadline_ms;
    admin_info_fn *done;
    void *arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct jetstream_call call;
    unsigned level;
    json_t *stream;    /* the settings to ask for */
    const char *verb;  /* "STREAM.CREATE" or "STREAM.UPDATE" */
    unsigned tries;    /* of create: times that the bucket was there, and gone when it was looked up */
    bool is_changing;  /* observe_begin_change was called */
    bool is_deleting;  /* removed_begin was called */
    struct timer wait; /* for a deletion of the bucket */
    jetstream_call_fn *changed;
    size_t origin; /* the next bucket that must exist: 0 is the mirror, others are sources */
};

void admin_create(struct store *store, struct arena *arena, struct admin *admin);
void admin_update(struct store *store, struct arena *arena, struct admin *admin);
void admin_delete(struct store *store, struct arena *arena, struct admin *admin);
/* Remove every key of the bucket. */
void admin_purge(struct store *store, struct arena *arena, struct admin *admin);
void admin_info(struct store *store, struct arena *arena, struct admin *admin);

/* Return whether this daemon has deleted the bucket within the last minute. */
bool admin_has_deleted(const struct store *store, const char *bucket_name);

/* --- For bucket_names --- */

/* Return the limit of the calls that administer buckets. */
struct request_limit *admin_calls(const struct store *store);

/* Return the turns of lists. */
struct turns *admin_lists(const struct store *store);

/* --- For the facade --- */

/* Return 0, or -1 if memory ran out. */
int admin_init_all(struct store *store);
void admin_free_all(struct store *store);

#endif
