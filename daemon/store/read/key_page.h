/*
 * key_page: the lowest keys of those that a reading of a bucket brings, in byte order.
 *
 * Used by scan. The reading brings puts and removals in the order in which they were made. A key that lies beyond a
 * page that is full is dropped, and sets the page's bound: from then on no key from the bound on is accepted, because
 * the page would lack the dropped one. So if keys of the page are removed later, the page stays short, and right.
 */
#ifndef DAEMON_STORE_KEY_PAGE_H
#define DAEMON_STORE_KEY_PAGE_H

#include "daemon/store/read/key_order.h"

struct key_page {
    /* Set by the owner, the rest zeroed. */
    size_t limit;       /* keys at most; 0: no limit */
    bool has_revisions; /* note the revision and the size of each key's value */

    /* Read only. */
    struct key_order names;
    size_t count;
    size_t packed_bytes; /* that the names take in an answer, at most */
    size_t memory_bytes; /* of the names */

    /* private */
    char *bound; /* the lowest name that was dropped; NULL: none was */
};

enum key_page_added {
    KEY_PAGE_ADDED, /* the key is in the page, or was before */
    KEY_PAGE_BEYOND,
    KEY_PAGE_NO_MEMORY
};

/* A key has a value. revision and value_bytes are noted if the page has revisions. */
enum key_page_added key_page_add(struct key_page *page, const char *key, uint64_t revision, uint64_t value_bytes);

/* A key is removed. Does nothing if it is not in the page. */
void key_page_remove(struct key_page *page, const char *key);

static inline bool key_page_is_full(const struct key_page *page)
{
    return page->limit > 0 && page->count >= page->limit;
}

/* Return whether keys were removed that others, which were dropped before, would replace. */
static inline bool key_page_is_short(const struct key_page *page)
{
    return page->bound != NULL && page->count < page->limit;
}

/* Return what was noted of a name of a page that has revisions. */
uint64_t key_page_revision(const char *name);
uint64_t key_page_value_bytes(const char *name);

/* Discard all keys and the bound. */
void key_page_clear(struct key_page *page);

/* Discard up to count keys. Return whether there are more. */
bool key_page_clear_some(struct key_page *page, unsigned count);

#endif
