/*
 * server_output: what the embedded nats-server writes, as lines of the daemon's log.
 *
 * Used by embedded, once for each process of the server. The server's levels become
 * ours. Any local user can make the server complain, by connecting to it: so each kind
 * of line is limited as log_may does it.
 */
#ifndef DAEMON_EMBEDDED_LOG_RELAY_H
#define DAEMON_EMBEDDED_LOG_RELAY_H

#include "daemon/base/log.h"

#include <uv.h>

struct log_relay;

/* How many lines of each kind were written. One for all processes of the server; zeroed at first. */
#define LOG_RELAY_KINDS 4

struct log_relay_limits {
    struct log_limit kinds[LOG_RELAY_KINDS];
};

/* All are called from the loop. */
struct log_relay_events {
    /* The last use of the object. */
    void (*closed)(void *arg, struct log_relay *output);
    /*
     * The server reports that it cannot write a stream's files ("critical write error"), or the file that says its
     * port. It does not write to that stream, or that file, again before a restart, even if the disk has room
     * (nats-server 2.15).
     */
    void (*broken)(void *arg);
    void *arg;
};

/*
 * Read lines from descriptor until the writer closes it; takes over the descriptor, also when it fails. limits is
 * borrowed.
 * The returned object frees itself after closed. NULL when memory ran out.
 */
struct log_relay *log_relay_open(uv_loop_t *loop, int descriptor, struct log_relay_limits *limits,
                                 const struct log_relay_events *events);

/* Stop reading. closed follows; a second call does nothing. */
void log_relay_close(struct log_relay *output);

#endif
