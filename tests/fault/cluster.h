/*
 * cluster: three nats-servers of the test's own that know each other.
 */
#ifndef FAULT_CLUSTER_H
#define FAULT_CLUSTER_H

#include "tests/support/nats_server.h"

#define CLUSTER_SERVERS 3u

struct cluster {
    struct nats_server servers[CLUSTER_SERVERS];
};

/*
 * Start them, and wait until JetStream has a leader. As the unchecked fixture of a test case it serves all of its
 * tests, which are processes of their own and cannot end or start the servers.
 */
void cluster_start(struct cluster *cluster);
void cluster_kill(struct cluster *cluster);

/* Return the name of the server with this index, from 0 on, which JetStream says where it names a leader. */
const char *cluster_server_name(unsigned index);

#endif
