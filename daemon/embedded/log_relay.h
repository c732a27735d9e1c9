/*
 * log_relay: writes the embedded nats-server's log into the daemon's log.
 *
 * Used by process, once for each process of the server. The server's levels are mapped to the daemon's. Any local user
 * can connect to the server and make it log, so each kind of line is rate-limited: see log_may.
 */
#ifndef DAEMON_EMBEDDED_LOG_RELAY_H
#define DAEMON_EMBEDDED_LOG_RELAY_H

#include "daemon/base/log.h"

#include <uv.h>

struct log_relay;

/* The rate limits of each kind of line, for all processes of the server. Zeroed at first. */
#define LOG_RELAY_KINDS 4

struct log_relay_limits {
    struct log_limit kinds[LOG_RELAY_KINDS];
};

/* All are called from the loop. */
struct log_relay_events {
    /* The last use of the relay. */
    void (*closed)(void *arg, struct log_relay *relay);
    /*
     * The server reports that it cannot write a stream's files ("critical write error"), or the file with its port.
     * Until it is restarted it does not write to that stream, or that file, again, even if the disk has room
     * (nats-server 2.15).
     */
    void (*broken)(void *arg);
    void *arg;
};

/*
 * Read lines from descriptor until the writer closes it. The relay takes over the descriptor, also if this fails.
 * limits is borrowed. The relay frees itself after closed. Return NULL if memory ran out.
 */
struct log_relay *log_relay_open(uv_loop_t *loop, int descriptor, struct log_relay_limits *limits,
                                 const struct log_relay_events *events);

/* Stop reading; closed follows. A second call does nothing. */
void log_relay_close(struct log_relay *output);

#endif
