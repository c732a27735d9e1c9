/*
 * lock_holder: a program that acquires locks at a daemon, holds them, writes with their tokens and leaves.
 *
 *   fault --lock-holder NUMBER
 *
 * Descriptor 3 is a board: memory that it shares with the test and the other holders. There it notes everything for
 * lock_check, so that its notes outlive it. It ends when the board says so, or with status 1 if something is wrong.
 */
#ifndef FAULT_LOCK_HOLDER_H
#define FAULT_LOCK_HOLDER_H

#include "tests/support/lock_check.h"
#include "tests/support/test_run.h"

#include <stdbool.h>

#define LOCK_HOLDER_ARGUMENT "--lock-holder"

#define LOCK_HOLDERS_DAEMONS    3u
#define LOCK_HOLDERS_LOCKS      2u
#define LOCK_HOLDERS_PER_DAEMON 4u
#define LOCK_HOLDERS            (LOCK_HOLDERS_DAEMONS * LOCK_HOLDERS_PER_DAEMON)

/* What a holder can note: enough for hours. Only what is used takes memory. */
#define LOCK_HOLDER_HELD_MAX   200000u
#define LOCK_HOLDER_FENCED_MAX 600000u

/* An entry is complete before it is counted. Only the end of the last holding changes later. */
struct lock_holder_notes {
    size_t held_count, fenced_count;
    struct lock_held held[LOCK_HOLDER_HELD_MAX];
    struct lock_fenced fenced[LOCK_HOLDER_FENCED_MAX];
};

struct lock_board {
    bool is_over;
    char bucket[64];
    char socket_paths[LOCK_HOLDERS_DAEMONS][PATH_BYTES];
    uint64_t killed_ns[LOCK_HOLDERS_DAEMONS]; /* when the daemon was killed last, at the latest */
    unsigned seeds[LOCK_HOLDERS];
    /* The holdings of a lock, and of all locks by clients of a daemon, that have begun. */
    unsigned counts[LOCK_HOLDERS_LOCKS], counts_by[LOCK_HOLDERS_DAEMONS];
    struct lock_holder_notes notes[LOCK_HOLDERS];
};

/* The program. Return its exit status. */
int lock_holder_main(const char *number);

#endif
