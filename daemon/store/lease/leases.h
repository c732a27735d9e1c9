/*
 * leases: the room's front: starts and ends what this daemon holds in buckets.
 *
 * Used by store, main and the handlers.
 */
#ifndef DAEMON_STORE_LEASES_H
#define DAEMON_STORE_LEASES_H

#include "daemon/store/context.h"

#include <stdint.h>

/* Return 0, or -1 if memory ran out. */
int leases_init(struct store *store);

/* Keep the leases in the file at path, for the next run of the daemon, and adopt those of the last run. */
void leases_open_file(struct store *store, const char *path);

/* The daemon begins to end: answer all who wait for a lock. */
void leases_drain(struct store *store);

/* Call idle from the loop, once, when all keys are deleted whose sessions have ended. */
void leases_await_idle(struct store *store, void (*idle)(void *arg), void *arg);

struct leases_totals {
    unsigned held, waiting; /* of sessions */
    unsigned leases;
    uint64_t acquired, lost, declared_dead, renewals;
};
void leases_total(const struct store *store, struct leases_totals *totals);

/* Return how many locks and ephemeral keys sessions have in the bucket, and writes that may become some. */
unsigned leases_held_in(struct store *store, const char *bucket);

/* A deletion has ended. For holding. */
void leases_check_idle(struct leases *leases);

/* Begin nothing new. */
void leases_end(struct store *store);
void leases_free(struct store *store);

#endif
