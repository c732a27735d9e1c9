/*
 * nats_server: a nats-server of the test's own on 127.0.0.1.
 *
 * It dies with the test that started it. As the unchecked fixture of a test case it serves all of its tests, which are
 * processes of their own and cannot end or start it.
 */
#ifndef SUPPORT_NATS_SERVER_H
#define SUPPORT_NATS_SERVER_H

#include "tests/support/process.h"
#include "tests/support/tls_front.h"

struct nats_server {
    struct process process;
    char directory[PATH_BYTES]; /* of its configuration, log and data */
    unsigned port;
    char url[64];      /* nats://127.0.0.1:PORT */
    const char *lines; /* of the configuration, besides its address and JetStream's */
    struct tls_front *front;
};

/* Choose a port and a directory, and write the configuration. lines: further lines of it, or NULL. */
void nats_server_prepare(struct nats_server *server, const char *lines);

/* Write the configuration with this member of the section jetstream, as in "domain: hub". It counts from the next start
 * on. */
void nats_server_configure_jetstream(struct nats_server *server, const char *member);

/* Start it on the prepared port and files, for the first time or again, and wait until it listens. */
void nats_server_run(struct nats_server *server);

/* Prepare and run. */
void nats_server_start(struct nats_server *server, const char *lines);

/* Send SIGTERM, and wait until it has ended. Does nothing if it does not run. */
void nats_server_stop(struct nats_server *server);

/* Send SIGKILL, and wait. */
void nats_server_kill(struct nats_server *server);

/* Stop it (SIGSTOP), which nobody is notified of, as its connections stay; continue it. */
void nats_server_freeze(struct nats_server *server);
void nats_server_thaw(struct nats_server *server);

/*
 * Return the members "mode", "servers" and "tls" of the section nats of a daemon that uses this server. If the tests
 * are run over TLS and the server runs, they lead through a tls_front.
 */
const char *nats_server_section(struct nats_server *server);

#endif
