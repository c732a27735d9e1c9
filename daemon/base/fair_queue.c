#include "daemon/base/fair_queue.h"

#include <stdlib.h>
#include <utlist.h>

/* The identity of a user is that of its sessions without their part. No session has part 0. */
#define FAIR_QUEUE_USER_MASK (~(uint64_t)UINT32_MAX)

/* --- Members --------------------------------------------------------------------------------------- */

/* Return the member with this identity, created if there is none; NULL: out of memory. */
static struct fair_queue_member *fair_queue_obtain_member(struct fair_queue *queue, uint64_t identity)
{
    struct fair_queue_member *member = NULL;

    HASH_FIND(hh, queue->by_identity, &identity, sizeof(identity), member);
    if (member != NULL || (member = calloc(1, sizeof(*member))) == NULL)
        return member;
    member->queue = queue;
    member->identity = identity;
    HASH_ADD(hh, queue->by_identity, identity, sizeof(identity), member);
    return member;
}

/* Free a member for which nothing waits. */
static void fair_queue_forget_member(struct fair_queue_member *member)
{
    struct fair_queue *queue = member->queue;
    bool has_none = member->first == NULL && fair_queue_first_of(&member->sessions) == NULL;

    if (!has_none || member == &queue->nobody || member == &queue->session_of_nobody)
        return;
    HASH_DEL(queue->by_identity, member);
    free(member);
}

static struct fair_queue_member *fair_queue_session_of_nobody(struct fair_queue *queue)
{
    queue->nobody.queue = queue;
    queue->session_of_nobody.queue = queue;
    queue->session_of_nobody.user = &queue->nobody;
    return &queue->session_of_nobody;
}

static struct fair_queue_member *fair_queue_obtain_session(struct fair_queue *queue, uint64_t identity)
{
    struct fair_queue_member *session = identity != 0 ? fair_queue_obtain_member(queue, identity) : NULL;

    if (session == NULL)
        return fair_queue_session_of_nobody(queue);
    if (session->user != NULL)
        return session;
    session->user = fair_queue_obtain_member(queue, identity & FAIR_QUEUE_USER_MASK);
    if (session->user != NULL)
        return session;
    fair_queue_forget_member(session);
    return fair_queue_session_of_nobody(queue);
}

/* --- Turns ----------------------------------------------------------------------------------------- */

static struct fair_queue_line *fair_queue_line_of(struct fair_queue_member *member)
{
    return member->user != NULL ? &member->user->sessions : &member->queue->users;
}

/* Return whether the member is in its line. */
static bool fair_queue_is_waiting(const struct fair_queue_member *member)
{
    return member->previous != NULL; /* utlist: the head's is the tail */
}

static void fair_queue_enter(struct fair_queue_member *member, bool is_newcomer)
{
    struct fair_queue_line *line = fair_queue_line_of(member);

    member->is_newcomer = is_newcomer;
    if (is_newcomer)
        DL_APPEND2(line->newcomers, member, previous, next);
    else
        DL_APPEND2(line->others, member, previous, next);
}

static void fair_queue_leave(struct fair_queue_member *member)
{
    struct fair_queue_line *line = fair_queue_line_of(member);

    if (member->is_newcomer)
        DL_DELETE2(line->newcomers, member, previous, next);
    else
        DL_DELETE2(line->others, member, previous, next);
    member->previous = member->next = NULL;
}

static void fair_queue_enter_if_absent(struct fair_queue_member *member, bool is_newcomer)
{
    if (!fair_queue_is_waiting(member))
        fair_queue_enter(member, is_newcomer);
}

static void fair_queue_become_first(struct fair_queue_member *member)
{
    struct fair_queue_line *line = fair_queue_line_of(member);

    if (fair_queue_is_waiting(member))
        fair_queue_leave(member);
    member->is_newcomer = true;
    DL_PREPEND2(line->newcomers, member, previous, next);
}

/* The member has had its turn, or nothing of it is left. */
static void fair_queue_advance(struct fair_queue_member *member, bool had_turn, bool has_more)
{
    struct fair_queue_line *line = fair_queue_line_of(member);

    if (had_turn)
        line->newcomers_in_a_row = member->is_newcomer ? line->newcomers_in_a_row + 1 : 0;
    if (had_turn || !has_more)
        fair_queue_leave(member);
    if (had_turn && has_more)
        fair_queue_enter(member, false);
}

static void fair_queue_add(struct fair_queue *queue, struct fair_queue_entry *entry, uint64_t identity,
                           bool is_newcomer)
{
    struct fair_queue_member *session = fair_queue_obtain_session(queue, identity);

    DL_APPEND2(session->first, entry, previous, next);
    entry->session = session;
    fair_queue_enter_if_absent(session, is_newcomer);
    fair_queue_enter_if_absent(session->user, is_newcomer);
}

void fair_queue_append(struct fair_queue *queue, struct fair_queue_entry *entry, uint64_t identity)
{
    fair_queue_add(queue, entry, identity, true);
}

void fair_queue_append_again(struct fair_queue *queue, struct fair_queue_entry *entry, uint64_t identity)
{
    fair_queue_add(queue, entry, identity, false);
}

void fair_queue_put_back(struct fair_queue *queue, struct fair_queue_entry *entry, uint64_t identity)
{
    struct fair_queue_member *session = fair_queue_obtain_session(queue, identity);

    DL_PREPEND2(session->first, entry, previous, next);
    entry->session = session;
    fair_queue_become_first(session);
    fair_queue_become_first(session->user);
}

void fair_queue_remove(struct fair_queue_entry *entry)
{
    struct fair_queue_member *session = entry->session, *user;

    if (session == NULL)
        return;
    user = session->user;
    bool had_turn = fair_queue_first(session->queue) == entry;
    DL_DELETE2(session->first, entry, previous, next);
    entry->session = NULL;
    fair_queue_advance(session, had_turn, session->first != NULL);
    fair_queue_advance(user, had_turn, fair_queue_first_of(&user->sessions) != NULL);
    fair_queue_forget_member(session);
    fair_queue_forget_member(user);
}
