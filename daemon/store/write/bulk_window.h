/*
 * bulk_window: which bulk call may begin its next writes.
 *
 * Used by bulk_write. The writes in flight of all bulk calls are bounded, and so are those of one bucket, so that a
 * single write waits for at most one window of others' writes. Those of one user are bounded, too: a user who writes to
 * many buckets, or to some without a leader, leaves places for others. Users and sessions take turns, see fair_queue. A
 * call whose bucket or user has no room leaves the line of all, and waits in that of the full window.
 */
#ifndef DAEMON_STORE_BULK_WINDOW_H
#define DAEMON_STORE_BULK_WINDOW_H

#include "daemon/base/fair_queue.h"
#include "daemon/base/table.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Writes in flight at a time: of one bucket, of one user and of all. Some tens of milliseconds of work for a server
 * that syncs each, and more if many buckets are written.
 */
#define BULK_WINDOW_BUCKET 512u
#define BULK_WINDOW_USER   1536u
#define BULK_WINDOW_ALL    2048u

struct bulk_window;

/* Zeroed at first. */
struct bulk_windows {
    struct bulk_window *by_name; /* uthash; of buckets and of users that have calls */
    struct fair_queue waiting;   /* calls that wait for their turn, and for nothing else as far as is known */
    unsigned in_flight;
};

/* A call that has writes to begin, or in flight. The owner embeds it, zeroed, and calls bulk_claim_end. */
struct bulk_claim {
    struct fair_queue_entry turn; /* private, like all others */
    struct bulk_windows *all;
    struct bulk_window *windows[2]; /* of its bucket and of its user */
    uint64_t owner;
    unsigned in_flight;
    bool is_in_line; /* of all */
};

/* A call has writes to begin: wait for a turn. owner: see fair_queue_identity. Return false if memory ran out. */
bool bulk_claim_begin(struct bulk_windows *all, struct bulk_claim *claim, const char *bucket, uint64_t owner);

/*
 * Look at the call whose turn it is. If it has room, *claim is set to it, and it waits no more. Otherwise *claim is
 * NULL: the call waits for its full window now. Thousands of calls may have to change their window before one has room,
 * so the caller asks between the steps whether its slice is over. Return false if no call is in line, or no call has
 * room.
 */
bool bulk_windows_step(struct bulk_windows *all, struct bulk_claim **claim);

/* The call has had its turn. has_more: it has more writes to begin, and waits for another turn. */
void bulk_claim_end_turn(struct bulk_claim *claim, bool has_more);

/* Return whether the call may begin a write. */
bool bulk_claim_has_room(const struct bulk_claim *claim);

void bulk_claim_begin_write(struct bulk_claim *claim);
void bulk_claim_end_write(struct bulk_claim *claim);

/* The call has ended. Writes that are in flight count no more. Does nothing if it has not begun. */
void bulk_claim_end(struct bulk_claim *claim);

#endif
