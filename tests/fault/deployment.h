/*
 * deployment: one or three nats-servers, a proxy in front of them, and a daemon that knows NATS only through the proxy.
 */
#ifndef FAULT_DEPLOYMENT_H
#define FAULT_DEPLOYMENT_H

#include "tests/fault/cluster.h"
#include "tests/fault/proxy.h"
#include "tests/support/client.h"
#include "tests/support/daemon.h"
#include "tests/support/stream_log.h"
#include "tests/support/tls_front.h"

/* calls.timeout of its daemon. Only a fault makes a call reach it. */
#define DEPLOYMENT_CALL_SECONDS 120u

struct deployment {
    struct nats_server servers[CLUSTER_SERVERS];
    unsigned server_count;
    struct proxy *proxy;
    struct tls_front *front; /* between the daemon and the proxy if the tests are run over TLS; else NULL */
    struct daemon daemon;
    bool is_embedded;
    unsigned embedded_port; /* of the embedded server, if the proxy is in front of it */
    bool is_guest;          /* the servers are another deployment's, or the test case's */
    struct nats *nats;      /* to a server, without the proxy */
    struct client *client;  /* of the daemon */
};

/*
 * The timeout of one attempt, which stands before further sections of a deployment's configuration. It is short if the
 * proxy spoils many attempts. It is long if a server gets many requests: each copy of a batch costs it as much as the
 * batch.
 */
#define DEPLOYMENT_ATTEMPTS(seconds) "  attempt_timeout: " #seconds "\n"

/*
 * Start servers, proxy and daemon, and connect to them. more: DEPLOYMENT_ATTEMPTS and sections of the daemon's
 * configuration, but not nats and calls; or NULL.
 */
void deployment_begin(struct deployment *deployment, unsigned server_count, const char *more);

/* Start only a daemon, with an embedded server, and deployment->client. */
void deployment_begin_embedded(struct deployment *deployment, const char *more);

/* The same with a proxy between the daemon and its server. */
void deployment_begin_embedded_behind_proxy(struct deployment *deployment, const char *more);

/* Kill the embedded server, and wait until the daemon has another one. The proxy no longer holds anything. */
void deployment_kill_embedded(struct deployment *deployment);

/* Start proxy and daemon with the servers of a test case's cluster. They serve other tests too: do not end them. */
void deployment_begin_in(struct deployment *deployment, const struct cluster *cluster, const char *more);

/*
 * Start another proxy and daemon with the servers of another deployment, which must end later. Both daemons have the
 * same name in NATS, so that they use the same consumer.
 */
void deployment_join(struct deployment *deployment, const struct deployment *host, const char *more);

/* Kill the daemon, and close deployment->client; start the daemon with the same configuration, and connect. */
void deployment_kill_daemon(struct deployment *deployment);
void deployment_restart_daemon(struct deployment *deployment);

/* End everything. The daemon must end as in daemon_stop. */
void deployment_end(struct deployment *deployment);

/*
 * Create a bucket with a history of 64 and a replica on each server, and wait until all servers know it. options:
 * further members, or NULL.
 */
void deployment_make_bucket(struct deployment *deployment, const char *name, const char *options);

/* The same with a history of 1. */
void deployment_make_short_bucket(struct deployment *deployment, const char *name);

/* Set the stream's duplicate window, before the daemon writes to the bucket: it does not ask for it again. */
void deployment_set_window(struct deployment *deployment, const char *bucket, unsigned window_ms);

/*
 * Wait until all servers know a bucket that was created. JetStream's leader may not have applied its own decision yet
 * when the stream's leader answers, and then says that there is no stream.
 */
void deployment_wait_known(struct deployment *deployment, const char *bucket);

/* Return a number of daemon.stats, as in "watches.resyncs". */
uint64_t deployment_stat(struct deployment *deployment, const char *path);

/* Reconnect deployment->nats, after its server was killed. */
void deployment_reconnect_nats(struct deployment *deployment);

/* Wait until a server leads the bucket's stream, and return it. */
struct nats_server *deployment_leader(struct deployment *deployment, const char *bucket);

/* Wait until all replicas of the bucket's stream answer with all that the leader has. */
void deployment_wait_current(struct deployment *deployment, const char *bucket);

/* Return the number of attempts after the first ones that the daemon has made. */
uint64_t deployment_retries(struct deployment *deployment);

#endif
