/*
 * deployment: one or three nats-servers, the proxy in front of them, and a daemon that knows
 * NATS only through the proxy.
 */
#ifndef FAULT_DEPLOYMENT_H
#define FAULT_DEPLOYMENT_H

#include "tests/fault/cluster.h"
#include "tests/fault/proxy.h"
#include "tests/support/client.h"
#include "tests/support/daemon.h"
#include "tests/support/stream_log.h"
#include "tests/support/tls_front.h"

/* calls.timeout of its daemon: of a call that names no timeout. Only a fault runs into it. */
#define DEPLOYMENT_CALL_SECONDS 120u

struct deployment {
    struct nats_server servers[CLUSTER_SERVERS];
    unsigned server_count;
    struct proxy *proxy;
    struct tls_front *front; /* between the daemon and the proxy, if the tests are run over TLS; else NULL */
    struct daemon daemon;
    bool is_embedded;
    unsigned embedded_port; /* of the embedded server, if the proxy is in front of it */
    bool is_guest;          /* the servers are another deployment's, or the test case's */
    struct nats *nats;      /* past the proxy */
    struct client *client;
};

/*
 * How long an attempt lasts, before further sections of a deployment's configuration. Short where each of many attempts
 * is spoiled; long where a server has many to work off: each copy of a batch costs it as much as the batch.
 */
#define DEPLOYMENT_ATTEMPTS(seconds) "  attempt_timeout: " #seconds "\n"

/* Starts all of it. more: DEPLOYMENT_ATTEMPTS, and sections of the daemon's configuration (not nats, calls); or NULL.
 */
void deployment_begin(struct deployment *deployment, unsigned server_count, const char *more);

/* With the server that the daemon runs by itself, and no proxy: only the daemon and deployment->session are there. */
void deployment_begin_embedded(struct deployment *deployment, const char *more);

/* The same with the proxy between the daemon and that server. */
void deployment_begin_embedded_behind_proxy(struct deployment *deployment, const char *more);

/* SIGKILL to that server, behind which the proxy holds nothing any more; waits until the daemon has another one. */
void deployment_kill_embedded(struct deployment *deployment);

/*
 * With the servers of a test case's cluster, which must be left alone: they serve other tests too, which have buckets
 * of other names.
 */
void deployment_begin_in(struct deployment *deployment, const struct cluster *cluster, const char *more);

/*
 * Another daemon, behind a proxy of its own, with the servers of another deployment. All daemons have one name in NATS:
 * they are in each other's way where a name counts. Ends before its host does.
 */
void deployment_join(struct deployment *deployment, const struct deployment *host, const char *more);

/* SIGKILL, with all its sessions; and its start with the same configuration, behind which deployment->session is anew.
 */
void deployment_kill_daemon(struct deployment *deployment);
void deployment_restart_daemon(struct deployment *deployment);

/* The daemon must end with status 0 and without a sanitizer's report. Ends the servers. */
void deployment_end(struct deployment *deployment);

/* A bucket of history 64 and a replica on each server, of this name, which all of them know. options: further members.
 */
void deployment_make_bucket(struct deployment *deployment, const char *name, const char *options);

/* The same that keeps only the last message of each key. */
void deployment_make_short_bucket(struct deployment *deployment, const char *name);

/* So long the server knows ids of the bucket. Set before the daemon has written to it: it does not ask again. */
void deployment_set_window(struct deployment *deployment, const char *bucket, unsigned window_ms);

/*
 * Waits until a bucket that was made is known. The stream's leader says that it is there, and JetStream's leader may
 * still have to apply its own decision: until then it answers whoever asks for the stream that there is none.
 */
void deployment_wait_known(struct deployment *deployment, const char *bucket);

/* A number out of daemon.stats, as "watches.resyncs". */
uint64_t deployment_stat(struct deployment *deployment, const char *path);

/* Connects deployment->nats anew: after its server was killed. */
void deployment_reconnect_nats(struct deployment *deployment);

/* The server that leads a bucket's stream; waits until one does. */
struct nats_server *deployment_leader(struct deployment *deployment, const char *bucket);

/* Waits until all replicas of a bucket's stream are there, and answer with all that the leader has. */
void deployment_wait_current(struct deployment *deployment, const char *bucket);

/* Attempts after the first that the daemon has made. */
uint64_t deployment_retries(struct deployment *deployment);

#endif
