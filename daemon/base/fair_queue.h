/*
 * fair_queue: a queue in which users take turns, and in the turns of each user its sessions.
 *
 * Used for what waits for something scarce, so that a user who asks for much does not keep the others waiting, however
 * many sessions the user opens. A user that begins to wait is a newcomer. It comes before users that have had a turn
 * and still wait, so a single entry need not wait for an entry of each of a hundred greedy users. The same holds for
 * the sessions of one user among each other. The entries of one session keep their order. The queue allocates a record
 * for each user and each session that waits. If memory runs out, the entry joins those of nobody.
 */
#ifndef DAEMON_FAIR_QUEUE_H
#define DAEMON_FAIR_QUEUE_H

#include "daemon/base/table.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The owner of the memory embeds it, zeroed, and removes it before the memory goes. */
struct fair_queue_entry {
    struct fair_queue_entry *next, *previous;
    struct fair_queue_member *session; /* NULL: not queued */
};

/* Members that take turns: all users, or the sessions of one user. */
struct fair_queue_line {
    struct fair_queue_member *newcomers; /* each list in the order of the members' turns */
    struct fair_queue_member *others;
    unsigned newcomers_in_a_row; /* newcomers that have had a turn since one of the others had */
};

/* A user, or a session of one. */
struct fair_queue_member {
    UT_hash_handle hh; /* by identity */
    struct fair_queue_member *next, *previous;
    struct fair_queue *queue;
    struct fair_queue_member *user; /* of a session; NULL: the member is a user */
    uint64_t identity;
    bool is_newcomer;
    struct fair_queue_line sessions; /* the sessions of a user that wait */
    struct fair_queue_entry *first;  /* of a session */
};

/* Zeroed: empty. All members are private. */
struct fair_queue {
    struct fair_queue_member *by_identity; /* uthash */
    struct fair_queue_line users;
    struct fair_queue_member nobody, session_of_nobody; /* for entries without an owner */
};

/*
 * Return the identity of a user's session, never 0. Two sessions of a user may have the same one, if billions of
 * sessions have begun in between: then they share their turns.
 */
static inline uint64_t fair_queue_identity(uint32_t uid, uint64_t session)
{
    return ((uint64_t)uid + 1) << 32 | (session % UINT32_MAX + 1);
}

/* Return what stands for the user in the identity of a session; 0: nobody. */
static inline uint64_t fair_queue_user(uint64_t identity)
{
    return identity >> 32;
}

/* Append an entry to those of its session. identity: of the session, see fair_queue_identity; 0: of nobody. */
void fair_queue_append(struct fair_queue *queue, struct fair_queue_entry *entry, uint64_t identity);

/*
 * Append an entry that was removed when its turn came, and waits for another turn. Its user and its session are no
 * newcomers, even if nothing else of them waits.
 */
void fair_queue_append_again(struct fair_queue *queue, struct fair_queue_entry *entry, uint64_t identity);

/*
 * Remove an entry, because its turn came or because it gave up. If it was the first, the next turns of its user and of
 * its session come after those of all who wait. Does nothing if the entry is not queued.
 */
void fair_queue_remove(struct fair_queue_entry *entry);

/*
 * Put an entry that was removed when its turn came, but could not use it, before the others of its session. Its user
 * and its session have their turn back: they are the first of the newcomers. Of several entries, the last that was
 * removed is put back first.
 */
void fair_queue_put_back(struct fair_queue *queue, struct fair_queue_entry *entry, uint64_t identity);

/* After this number of newcomers, one of the others has its turn. */
#define FAIR_QUEUE_NEWCOMERS_MAX 8u

static inline struct fair_queue_member *fair_queue_first_of(const struct fair_queue_line *line)
{
    bool must_wait = line->others != NULL && line->newcomers_in_a_row >= FAIR_QUEUE_NEWCOMERS_MAX;

    return line->newcomers != NULL && !must_wait ? line->newcomers : line->others;
}

/* Return the entry whose turn it is; NULL: the queue is empty. */
static inline struct fair_queue_entry *fair_queue_first(const struct fair_queue *queue)
{
    const struct fair_queue_member *user = fair_queue_first_of(&queue->users);

    return user != NULL ? fair_queue_first_of(&user->sessions)->first : NULL;
}

static inline bool fair_queue_has(const struct fair_queue_entry *entry)
{
    return entry->session != NULL;
}

#endif
