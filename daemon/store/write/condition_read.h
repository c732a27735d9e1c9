/*
 * condition_read: reads the last message of a key, to judge a condition.
 *
 * Used by write and txn. What is read is in memory of its own, and goes at once: a write needs only the revision, and
 * may read a large value many times, or wait for long afterwards.
 */
#ifndef DAEMON_STORE_CONDITION_READ_H
#define DAEMON_STORE_CONDITION_READ_H

#include "daemon/base/arena.h"
#include "daemon/store/read/get.h"

/* The key's last message, value or marker (NULL: there is none), valid during the call; or an error. */
typedef void condition_read_fn(void *arg, const struct kv_entry *last, const struct error *error);

/* The owner embeds it, zeroed, in memory that lives until done was called. */
struct condition_read {
    /* Set by the owner; borrowed. */
    const char *bucket_name, *key;
    uint64_t deadline_ms;
    condition_read_fn *done;
    void *arg;

    /* private */
    struct get get;
    struct arena arena;
    bool has_arena;
};

/* Read from the leader, for the call of this arena. done may be called from within. */
void condition_read_start(struct store *store, struct arena *caller, struct condition_read *read);

/* End it without an answer. Does nothing if it does not run. */
void condition_read_cancel(struct condition_read *read);

#endif
