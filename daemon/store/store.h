/*
 * store: the facade of the store.
 *
 * Used by main, which creates it, runs it and ends it, and by dispatch. It puts the rooms of the store together. They
 * know buckets, keys and revisions; none of them knows of sessions. What they share is in context.
 */
#ifndef DAEMON_STORE_STORE_H
#define DAEMON_STORE_STORE_H

#include "daemon/store/context.h"
#include "proto/error.h"

#include <stdbool.h>

/* Return 0, or -1 if memory ran out: then the process must end. All pointers are borrowed. */
int store_init(struct store *store, uv_loop_t *loop, struct jobs *jobs, struct timers *timers, const struct conf *conf);

/*
 * Open what a daemon that was killed leaves to the next one: the journal of writes beside the socket, whose directory
 * is in memory and lives as long as clients can, and the file of leases. The leases of an embedded server are in the
 * directory of its data: nobody else would delete their keys after the machine has restarted. socket_path "": the
 * socket has none.
 */
void store_open_files(struct store *store, const char *socket_path);

/* Stop the connection to NATS. stopped is called from the loop; call store_free after the loop has ended. */
void store_stop(struct store *store, void (*stopped)(void *arg), void *arg);
void store_free(struct store *store);

/* The configuration was read again. */
void store_reload(struct store *store);

/* Send what was gathered in this turn of the loop. Call it at the end of each turn. */
void store_flush(struct store *store);

/*
 * Return whether it makes sense to begin a call that needs NATS. False, with an error of unavailable, if NATS could not
 * be reached at the start, or if the connection has been lost for longer than nats.outage_wait. Shortly after a loss,
 * and while the first attempt to connect is in progress, a call may wait.
 */
bool store_is_available(const struct store *store, struct error *error);

/* Return the bytes that the caches of all buckets take. */
size_t store_cache_bytes(const struct store *store);

#endif
