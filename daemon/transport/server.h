/*
 * server: the listening socket.
 *
 * Made by main. It binds the configured path, or takes the socket that systemd hands over, and gives each connection to
 * session. One daemon at a time serves a path: a second daemon is refused, and a socket that nobody serves is replaced.
 * A connection for which there is no file descriptor is answered before it is closed.
 */
#ifndef DAEMON_TRANSPORT_SERVER_H
#define DAEMON_TRANSPORT_SERVER_H

#include "conf/conf.h"
#include "daemon/base/log.h"
#include "daemon/transport/session.h"

#include <stdbool.h>
#include <uv.h>

#define SERVER_ERROR_BYTES 512

struct server {
    int listener; /* the socket */
    uv_poll_t poll;
    int reserve;          /* a descriptor, closed to refuse a connection if all others are in use; -1: none */
    struct timer retry;   /* accepts again, after the reserve was not enough either */
    struct job accepting; /* of connections for which the turn had no time */
    struct session_list *sessions;
    const struct conf *conf;
    bool is_open;
    bool is_ours; /* the daemon removes the path; not if systemd made it */
    int lock;     /* of the path; -1: none */
    struct log_limit failure_log;
    char path[108];
};

/* Listen. 0, or -1 with a sentence in error. All pointers are borrowed. */
int server_open(struct server *server, uv_loop_t *loop, const struct conf *conf, struct session_list *sessions,
                char error[SERVER_ERROR_BYTES]);

/* Raise the limit of open files so that limits.sessions sessions have a descriptor each, as far as allowed. */
void server_raise_descriptor_limit(const struct conf *conf);

/* Accept no more connections. The kernel refuses those that wait; under systemd they wait for the next daemon. */
void server_close(struct server *server);

#endif
