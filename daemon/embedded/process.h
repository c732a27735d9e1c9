/*
 * process: a private nats-server as the daemon's child.
 *
 * Used by main. The server listens on a free port of 127.0.0.1. A client needs a random
 * secret to log in. The file with the secret is readable by the daemon's user only. A data directory has one server at
 * a time: a lock refuses a second daemon, and the server dies with its parent. A server that an earlier daemon left is
 * killed before the next one starts. A server that ends by itself, or does not answer for nats.hang_timeout, is
 * restarted on the same port, with backoff.
 */
#ifndef DAEMON_EMBEDDED_PROCESS_H
#define DAEMON_EMBEDDED_PROCESS_H

#include "conf/conf.h"
#include "daemon/embedded/directory.h"
#include "daemon/nats/connection.h"

#include <stdbool.h>
#include <uv.h>

struct embedded_process;

/* All are called from the loop; trouble and broken also from within embedded_process_start. */
struct embedded_process_events {
    /* The server listens, at target: the same address as before, unless its port was taken meanwhile. The password is
     * of this process only. */
    void (*ready)(void *arg, const struct connection_target *target);
    /* The server has ended, or got a signal to end. Until ready is called, another program may listen on its port. */
    void (*ending)(void *arg);
    /* Before the first start: the program is no nats-server, or too old, so no start will succeed. */
    void (*unusable)(void *arg, const char *why);
    /* What is wrong with the server from now on; "": nothing. */
    void (*trouble)(void *arg, const char *text);
    /*
     * true: the server can no longer write to a stream. After the cause is gone, embedded_process_restart helps.
     * false: a new server was started, which can write as far as is known.
     */
    void (*broken)(void *arg, bool is_broken);
    /* Return a number that changes whenever something was received from the server. */
    uint64_t (*heard)(void *arg);
    void *arg;
};

/*
 * Start the server; conf is borrowed. Return NULL with an error if the data directory is in use or not usable, or if
 * there is no such program. In the latter case *is_unusable is set: trying again does not help.
 */
struct embedded_process *embedded_process_start(uv_loop_t *loop, const struct conf *conf,
                                                const struct embedded_process_events *events, bool *is_unusable,
                                                char error[EMBEDDED_ERROR_BYTES]);

/* End the server, and start it again. The log says why. Return false if none runs. */
bool embedded_process_restart(struct embedded_process *embedded, const char *why);

/* The daemon's connection to the server is up, or lost. */
void embedded_process_note_connected(struct embedded_process *embedded, bool is_connected);

/* Return whether a server is being started that does not listen yet. */
bool embedded_process_is_starting(const struct embedded_process *embedded);

/* Return how often the server has ended without being stopped, and so was started again. */
uint64_t embedded_process_restarts(const struct embedded_process *embedded);

/* End the server with SIGTERM, and with SIGKILL if it takes too long. stopped is called from the loop; then call
 * embedded_process_free. */
void embedded_process_stop(struct embedded_process *embedded, void (*stopped)(void *arg), void *arg);
void embedded_process_free(struct embedded_process *embedded);

#endif
