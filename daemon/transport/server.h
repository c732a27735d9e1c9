/*
 * server: the listening socket.
 *
 * Made by main. It binds the configured path, or takes the socket that systemd hands over, and gives each connection to
 * session. Promises that a path is served by one daemon at a time: a second daemon is refused, a socket that nobody
 * serves any more is replaced. A connection for which there is no file descriptor is answered before it is closed.
 */
#ifndef DAEMON_SERVER_H
#define DAEMON_SERVER_H

#include "conf/conf.h"
#include "daemon/base/log.h"
#include "daemon/transport/session.h"

#include <stdbool.h>
#include <uv.h>

#define SERVER_ERROR_BYTES 512

struct server {
    int listener; /* the socket */
    uv_poll_t poll;
    int reserve;          /* a descriptor that is closed to refuse a connection when there is no other; -1: none */
    struct timer retry;   /* accepts again, after the reserve was not enough either */
    struct job accepting; /* of connections for which the turn had no time */
    struct session_list *sessions;
    const struct conf *conf;
    bool is_open;
    bool is_ours; /* the path is ours to remove; systemd's is not */
    int lock;     /* of the path; -1: none */
    struct log_limit failure_log;
    char path[108];
};

/* Listens. 0, or -1 with a sentence in error. What is pointed to is borrowed. */
int server_open(struct server *server, uv_loop_t *loop, const struct conf *conf, struct session_list *sessions,
                char error[SERVER_ERROR_BYTES]);

/* Raise the limit of open files so that limits.sessions sessions have a descriptor each, as far as allowed. */
void server_raise_descriptor_limit(const struct conf *conf);

/* Takes no more connections. Those that wait are refused by the kernel, but under systemd wait for the next daemon. */
void server_close(struct server *server);

#endif
