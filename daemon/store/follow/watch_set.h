/*
 * watch_set: the watches of one bucket, and the delivery of changes to them.
 *
 * Used by local_copy, which has one, and by watch, whose watches are its members. It finds the watches that a key
 * matches, and delivers a change at once or through a backlog. It knows a watch only through the functions of
 * watch_member_ops.
 */
#ifndef DAEMON_STORE_WATCH_SET_H
#define DAEMON_STORE_WATCH_SET_H

#include "daemon/base/jobs.h"
#include "daemon/store/context.h"
#include "daemon/store/follow/backlog.h"
#include "daemon/store/follow/filter_tree.h"

#define WATCH_FILTERS_MAX 64u

struct watch_member;

/* What a watch does. Only begin and end may remove the member from its set, and no other one. */
struct watch_member_ops {
    /* The bucket may be followed now: begin, if the watch has not begun. */
    void (*begin)(struct watch_member *member);
    /*
     * Deliver a change. serial is the same for all members. is_unrecorded: the stream has no message of the change.
     * Return whether the copy should keep the change: the watch has begun, and so wants changes of this key, or was
     * delivered this one by its reading.
     */
    bool (*deliver)(struct watch_member *member, const struct kv_entry *entry, uint64_t serial, bool is_unrecorded);
    /* Fall behind, beginning with this change: see backlog. Return the same. */
    bool (*fall_behind)(struct watch_member *member, struct backlog_change *change);
    /* The watch is behind by too much: end it when its turn comes. revision: to resume from; 0: there is none. */
    void (*lose)(struct watch_member *member, uint64_t revision);
    /* Pack an entry in all forms. The bytes are valid until the next entry is packed or delivered. */
    void (*pack)(struct watch_member *member, const struct kv_entry *entry, uint64_t serial,
                 struct watch_packed packed[WATCH_FORMS]);
    /* Return whether the watch's client has read what was delivered, but for a part that is not worth waiting for. */
    bool (*has_room)(struct watch_member *member);
    /* The bucket was recreated: all that it holds is delivered as changes. */
    void (*recreate)(struct watch_member *member);
    /* Return whether it is beginning, and its beginning has made progress since then (loop time). */
    bool (*begins)(struct watch_member *member, uint64_t since_ms);
    /* Delete markers up to this revision are about to be removed. */
    void (*note_removal)(struct watch_member *member, uint64_t revision);
    /* The cache is about to be cleared: continue from the stream. */
    void (*leave_cache)(struct watch_member *member);
    /* The feed has moved on. Only for members that await it: see watch_set_await_progress. */
    void (*progress)(struct watch_member *member);
    void (*end)(struct watch_member *member, const struct error *error);
};

/* One watch. The owner embeds it, zeroed. */
struct watch_member {
    /* Set by the owner; borrowed. */
    const struct watch_member_ops *ops;
    const char *const *filters;
    size_t filter_count;
    bool wants_previous; /* the value before each change */

    /* private to watch_set */
    struct watch_member *next, *previous;
    struct watch_member *next_awaiting, *previous_awaiting; /* previous_awaiting is NULL: it awaits nothing */
    struct filter_ref *refs;                                /* of filters, in the set's tree */
    uint64_t matched_serial;                                /* of the last entry that a filter matched */
    struct backlog_reader backlog;                          /* its change is not NULL while the watch is behind */
};

struct watch_set {
    struct store *store;
    struct watch_member *members;
    unsigned count;
    size_t filter_count;           /* of all members */
    struct filter_tree tree;       /* of their filters */
    unsigned values_wanted;        /* members that want the value before each change */
    struct watch_member **matches; /* scratch: the members that a key matches */
    size_t match_count, match_capacity;
    struct backlog backlog;
    struct watch_member *awaiting; /* members whose progress is called: see watch_cut */
    struct job beginning;
    struct watch_member *next_to_begin; /* NULL: beginning is not in progress */
    unsigned
        beginning_count;   /* members that have begun, and were not delivered all that was there at their beginning */
    uint64_t vanished_at;  /* revision at which the last unrecorded change was delivered; 0: there was none */
    uint64_t compacted_to; /* delete markers up to this revision may have been removed */
};

void watch_set_init(struct watch_set *set, struct store *store);

/* The set must be empty. */
void watch_set_free(struct watch_set *set);

/* --- Members --------------------------------------------------------------------------------------- */

/* Add a member; its filters are in the tree. False: out of memory. */
bool watch_set_add(struct watch_set *set, struct watch_member *member);
void watch_set_remove(struct watch_set *set, struct watch_member *member);

/* From now on, or no longer, call the member's progress after each message that the feed delivers. */
void watch_set_await_progress(struct watch_set *set, struct watch_member *member);
void watch_set_stop_awaiting(struct watch_set *set, struct watch_member *member);
void watch_set_note_progress(struct watch_set *set);

/* --- Delivery -------------------------------------------------------------------------------------- */

/* Deliver a change. Return whether a watch may want changes of this key. */
bool watch_set_deliver(struct watch_set *set, const struct kv_entry *entry);

/*
 * Deliver a change of which the stream has no message: a key has vanished, or has an earlier value again. The entry's
 * revision may be lower than what was delivered. A watch that is resumed from a revision is not delivered it.
 */
bool watch_set_deliver_unrecorded(struct watch_set *set, const struct kv_entry *entry);

/* Return whether the clients of all watches have read what was delivered, but for a part not worth waiting for. */
bool watch_set_has_room(const struct watch_set *set);

/*
 * Return whether a watch that is resumed from this revision may miss unrecorded changes or removed markers. Keys may
 * have vanished several times at one revision: a client that resumes at the first time knows of none.
 */
static inline bool watch_set_has_lost_since(const struct watch_set *set, uint64_t revision)
{
    return (set->vanished_at > 0 && revision <= set->vanished_at + 1) || revision <= set->compacted_to;
}

static inline void watch_set_note_compacted(struct watch_set *set, uint64_t revision)
{
    if (revision > set->compacted_to)
        set->compacted_to = revision;
}

/* --- All members ----------------------------------------------------------------------------------- */

/* Begin the watches that wait for the bucket to be followed: now, or a slice at a time if they are many. */
void watch_set_begin(struct watch_set *set);

/* Return whether a watch is beginning whose beginning has made progress since then (loop time). */
bool watch_set_begins(const struct watch_set *set, uint64_t since_ms);

/* Delete markers up to this revision are about to be removed. */
void watch_set_note_removal(struct watch_set *set, uint64_t revision);

/* The cache is about to be cleared. */
void watch_set_leave_cache(struct watch_set *set);

/* The bucket was recreated: revisions begin again. */
void watch_set_recreate(struct watch_set *set);

/* End watches until the slice is over. Return whether there are more. */
bool watch_set_end_some(struct watch_set *set, const struct error *error);
void watch_set_end_all(struct watch_set *set, const struct error *error);

#endif
