/*
 * server: nats-servers of the test's own on 127.0.0.1, one or a cluster of three.
 */
#ifndef FAULT_SERVER_H
#define FAULT_SERVER_H

#include "tests/ground/scene.h"

#define CLUSTER_SERVERS 3u

struct server {
    struct process process;
    char directory[PATH_BYTES];
    unsigned port;
    char name[8];
};

/* Chooses port and directory, writes the configuration, starts it and waits until it listens. */
void server_start(struct server *server);

/* The same for three that know each other; waits until JetStream has a leader. */
void cluster_start(struct server servers[CLUSTER_SERVERS]);

/* SIGKILL. */
void server_kill(struct server *server);

/* SIGSTOP: the others hear nothing of it, and its connections stay; and SIGCONT. */
void server_freeze(struct server *server);
void server_thaw(struct server *server);

/* Starts it again, on the same port and files, and waits until it listens. */
void server_restart(struct server *server);

#endif
