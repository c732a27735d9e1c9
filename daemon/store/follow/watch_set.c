#include "daemon/store/follow/watch_set.h"

#include "daemon/store/follow/filter.h"
#include "daemon/store/follow/state.h"

#include <stdlib.h>
#include <utlist.h>

/* If more watches match a key, all of them fall behind and are delivered changes in slices: see backlog. */
#define DELIVERED_AT_ONCE_MAX 64u

void watch_set_init(struct watch_set *set, struct store *store)
{
    *set = (struct watch_set){.store = store, .backlog.budget = &store->follow->backlog_budget};
}

void watch_set_free(struct watch_set *set)
{
    jobs_remove(set->store->jobs, &set->beginning);
    free((void *)set->matches);
}

/* --- Members --------------------------------------------------------------------------------------- */

static void watch_set_leave_tree(struct watch_set *set, struct watch_member *member)
{
    for (size_t i = 0; member->refs != NULL && i < member->filter_count; i++)
        filter_tree_remove(&set->tree, &member->refs[i]);
    free(member->refs);
    member->refs = NULL;
}

static bool watch_set_enter_tree(struct watch_set *set, struct watch_member *member)
{
    member->refs = calloc(member->filter_count, sizeof(*member->refs));
    for (size_t i = 0; member->refs != NULL && i < member->filter_count; i++) {
        if (!filter_tree_add(&set->tree, &member->refs[i], member->filters[i], member))
            watch_set_leave_tree(set, member);
    }
    return member->refs != NULL;
}

static bool watch_set_grow_matches(struct watch_set *set)
{
    if (set->count < set->match_capacity)
        return true;
    size_t capacity = set->match_capacity > 0 ? set->match_capacity * 2 : 8;
    struct watch_member **matches = realloc((void *)set->matches, capacity * sizeof(struct watch_member *));
    if (matches == NULL)
        return false;
    set->matches = matches;
    set->match_capacity = capacity;
    return true;
}

bool watch_set_add(struct watch_set *set, struct watch_member *member)
{
    if (!watch_set_grow_matches(set) || !watch_set_enter_tree(set, member))
        return false;
    DL_APPEND2(set->members, member, previous, next);
    set->count++;
    set->values_wanted += member->wants_previous;
    set->filter_count += member->filter_count;
    return true;
}

void watch_set_remove(struct watch_set *set, struct watch_member *member)
{
    watch_set_stop_awaiting(set, member);
    if (set->next_to_begin == member)
        set->next_to_begin = member->next;
    DL_DELETE2(set->members, member, previous, next);
    watch_set_leave_tree(set, member);
    if (member->backlog.change != NULL)
        backlog_move(&set->backlog, &member->backlog, NULL);
    set->filter_count -= member->filter_count;
    set->values_wanted -= member->wants_previous;
    set->count--;
}

void watch_set_await_progress(struct watch_set *set, struct watch_member *member)
{
    if (member->previous_awaiting == NULL)
        DL_APPEND2(set->awaiting, member, previous_awaiting, next_awaiting);
}

void watch_set_stop_awaiting(struct watch_set *set, struct watch_member *member)
{
    if (member->previous_awaiting != NULL)
        DL_DELETE2(set->awaiting, member, previous_awaiting, next_awaiting);
    member->previous_awaiting = NULL;
}

void watch_set_note_progress(struct watch_set *set)
{
    struct watch_member *member, *next;

    DL_FOREACH_SAFE2(set->awaiting, member, next, next_awaiting)
    {
        member->ops->progress(member);
    }
}

/* --- Delivery -------------------------------------------------------------------------------------- */

/* A member matches once, however many of its filters do. One that is behind is delivered all of the backlog. */
static void watch_set_note_match(void *arg, void *owner)
{
    struct watch_set *set = arg;
    struct watch_member *member = owner;

    if (member->backlog.change != NULL || member->matched_serial == set->store->follow->entry_serial)
        return;
    member->matched_serial = set->store->follow->entry_serial;
    set->matches[set->match_count++] = member;
}

/*
 * Find the members that a key matches and that are not behind. False: to find them would take long, and these are all
 * members that are not behind.
 */
static bool watch_set_find_matches(struct watch_set *set, const char *key)
{
    struct watch_member *member;

    set->store->follow->entry_serial++;
    set->match_count = 0;
    if (filter_tree_match(&set->tree, key, watch_set_note_match, set))
        return true;
    DL_FOREACH2(set->members, member, next)
    {
        watch_set_note_match(set, member);
    }
    return false;
}

static struct watch_member *member_of_reader(struct backlog_reader *reader)
{
    return (struct watch_member *)((char *)reader - offsetof(struct watch_member, backlog));
}

static void on_reader_lost(struct backlog_reader *reader, uint64_t revision)
{
    struct watch_member *member = member_of_reader(reader);

    member->ops->lose(member, revision);
}

/*
 * Add a change if watches are behind, or if they must fall behind: it matches many, or it is not known which ones, so
 * that each looks when its turn comes. NULL: deliver it at once.
 */
static struct backlog_change *watch_set_add_to_backlog(struct watch_set *set, const struct kv_entry *entry,
                                                       bool is_unrecorded, bool are_matches)
{
    struct backlog_reader *behind = backlog_any_reader(&set->backlog);
    struct watch_packed packed[WATCH_FORMS];

    if (behind == NULL && (set->match_count == 0 || (are_matches && set->match_count <= DELIVERED_AT_ONCE_MAX)))
        return NULL;
    struct watch_member *packer = behind != NULL ? member_of_reader(behind) : set->matches[0];
    packer->ops->pack(packer, entry, set->store->follow->entry_serial, packed);
    struct backlog_change *change = backlog_add(&set->backlog, entry, is_unrecorded, packed);
    if (change == NULL)
        backlog_lose_all(&set->backlog, on_reader_lost);
    return change;
}

static bool watch_set_deliver_change(struct watch_set *set, const struct kv_entry *entry, bool is_unrecorded)
{
    bool is_wanted = set->backlog.reader_count > 0;

    bool are_matches = watch_set_find_matches(set, entry->key);
    struct backlog_change *change = watch_set_add_to_backlog(set, entry, is_unrecorded, are_matches);
    for (size_t i = 0; i < set->match_count; i++) {
        struct watch_member *member = set->matches[i];
        if (change != NULL) /* even if few match: their session may be full of what others were delivered */
            is_wanted |= member->ops->fall_behind(member, change);
        else if (are_matches || filter_any_matches(member->filters, member->filter_count, entry->key))
            is_wanted |= member->ops->deliver(member, entry, set->store->follow->entry_serial, is_unrecorded);
    }
    backlog_trim(&set->backlog, set->store->conf->watches.buffer_bytes, on_reader_lost);
    backlog_trim_all(set->backlog.budget, set->store->conf->limits.out_bytes, on_reader_lost);
    return is_wanted;
}

bool watch_set_deliver(struct watch_set *set, const struct kv_entry *entry)
{
    return watch_set_deliver_change(set, entry, false);
}

bool watch_set_deliver_unrecorded(struct watch_set *set, const struct kv_entry *entry)
{
    return watch_set_deliver_change(set, entry, true);
}

bool watch_set_has_room(const struct watch_set *set)
{
    struct watch_member *member;

    if (set->backlog.first != NULL)
        return false;
    DL_FOREACH2(set->members, member, next)
    {
        if (!member->ops->has_room(member))
            return false;
    }
    return true;
}

/* --- All members ----------------------------------------------------------------------------------- */

static bool run_beginning(struct job *job)
{
    struct watch_set *set = (struct watch_set *)((char *)job - offsetof(struct watch_set, beginning));
    struct watch_member *member;

    while ((member = set->next_to_begin) != NULL) {
        set->next_to_begin = member->next;
        member->ops->begin(member);
        if (jobs_slice_is_over(set->store->jobs))
            return set->next_to_begin != NULL;
    }
    return false;
}

void watch_set_begin(struct watch_set *set)
{
    set->next_to_begin = set->members;
    if (run_beginning(&set->beginning))
        jobs_add(set->store->jobs, &set->beginning, run_beginning);
}

bool watch_set_begins(const struct watch_set *set, uint64_t since_ms)
{
    struct watch_member *member;

    if (set->beginning_count == 0)
        return false;
    DL_FOREACH2(set->members, member, next)
    {
        if (member->ops->begins(member, since_ms))
            return true;
    }
    return false;
}

void watch_set_note_removal(struct watch_set *set, uint64_t revision)
{
    struct watch_member *member;

    watch_set_note_compacted(set, revision);
    DL_FOREACH2(set->members, member, next)
    {
        member->ops->note_removal(member, revision);
    }
}

void watch_set_leave_cache(struct watch_set *set)
{
    struct watch_member *member, *next;

    DL_FOREACH_SAFE2(set->members, member, next, next)
    {
        member->ops->leave_cache(member);
    }
}

void watch_set_recreate(struct watch_set *set)
{
    struct watch_member *member, *next;

    set->compacted_to = 0;
    backlog_begin_epoch(&set->backlog);
    DL_FOREACH_SAFE2(set->members, member, next, next)
    {
        member->ops->recreate(member);
    }
}

bool watch_set_end_some(struct watch_set *set, const struct error *error)
{
    while (set->members != NULL) {
        set->members->ops->end(set->members, error);
        if (jobs_slice_is_over(set->store->jobs))
            break;
    }
    return set->members != NULL;
}

void watch_set_end_all(struct watch_set *set, const struct error *error)
{
    while (set->members != NULL)
        set->members->ops->end(set->members, error);
}
