/*
 * contents: the keys and values that a local copy has in memory.
 *
 * Used by local_copy. For watches the copy has the keys that they were delivered, to notice when one vanishes without a
 * message. For reads it has all keys, and their values within cache.max_bytes. The memory counts for the user who
 * has caused it. If there is no room for the keys of all buckets, the user with the most memory gives up the contents
 * of the bucket that has most of it.
 */
#ifndef DAEMON_STORE_CONTENTS_H
#define DAEMON_STORE_CONTENTS_H

#include "daemon/base/jobs.h"
#include "daemon/store/follow/cache.h"

#include <string.h>

struct local_copy;
struct store;

enum contents_state {
    CONTENTS_WATCHED_KEYS, /* keys that watches were delivered; no values */
    CONTENTS_GIVEN_UP,     /* nothing: there is no room for the keys alone */
    CONTENTS_UNREAD,       /* values are wanted; what there is came from the feed */
    CONTENTS_READ,         /* all keys were read; the feed may still have to reach what was read */
    CONTENTS_COMPLETE      /* every key is there: reads are served */
};

struct contents {
    struct cache cache;
    enum contents_state state;
    struct job dropping; /* drops values that are no longer wanted, a slice at a time */
    struct cache_cursor drop_cursor;
    uint64_t given_up_ms; /* loop time, if it is given up */
};

void contents_init(struct contents *contents, struct store *store);

/* Free everything. The memory of large contents is freed a slice at a time. */
void contents_clear(struct local_copy *copy);

/* Return whether values are wanted, by reads or by cache.buckets. */
static inline bool contents_have_values(const struct contents *contents)
{
    return contents->state >= CONTENTS_UNREAD;
}

/* Return the revision that is known of a key; 0: none. */
static inline uint64_t contents_revision_of(const struct contents *contents, const char *key)
{
    const struct cache_key *known = cache_find(&contents->cache, key, strlen(key));

    return known != NULL ? known->revision : 0;
}

/* From now on values are kept. False: they are kept already, or there is no room. */
bool contents_want_values(struct local_copy *copy);

/* Values are no longer wanted. */
void contents_drop_values(struct local_copy *copy);

/* All keys were read, or (is_complete false) all but their values. Has no effect if values are not wanted. */
void contents_note_read(struct contents *contents, bool is_complete);

/* What was read is void: the bucket was recreated. */
void contents_invalidate(struct contents *contents);

/* The contents are complete if all was read and the feed is live: wake the calls that wait for that. */
void contents_complete(struct local_copy *copy);

/* Return whether values are wanted and there is certainly no room for the bucket's keys. */
bool contents_are_too_large(const struct local_copy *copy);

/* Give up the contents, because there is no room for the keys alone. */
void contents_give_up(struct local_copy *copy);

/* Return whether they were given up cache.idle_timeout ago or longer, and there is room for the bucket's keys now. */
bool contents_may_come_back(const struct local_copy *copy);

/* Keep an entry, and its value if values are wanted. May give up the contents of a bucket of the user with the most
 * memory. */
void contents_keep(struct local_copy *copy, const struct kv_entry *entry);

/* A watch was delivered an entry that was read beside the feed: keep its key if the contents are those of watches. */
void contents_note_delivered(struct local_copy *copy, const struct kv_entry *entry);

/* Give a key its value back, as it was read, if it is the same entry and was evicted. */
void contents_restore(struct local_copy *copy, struct cache_key *key, const struct kv_entry *entry);

/* Free the memory of all contents that were cleared: at the daemon's end. */
void contents_free_all(struct store *store);

#endif
