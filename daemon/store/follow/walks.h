/*
 * walks: long walks through keys in memory, a slice of one at a time.
 *
 * Used by cached_read and entries_read, and by the handler of kv.keys for what it packs. A client may have hundreds of
 * such calls in flight. If each were a job of its own, a session in the ordinary line would wait for a slice of all of
 * them. So all walks together have one place in that line, in which users and sessions take turns.
 */
#ifndef DAEMON_STORE_WALKS_H
#define DAEMON_STORE_WALKS_H

#include "daemon/base/fair_queue.h"
#include "daemon/base/jobs.h"
#include "daemon/store/context.h"

/* One walk. The owner embeds it, zeroed, and removes it before the memory goes. */
struct walk {
    struct fair_queue_entry turn;
    void (*step)(struct walk *walk);
};

struct walks {
    struct jobs *jobs;
    struct fair_queue waiting;
    const struct walk *stepping; /* the walk whose turn it is, or NULL */
    struct job job;
};

/*
 * Call step once, when the walk's turn comes. It works until jobs_slice_is_over, and may add the walk again. session:
 * see fair_queue_identity. Does nothing if the walk waits already.
 */
void walks_add(struct store *store, struct walk *walk, uint64_t session, void (*step)(struct walk *walk));

/* Does nothing if the walk does not wait. */
void walks_remove(struct walk *walk);

#endif
