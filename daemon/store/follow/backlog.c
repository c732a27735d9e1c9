#include "daemon/store/follow/backlog.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include <uv.h>

/* Return the bytes of the changes that are kept. */
static uint64_t backlog_size(const struct backlog *backlog)
{
    return backlog->first != NULL ? backlog->end - backlog->first->begin : 0;
}

static void backlog_append(struct backlog *backlog, struct backlog_change *change, size_t bytes)
{
    backlog->end += bytes;
    backlog->budget->bytes += bytes;
    if (backlog->first == NULL)
        DL_APPEND2(backlog->budget->backlogs, backlog, previous_taking, next_taking);
    if (change->is_unrecorded)
        backlog->unrecorded_end = backlog->end;
    if (backlog->last != NULL)
        backlog->last->next = change;
    else
        backlog->first = change;
    backlog->last = change;
}

struct backlog_change *backlog_add(struct backlog *backlog, const struct kv_entry *entry, bool is_unrecorded,
                                   const struct watch_packed packed[WATCH_FORMS])
{
    size_t key_bytes = strlen(entry->key) + 1, bytes = sizeof(struct backlog_change) + key_bytes;

    for (unsigned form = 0; form < WATCH_FORMS; form++)
        bytes += packed[form].size;
    struct backlog_change *change = malloc(bytes);
    if (change == NULL)
        return NULL;
    *change = (struct backlog_change){.revision = entry->revision,
                                      .operation = entry->operation,
                                      .is_unrecorded = is_unrecorded,
                                      .epoch = backlog->epoch,
                                      .begin = backlog->end,
                                      .added_ns = uv_hrtime()};
    char *at = change->key;
    memcpy(at, entry->key, key_bytes);
    at += key_bytes;
    for (unsigned form = 0; form < WATCH_FORMS; form++) {
        if (packed[form].size > 0)
            memcpy(at, packed[form].bytes, packed[form].size);
        change->packed[form] = (struct watch_packed){at, packed[form].size};
        at += packed[form].size;
    }
    backlog_append(backlog, change, bytes);
    return change;
}

struct backlog_reader *backlog_any_reader(const struct backlog *backlog)
{
    return backlog->first != NULL ? backlog->first->readers : NULL;
}

/* Free the changes at the beginning to which no reader is attached. */
static void backlog_free_unneeded(struct backlog *backlog)
{
    uint64_t bytes = backlog_size(backlog);
    struct backlog_change *change;

    if (bytes == 0)
        return;
    while ((change = backlog->first) != NULL && change->readers == NULL) {
        backlog->first = change->next;
        free(change);
    }
    backlog->budget->bytes -= bytes - backlog_size(backlog);
    if (backlog->first != NULL)
        return;
    backlog->last = NULL;
    DL_DELETE2(backlog->budget->backlogs, backlog, previous_taking, next_taking);
}

void backlog_attach(struct backlog *backlog, struct backlog_reader *reader, struct backlog_change *change)
{
    DL_APPEND2(change->readers, reader, previous, next);
    reader->change = change;
    backlog->reader_count++;
}

static void backlog_detach(struct backlog *backlog, struct backlog_reader *reader)
{
    DL_DELETE2(reader->change->readers, reader, previous, next);
    reader->change = NULL;
    backlog->reader_count--;
}

void backlog_move(struct backlog *backlog, struct backlog_reader *reader, struct backlog_change *change)
{
    if (reader->change == change)
        return;
    backlog_detach(backlog, reader);
    if (change != NULL)
        backlog_attach(backlog, reader, change);
    backlog_free_unneeded(backlog);
}

uint64_t backlog_resume_revision(const struct backlog *backlog, const struct backlog_change *change)
{
    return change->begin < backlog->unrecorded_end ? 0 : change->revision;
}

/* Lose the readers that are behind the most. */
static void backlog_lose_first(struct backlog *backlog, backlog_lost_fn *lost)
{
    struct backlog_change *change = backlog->first;
    struct backlog_reader *reader;

    while ((reader = change->readers) != NULL) {
        uint64_t revision = backlog_resume_revision(backlog, change);
        backlog_detach(backlog, reader);
        lost(reader, revision);
    }
    backlog_free_unneeded(backlog);
}

void backlog_trim(struct backlog *backlog, size_t limit, backlog_lost_fn *lost)
{
    backlog_free_unneeded(backlog);
    while (backlog->first != backlog->last && backlog->end - backlog->first->begin > limit)
        backlog_lose_first(backlog, lost);
}

static struct backlog *backlog_find_largest(const struct backlog_budget *budget)
{
    struct backlog *backlog, *largest = budget->backlogs;

    DL_FOREACH2(budget->backlogs, backlog, next_taking)
    {
        if (backlog_size(backlog) > backlog_size(largest))
            largest = backlog;
    }
    return largest;
}

void backlog_trim_all(struct backlog_budget *budget, size_t limit, backlog_lost_fn *lost)
{
    while (budget->bytes > limit) {
        struct backlog *largest = backlog_find_largest(budget);
        /* A single change may be larger than the limit: if it is the only one of all backlogs, it is delivered. */
        if (largest->first == largest->last && largest->next_taking == NULL && budget->backlogs == largest)
            return;
        /* Until it is empty, if need be: to find the largest one again for each change would take long. */
        while (budget->bytes > limit && largest->first != NULL)
            backlog_lose_first(largest, lost);
    }
}

void backlog_lose_all(struct backlog *backlog, backlog_lost_fn *lost)
{
    while (backlog->first != NULL)
        backlog_lose_first(backlog, lost);
}

void backlog_begin_epoch(struct backlog *backlog)
{
    backlog->epoch++;
    backlog->unrecorded_end = backlog->end;
}
