/*
 * follow: the rooms' front: starts and ends what follows buckets.
 *
 * Used by store, and by the handlers for the statistics.
 */
#ifndef DAEMON_STORE_FOLLOW_H
#define DAEMON_STORE_FOLLOW_H

#include "daemon/store/context.h"

/* Return 0; -1: out of memory. */
int follow_init(struct store *store);

/* The connection is up. */
void follow_note_connected(struct store *store);

/* The configuration was read again. */
void follow_reload(struct store *store);

/* End all copies and their watches, and remove their consumers. */
void follow_end(struct store *store);
void follow_free(struct store *store);

struct follow_totals {
    unsigned buckets, cached_buckets;
    uint64_t keys;
    unsigned behind;           /* watches that have not been delivered all changes */
    uint64_t backlog_bytes;    /* of the changes that are kept for them */
    uint64_t oldest_change_ns; /* uv_hrtime when the oldest of these changes arrived; 0: there is none */
};
void follow_total(const struct store *store, struct follow_totals *totals);

#endif
