#include "daemon/store/follow/backlog.h"

#include "daemon/store/follow/local_copy.h"
#include "daemon/store/follow/state.h"
#include "daemon/store/follow/watch.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

struct change *backlog_add(struct local_copy *copy, const struct kv_entry *entry, bool is_again,
                           const struct watch *packer)
{
    struct backlog *backlog = &copy->backlog;
    struct watch_packed packed[WATCH_FORMS];
    size_t key_bytes = strlen(entry->key) + 1, bytes = sizeof(struct change) + key_bytes;

    packer->ops->pack(packer->arg, entry, copy->store->follow->entry_serial, packed);
    for (unsigned form = 0; form < WATCH_FORMS; form++)
        bytes += packed[form].size;
    struct change *change = malloc(bytes);
    if (change == NULL)
        return NULL;
    *change = (struct change){.revision = entry->revision,
                              .operation = entry->operation,
                              .is_again = is_again,
                              .epoch = backlog->epoch,
                              .begin = backlog->end};
    char *at = change->key;
    memcpy(at, entry->key, key_bytes);
    at += key_bytes;
    for (unsigned form = 0; form < WATCH_FORMS; form++) {
        memcpy(at, packed[form].bytes, packed[form].size);
        change->packed[form] = (struct watch_packed){at, packed[form].size};
        at += packed[form].size;
    }
    backlog->end += bytes;
    if (is_again)
        backlog->again_end = backlog->end;
    if (backlog->last != NULL)
        backlog->last->next = change;
    else
        backlog->first = change;
    backlog->last = change;
    return change;
}

struct watch *backlog_any(const struct local_copy *copy)
{
    return copy->backlog.first != NULL ? copy->backlog.first->watches : NULL;
}

/* Free the changes at the beginning to which no watch is attached. */
static void free_unneeded(struct backlog *backlog)
{
    struct change *change;

    while ((change = backlog->first) != NULL && change->watches == NULL) {
        backlog->first = change->next;
        if (change->next == NULL)
            backlog->last = NULL;
        free(change);
    }
}

void backlog_attach(struct local_copy *copy, struct watch *watch, struct change *change)
{
    DL_APPEND2(change->watches, watch, previous_behind, next_behind);
    watch->behind = change;
    copy->backlog.watch_count++;
}

void backlog_move(struct local_copy *copy, struct watch *watch, struct change *change)
{
    if (watch->behind == change)
        return;
    DL_DELETE2(watch->behind->watches, watch, previous_behind, next_behind);
    watch->behind = change;
    if (change != NULL)
        DL_APPEND2(change->watches, watch, previous_behind, next_behind);
    else
        copy->backlog.watch_count--;
    free_unneeded(&copy->backlog);
}

uint64_t backlog_resume_revision(const struct local_copy *copy, const struct change *change)
{
    return change->begin < copy->backlog.again_end ? 0 : change->revision;
}

/* Lose the watches that are behind the most. Each ends when its turn comes. */
static void lose_first(struct local_copy *copy)
{
    struct backlog *backlog = &copy->backlog;
    struct change *change = backlog->first;

    while (change->watches != NULL) {
        struct watch *watch = change->watches;
        DL_DELETE2(change->watches, watch, previous_behind, next_behind);
        watch->behind = NULL;
        backlog->watch_count--;
        watch_lose(watch, backlog_resume_revision(copy, change));
    }
    free_unneeded(backlog);
}

void backlog_trim(struct local_copy *copy)
{
    struct backlog *backlog = &copy->backlog;
    size_t limit = copy->store->conf->watches.buffer_bytes;

    free_unneeded(backlog);
    while (backlog->first != backlog->last && backlog->end - backlog->first->begin > limit)
        lose_first(copy);
}

void backlog_lose_all(struct local_copy *copy)
{
    while (copy->backlog.first != NULL)
        lose_first(copy);
}

void backlog_begin_epoch(struct local_copy *copy)
{
    copy->backlog.epoch++;
    copy->backlog.again_end = copy->backlog.end;
}
