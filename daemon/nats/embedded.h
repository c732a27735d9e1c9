/*
 * embedded: a private nats-server as the daemon's child.
 *
 * Used by main. The server listens on a free port of 127.0.0.1 and lets in nobody
 * without a random secret, which is in a file that only the daemon's user can read.
 * This module promises that one data directory has one server: a lock refuses a
 * second daemon, the server dies with its parent, and one that was left behind all
 * the same is ended before the next is started. A server that ends by itself is
 * started again, on the same port, with backoff.
 */
#ifndef DAEMON_NATS_EMBEDDED_H
#define DAEMON_NATS_EMBEDDED_H

#include "conf/conf.h"
#include "daemon/nats/link.h"

#include <uv.h>

struct embedded;

#define EMBEDDED_ERROR_BYTES 512

/*
 * Starts the server. ready is called from the loop each time it listens, with where; it is
 * the same place as before, but for a port that was taken meanwhile.
 * NULL with a sentence in error: the data directory is in use or not usable, or there
 * is no such program. conf is borrowed.
 */
struct embedded *embedded_start(uv_loop_t *loop, const struct conf *conf,
                                void (*ready)(void *arg, const struct link_target *target), void *arg,
                                char error[EMBEDDED_ERROR_BYTES]);

/* Ends the server in good order, by force when it takes too long; stopped is called from the loop, then embedded_free.
 */
void embedded_stop(struct embedded *embedded, void (*stopped)(void *arg), void *arg);
void embedded_free(struct embedded *embedded);

#endif
