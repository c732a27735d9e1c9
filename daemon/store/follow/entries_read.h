/*
 * entries_read: reads a page of the entries of a bucket, in key order and at one point in time.
 *
 * Used by the handlers. Entries that a client may read from memory come from the local copy. A page ends early at about
 * ENTRIES_PAGE_BYTES, or if the bucket changes before the page is complete: the entries that were read before are still
 * of one point in time. So only a page without entries means that there are no more.
 *
 * Values that are not in memory come from NATS. Then the keys are known first, with their revisions, from the copy or
 * from a reading of the stream. The page is what the bucket had at that time. Each value must have the revision of its
 * key, and the page ends before the first key that was written meanwhile. If that is the very first key, the page has
 * it alone, as it is now, if no message of a key before it has come since. Otherwise the keys are read again.
 */
#ifndef DAEMON_STORE_ENTRIES_READ_H
#define DAEMON_STORE_ENTRIES_READ_H

#include "daemon/base/arena.h"
#include "daemon/store/follow/cached_read.h"
#include "daemon/store/read/bulk_get.h"
#include "daemon/store/read/scan.h"

/* A page ends before its entries exceed this size, but has at least one. */
#define ENTRIES_PAGE_BYTES (1024u * 1024u)

/* Where the entries come from. */
enum entries_source {
    ENTRIES_FROM_MEMORY,
    ENTRIES_KEYS_FROM_MEMORY, /* a value is not in memory: the page comes from NATS, its keys from the copy */
    ENTRIES_FROM_NATS
};

struct entries_read {
    /* Set by the caller, the rest zeroed; borrowed until done was called. */
    const char *bucket_name;
    const char *filter; /* NULL: all keys */
    const char *after;  /* only keys after this one in byte order; NULL: from the beginning */
    size_t limit;       /* entries at most, above 0 */
    enum read_consistency consistency;
    uint64_t deadline_ms;
    size_t bytes_max;                             /* of the entries that NATS brings; above it fails as too_large */
    bool (*take_memory)(void *arg, size_t bytes); /* charges what is gathered; false: the limit is reached */
    void *memory_arg;
    /* The reading starts again: discard the entries that came before. */
    void (*restart)(void *arg);
    /* An entry, valid during the call, and its place in the page; in any order. Return its bytes in the answer. */
    size_t (*entry)(void *arg, size_t place, const struct kv_entry *entry);
    /* The page has the entries at the places below count, or there was an error. */
    void (*done)(void *arg, size_t count, const struct error *error);
    void *arg;

    /* private */
    struct store *store;
    struct arena *arena;
    struct arena_task task;
    struct bucket_wait wait;
    struct cached_read_snapshot snapshot;
    struct walk walk;
    struct timer try_timer;
    enum entries_source source;
    unsigned tries; /* that ended without an entry */
    const char *prefix;
    size_t count;
    size_t bytes;   /* of the entries */
    size_t charged; /* bytes that take_memory has accounted for */
    /* The walk over the copy. */
    char *cursor;      /* the walk continues here; NULL: at the beginning */
    bool skips_cursor; /* the cursor's key was looked at */
    bool has_begun;    /* the members below are set */
    uint64_t position; /* of the feed, or of the reading of the keys: the page is of that moment */
    unsigned resyncs;  /* of the feed */
    /* For values from NATS: */
    const char **names;
    uint64_t *revisions;
    bool *has_come;
    struct bulk_get *fetch;  /* the last one */
    uint64_t first_revision; /* that the first key has now, if it is another one; 0: unknown, or the key is absent */
    bool is_rechecked;       /* since then no key before the first one was written, unless the bucket was purged */
};

/* Read a page. done is called once, maybe from within. */
void entries_read(struct store *store, struct arena *arena, struct entries_read *read);

#endif
