/*
 * min_revision: the lowest revisions that answers from a local copy must have.
 *
 * Used by local_copy. A key has a minimum while the feed is behind a write or an answer of this daemon. A key is
 * doubtful if NATS answered that it is absent and the feed has delivered no marker: its entry in memory is not served
 * until the feed delivers a new one, or the copy was reconciled.
 */
#ifndef DAEMON_STORE_MIN_REVISION_H
#define DAEMON_STORE_MIN_REVISION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct min_revision;

/* Zeroed: there is no minimum. */
struct min_revisions {
    struct min_revision *keys;  /* uthash */
    struct min_revision *first; /* those that are not doubtful, nearly in the order of their revisions */
    unsigned doubtful_count, skipped_count;
    uint64_t of_all;  /* for each key */
    uint64_t highest; /* of single keys since the last clear */
    uint64_t acked;   /* the highest revision that this daemon has written */
};

/* Raise the minimum of a key. Without memory for one more key it becomes the minimum of all. */
void min_revision_raise(struct min_revisions *minimums, const char *key, uint64_t revision);

/* The same, of a revision that the feed has passed without delivering it: see min_revision_drop_reached. */
void min_revision_skip(struct min_revisions *minimums, const char *key, uint64_t revision);

/* Raise the minimum of all keys. */
void min_revision_raise_all(struct min_revisions *minimums, uint64_t revision);

/* Note the revision of a write. Reads of all keys wait for it; a read of one key only for the key's own minimum. */
static inline void min_revision_note_write(struct min_revisions *minimums, uint64_t revision)
{
    if (revision > minimums->acked)
        minimums->acked = revision;
}

/* Make a key doubtful. Without memory for it, no key is served until the feed has passed its position. */
void min_revision_doubt(struct min_revisions *minimums, const char *key, uint64_t position);

/* Return the minimum of a key; 0: any revision will do. */
uint64_t min_revision_of(const struct min_revisions *minimums, const char *key, size_t length);

/* Return the minimum that is the key's own; 0: it has none. */
uint64_t min_revision_of_key(const struct min_revisions *minimums, const char *key, size_t length);

/* Return the minimum for a read of all keys. */
uint64_t min_revision_of_all(const struct min_revisions *minimums);

bool min_revision_is_doubtful(const struct min_revisions *minimums, const char *key, size_t length);

/* The feed has delivered a new entry of the key: it is no longer doubtful, and has reached a minimum that was skipped.
 */
void min_revision_trust(struct min_revisions *minimums, const char *key, uint64_t revision);

/*
 * Return whether the copy may have an old entry of some key: one is doubtful, or the feed has skipped its minimum, and
 * the newer message is to come.
 */
static inline bool min_revision_has_open_keys(const struct min_revisions *minimums)
{
    return minimums->doubtful_count + minimums->skipped_count > 0;
}

/*
 * A check of all keys begins; it has met a newer message of a key than the copy has, which the feed is to bring. What
 * was skipped before, and of which a check meets nothing newer, is gone.
 */
void min_revision_begin_check(struct min_revisions *minimums);
void min_revision_note_newer(struct min_revisions *minimums, const char *key);

/* The copy was reconciled: no key is doubtful, and what is gone is no minimum. */
void min_revision_trust_all(struct min_revisions *minimums);

/*
 * Drop the minimums that the feed has reached. has: whether the copy has the key at this revision or a later one. If it
 * has not, the message was overwritten before it was delivered, or is gone: the key keeps its minimum until a newer
 * message comes.
 */
typedef bool min_revision_has_fn(const void *arg, const char *key, uint64_t revision);
void min_revision_drop_reached(struct min_revisions *minimums, uint64_t position, min_revision_has_fn *has,
                               const void *arg);

/* Drop all minimums. The revision of the last write stays. */
void min_revision_clear(struct min_revisions *minimums);

#endif
