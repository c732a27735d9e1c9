/*
 * backlog: how many strangers may wait at the embedded server's port.
 *
 * Used by process. nats-server listens with the longest backlog that the system allows, 4,096 connections. Whoever may
 * use the loopback interface can fill it at once, and the server then needs a tenth of a second for all of them before
 * it reads from the daemon. While the daemon is connected, nobody else has to be, so the backlog is short: the kernel
 * drops further connections, and their kernels try again after a second. To set it, the daemon copies the descriptor of
 * the server's socket (pidfd_getfd) for a moment. Where the system forbids that, as in most containers, the backlog
 * stays long.
 */
#ifndef DAEMON_EMBEDDED_BACKLOG_H
#define DAEMON_EMBEDDED_BACKLOG_H

#include <stdbool.h>
#include <sys/types.h>

struct embedded_backlog {
    pid_t pid; /* of the server; 0: it cannot be set */
    unsigned port;
    bool is_short;
};

/* Begin with a server that listens on this port of the loopback interface, with the longest backlog. */
void embedded_backlog_begin(struct embedded_backlog *backlog, pid_t pid, unsigned port);

/* Make it short, or as long as the system allows. */
void embedded_backlog_set(struct embedded_backlog *backlog, bool is_short);

/* The server has ended. */
void embedded_backlog_end(struct embedded_backlog *backlog);

#endif
