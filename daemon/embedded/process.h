/*
 * embedded: a private nats-server as the daemon's child.
 *
 * Used by main. The server listens on a free port of 127.0.0.1 and lets in nobody
 * without a random secret, which is in a file that only the daemon's user can read.
 * This module promises that one data directory has one server: a lock refuses a
 * second daemon, the server dies with its parent, and one that was left behind all
 * the same is ended before the next is started. A server that ends by itself, or that
 * does not answer for nats.hang_timeout, is started again, on the same port, with backoff.
 */
#ifndef DAEMON_EMBEDDED_PROCESS_H
#define DAEMON_EMBEDDED_PROCESS_H

#include "conf/conf.h"
#include "daemon/embedded/directory.h"
#include "daemon/nats/connection.h"

#include <stdbool.h>
#include <uv.h>

struct embedded;

/* All are called from the loop; trouble also by embedded_start. */
struct embedded_events {
    /* The server listens, at target: the same place as before, unless its port was taken meanwhile. */
    void (*ready)(void *arg, const struct connection_target *target);
    /* Before the server ran once: the program is no nats-server or too old, so that no start will succeed. */
    void (*unusable)(void *arg, const char *why);
    /* What is wrong with the server from now on; "" when it is well. */
    void (*trouble)(void *arg, const char *text);
    /*
     * The server cannot write any more: embedded_restart helps, when what kept it from writing is gone. Or false:
     * another process of it is started, which can as far as is known.
     */
    void (*broken)(void *arg, bool is_broken);
    /* A number that changes whenever the server was heard. */
    uint64_t (*heard)(void *arg);
    void *arg;
};

/*
 * Starts the server. NULL with a sentence in error: the data directory is in use or not usable, or there is no such
 * program; then *is_unusable, because trying again does not help. conf is borrowed.
 */
struct embedded *embedded_start(uv_loop_t *loop, const struct conf *conf, const struct embedded_events *events,
                                bool *is_unusable, char error[EMBEDDED_ERROR_BYTES]);

/* Ends the server, and starts it again. why: a part of the line in the log. False: none runs. */
bool embedded_restart(struct embedded *embedded, const char *why);

/* Whether a process of the server is alive and does not listen yet. */
bool embedded_is_starting(const struct embedded *embedded);

/* Ends the server in good order, by force when it takes too long; stopped is called from the loop, then embedded_free.
 */
void embedded_stop(struct embedded *embedded, void (*stopped)(void *arg), void *arg);
void embedded_free(struct embedded *embedded);

#endif
