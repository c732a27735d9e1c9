/*
 * modify: a call whose new entry depends on the present one, and which its client may repeat.
 *
 * Used by increment and rewrite, which read the entry and write on the condition that it has not changed. This module
 * asks the journal first. If an earlier call with the id has sent a copy, it determines whether that copy is stored.
 * Only if it is not, the call begins.
 */
#ifndef DAEMON_STORE_MODIFY_H
#define DAEMON_STORE_MODIFY_H

#include "daemon/base/arena.h"
#include "daemon/store/context.h"
#include "daemon/store/journal.h"
#include "daemon/store/write/write.h"

struct modify;

struct modify_ops {
    /* Nothing of the call is stored: begin, or begin again. Maybe called from within modify_start and modify_check. */
    void (*begin)(struct modify *modify);
    /* The call has ended: it is stored at the revision, with the value that was noted; or it has failed. */
    void (*done)(struct modify *modify, uint64_t revision, int64_t value, const struct error *error);
    /* Stop at once what begin has started: the call ends without an answer. */
    void (*cancel)(struct modify *modify);
    /* Return whether nothing that begin has started was sent to NATS. */
    bool (*is_unsent)(const struct modify *modify);
};

/* The owner embeds it, zeroed but for what it sets, in the arena's memory. */
struct modify {
    /* Set by the owner; strings are borrowed until done was called. */
    const char *bucket_name, *key;
    uint64_t deadline_ms;
    struct journal_call journal; /* with the digest: see journal_describe */
    const struct modify_ops *ops;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct timer timer; /* while an earlier call runs */
    struct journal_copy inherited;
    bool is_bound;
};

void modify_start(struct store *store, struct arena *arena, struct modify *modify);

/*
 * The key was found at this revision (0: it has no message). Return whether the call may write to it. If not, the copy
 * of an earlier call may have been stored meanwhile: the owner must call modify_check instead.
 */
bool modify_may_write_at(const struct modify *modify, uint64_t revision);

/* Determine again whether the copy of the earlier call is stored. Then begin is called, or the call ends. */
void modify_check(struct modify *modify);

/* A copy is about to be sent. value: see journal_copy. */
void modify_note_sent(struct modify *modify, const struct journal_copy *copy, int64_t value);

/* End the call, and call done. */
void modify_finish(struct modify *modify, uint64_t revision, int64_t value, const struct error *error);

#endif
