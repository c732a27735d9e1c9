#include "daemon/store/follow/min_revision.h"

#include "daemon/base/table.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Keys with a minimum of their own. Beyond that, it becomes the minimum of all keys. */
#define KEYS_MAX 65536u

/* The minimum of one key, or the mark of a doubtful one. */
struct min_revision {
    UT_hash_handle hh;
    struct min_revision *next, *previous; /* if it is neither doubtful nor skipped */
    bool is_doubtful;
    bool is_skipped;   /* the feed has passed it */
    bool is_candidate; /* skipped before the present check began, which has not met a newer message of the key */
    uint64_t revision; /* 0 if it is doubtful */
    uint64_t since;    /* the lowest one that it had and that the feed has not brought: maybe it is gone */
    char key[];
};

static struct min_revision *min_revision_find(const struct min_revisions *minimums, const char *key, size_t length)
{
    struct min_revision *found = NULL;

    if (minimums->keys != NULL)
        HASH_FIND(hh, minimums->keys, key, length, found);
    return found;
}

/* Return a new entry; NULL: out of memory, or there are too many. */
static struct min_revision *min_revision_add(struct min_revisions *minimums, const char *key, bool is_doubtful,
                                             uint64_t revision)
{
    size_t length = strlen(key);
    struct min_revision *added = HASH_COUNT(minimums->keys) < KEYS_MAX ? malloc(sizeof(*added) + length + 1) : NULL;

    if (added == NULL)
        return NULL;
    added->is_doubtful = is_doubtful;
    added->is_skipped = added->is_candidate = false;
    added->revision = added->since = revision;
    memcpy(added->key, key, length + 1);
    HASH_ADD_KEYPTR(hh, minimums->keys, added->key, length, added);
    if (is_doubtful)
        minimums->doubtful_count++;
    else
        DL_APPEND2(minimums->first, added, previous, next);
    return added;
}

static void min_revision_drop(struct min_revisions *minimums, struct min_revision *dropped)
{
    HASH_DEL(minimums->keys, dropped);
    if (dropped->is_doubtful)
        minimums->doubtful_count--;
    else if (dropped->is_skipped)
        minimums->skipped_count--;
    else
        DL_DELETE2(minimums->first, dropped, previous, next);
    free(dropped);
}

void min_revision_raise_all(struct min_revisions *minimums, uint64_t revision)
{
    if (revision > minimums->of_all)
        minimums->of_all = revision;
}

void min_revision_raise(struct min_revisions *minimums, const char *key, uint64_t revision)
{
    struct min_revision *found = min_revision_find(minimums, key, strlen(key));

    if (revision > minimums->highest)
        minimums->highest = revision;
    if (found != NULL && found->is_doubtful) {
        /* Any new entry ends the doubt, also an older one: so the revision is kept for all keys. */
        min_revision_raise_all(minimums, revision);
        return;
    }
    if (found != NULL && found->revision >= revision)
        return;
    /* What it was before stays of interest: a read of all keys that began then must not miss it. */
    if (found != NULL) {
        found->revision = revision;
        found->is_candidate = false;
    } else if (min_revision_add(minimums, key, false, revision) == NULL)
        min_revision_raise_all(minimums, revision);
}

void min_revision_doubt(struct min_revisions *minimums, const char *key, uint64_t position)
{
    struct min_revision *found = min_revision_find(minimums, key, strlen(key));

    if (found != NULL && found->is_doubtful)
        return;
    if (found != NULL) {
        min_revision_raise_all(minimums, found->revision);
        min_revision_drop(minimums, found);
    }
    if (min_revision_add(minimums, key, true, 0) == NULL)
        min_revision_raise_all(minimums, position + 1);
}

uint64_t min_revision_of_key(const struct min_revisions *minimums, const char *key, size_t length)
{
    const struct min_revision *found = min_revision_find(minimums, key, length);

    return found != NULL ? found->revision : 0;
}

uint64_t min_revision_of(const struct min_revisions *minimums, const char *key, size_t length)
{
    uint64_t of_key = min_revision_of_key(minimums, key, length);

    return of_key > minimums->of_all ? of_key : minimums->of_all;
}

uint64_t min_revision_of_all(const struct min_revisions *minimums)
{
    uint64_t revision = minimums->of_all > minimums->acked ? minimums->of_all : minimums->acked;

    return minimums->highest > revision ? minimums->highest : revision;
}

bool min_revision_is_doubtful(const struct min_revisions *minimums, const char *key, size_t length)
{
    if (minimums->doubtful_count == 0)
        return false;
    const struct min_revision *found = min_revision_find(minimums, key, length);
    return found != NULL && found->is_doubtful;
}

/* A newer message has come, but not the one of its minimum, which was raised meanwhile. */
static void min_revision_unskip(struct min_revisions *minimums, struct min_revision *minimum)
{
    minimum->is_skipped = minimum->is_candidate = false;
    minimum->since = minimum->revision;
    minimums->skipped_count--;
    DL_APPEND2(minimums->first, minimum, previous, next);
}

void min_revision_trust(struct min_revisions *minimums, const char *key, uint64_t revision)
{
    if (!min_revision_has_open_keys(minimums))
        return;
    struct min_revision *found = min_revision_find(minimums, key, strlen(key));
    if (found == NULL || (found->is_skipped ? found->since > revision : !found->is_doubtful))
        return;
    if (found->revision <= revision)
        min_revision_drop(minimums, found);
    else
        min_revision_unskip(minimums, found);
}

void min_revision_begin_check(struct min_revisions *minimums)
{
    struct min_revision *minimum, *next;

    if (minimums->skipped_count == 0)
        return;
    HASH_ITER(hh, minimums->keys, minimum, next)
    {
        minimum->is_candidate = minimum->is_skipped;
    }
}

void min_revision_note_newer(struct min_revisions *minimums, const char *key)
{
    struct min_revision *found = minimums->skipped_count > 0 ? min_revision_find(minimums, key, strlen(key)) : NULL;

    if (found != NULL)
        found->is_candidate = false;
}

void min_revision_trust_all(struct min_revisions *minimums)
{
    struct min_revision *minimum, *next;

    HASH_ITER(hh, minimums->keys, minimum, next)
    {
        if (minimum->is_doubtful || minimum->is_candidate)
            min_revision_drop(minimums, minimum);
    }
}

static void min_revision_pass(struct min_revisions *minimums, struct min_revision *passed)
{
    DL_DELETE2(minimums->first, passed, previous, next);
    passed->is_skipped = true;
    minimums->skipped_count++;
}

/* The list is nearly sorted: a minimum that is out of order is dropped later. */
void min_revision_drop_reached(struct min_revisions *minimums, uint64_t position, min_revision_has_fn *has,
                               const void *arg)
{
    struct min_revision *first;

    while ((first = minimums->first) != NULL && first->since <= position) {
        if (has(arg, first->key, first->revision)) {
            min_revision_drop(minimums, first);
        } else if (first->since < first->revision && has(arg, first->key, first->since)) {
            first->since = first->revision;
            DL_DELETE2(minimums->first, first, previous, next);
            DL_APPEND2(minimums->first, first, previous, next);
        } else {
            min_revision_pass(minimums, first);
        }
    }
}

void min_revision_skip(struct min_revisions *minimums, const char *key, uint64_t revision)
{
    struct min_revision *found = min_revision_find(minimums, key, strlen(key));

    if (found != NULL && (found->is_doubtful || found->revision >= revision))
        return;
    if (found != NULL)
        min_revision_drop(minimums, found);
    found = min_revision_add(minimums, key, false, revision);
    if (found != NULL)
        min_revision_pass(minimums, found);
}

void min_revision_clear(struct min_revisions *minimums)
{
    struct min_revision *minimum, *next;

    HASH_ITER(hh, minimums->keys, minimum, next)
    {
        min_revision_drop(minimums, minimum);
    }
    minimums->of_all = minimums->highest = 0;
}
