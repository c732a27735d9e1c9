/*
 * stage: one or three nats-servers, the proxy in front of them, and a daemon that knows
 * NATS only through the proxy.
 */
#ifndef FAULT_STAGE_H
#define FAULT_STAGE_H

#include "tests/fault/nats.h"
#include "tests/fault/proxy.h"
#include "tests/fault/server.h"
#include "tests/fault/session.h"
#include "tests/support/tls_front.h"

struct stage {
    struct server servers[CLUSTER_SERVERS];
    unsigned server_count;
    struct proxy *proxy;
    struct tls_front *front; /* between the daemon and the proxy, if the tests are run over TLS; else NULL */
    struct process daemon;
    unsigned starts; /* of the daemon */
    bool is_embedded;
    unsigned embedded_port; /* of the embedded server, if the proxy is in front of it */
    bool is_guest;          /* the servers are another stage's, or the test case's */
    char directory[PATH_BYTES];
    char socket_path[PATH_BYTES];
    struct nats *nats; /* past the proxy */
    struct session *session;
};

/*
 * How long an attempt lasts, before further sections of a stage's configuration. Short where each of many attempts is
 * spoiled; long where a server has many to work off: each copy of a batch costs it as much as the batch.
 */
#define STAGE_ATTEMPTS(seconds) "  attempt_timeout: " #seconds "\n"

/* Starts all of it. more: STAGE_ATTEMPTS, and sections of the daemon's configuration (not nats, calls); or NULL. */
void stage_begin(struct stage *stage, unsigned server_count, const char *more);

/* With the server that the daemon runs by itself, and no proxy: only the daemon and stage->session are there. */
void stage_begin_embedded(struct stage *stage, const char *more);

/* The same with the proxy between the daemon and that server. */
void stage_begin_embedded_behind_proxy(struct stage *stage, const char *more);

/* SIGKILL to that server, behind which the proxy holds nothing any more; waits until the daemon has another one. */
void stage_kill_embedded(struct stage *stage);

/*
 * With the servers of a test case's cluster, which must be left alone: they serve other tests too, which have buckets
 * of other names.
 */
void stage_begin_in(struct stage *stage, const struct cluster *cluster, const char *more);

/*
 * Another daemon, behind a proxy of its own, with the servers of another stage. All daemons have one name in NATS: they
 * are in each other's way where a name counts. Ends before its host does.
 */
void stage_join(struct stage *stage, const struct stage *host, const char *more);

/* SIGKILL, with all its sessions; and its start with the same configuration, behind which stage->session is anew. */
void stage_kill_daemon(struct stage *stage);
void stage_restart_daemon(struct stage *stage);

/* The daemon must end with status 0 and without a sanitizer's report. Ends the servers. */
void stage_end(struct stage *stage);

/* A bucket of history 64 and a replica on each server, of this name, which all of them know. options: further members.
 */
void stage_make_bucket(struct stage *stage, const char *name, const char *options);

/* The same that keeps only the last message of each key. */
void stage_make_short_bucket(struct stage *stage, const char *name);

/* So long the server knows ids of the bucket. Set before the daemon has written to it: it does not ask again. */
void stage_set_window(struct stage *stage, const char *bucket, unsigned window_ms);

/*
 * Waits until a bucket that was made is known. The stream's leader says that it is there, and JetStream's leader may
 * still have to apply its own decision: until then it answers whoever asks for the stream that there is none.
 */
void stage_wait_known(struct stage *stage, const char *bucket);

/* A number out of daemon.stats, as "watches.resyncs". */
uint64_t stage_stat(struct stage *stage, const char *path);

/* Connects stage->nats anew: after its server was killed. */
void stage_reconnect_nats(struct stage *stage);

/* The server that leads a bucket's stream; waits until one does. */
struct server *stage_leader(struct stage *stage, const char *bucket);

/* Waits until all replicas of a bucket's stream are there, and answer with all that the leader has. */
void stage_wait_current(struct stage *stage, const char *bucket);

/* Attempts after the first that the daemon has made. */
uint64_t stage_retries(struct stage *stage);

#endif
