/*
 * server: nats-servers of the test's own on 127.0.0.1, one or a cluster of three.
 */
#ifndef FAULT_SERVER_H
#define FAULT_SERVER_H

#include "tests/support/process.h"

#define CLUSTER_SERVERS 3u

struct server {
    struct process process;
    char directory[PATH_BYTES];
    unsigned port;
    char name[8];
};

/* Chooses port and directory, writes the configuration, starts it and waits until it listens. */
void server_start(struct server *server);

struct cluster {
    struct server servers[CLUSTER_SERVERS];
};

/*
 * The same for three that know each other; waits until JetStream has a leader. As the unchecked fixture of a test case
 * it serves all of its tests: these run in processes of their own, which cannot kill or restart the servers.
 */
void cluster_start(struct cluster *cluster);
void cluster_kill(struct cluster *cluster);

/* SIGKILL; or SIGTERM, and waits until it has ended. */
void server_kill(struct server *server);
void server_end(struct server *server);

/* SIGSTOP: the others hear nothing of it, and its connections stay; and SIGCONT. */
void server_freeze(struct server *server);
void server_thaw(struct server *server);

/* From its next start on the server's own limit of what it stores; max_file_store. */
void server_limit_store(struct server *server, uint64_t bytes);

/* Starts it again, on the same port and files, and waits until it listens. */
void server_restart(struct server *server);

#endif
