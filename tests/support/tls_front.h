/*
 * tls_front: encrypts connections to a server that has no TLS.
 *
 * It listens on a port of its own and forwards to the server's port. In the server's INFO it tells the client that TLS
 * is required, and then speaks TLS with it. So every test that starts a nats-server, or the proxy in front of one, can
 * be run over TLS. It is a process, which dies with the test that started it.
 */
#ifndef SUPPORT_TLS_FRONT_H
#define SUPPORT_TLS_FRONT_H

#include <stddef.h>

struct tls_front;

/* Return the version of TLS that the tests are run over, "1.2" or "1.3", from KVSTORED_TEST_TLS; NULL: without. */
const char *tls_front_wanted(void);

/* Start one in front of a port of 127.0.0.1. version: "1.2" or "1.3". */
struct tls_front *tls_front_start(unsigned server_port, const char *version);
void tls_front_stop(struct tls_front *front);

/* Return the members "servers" and "tls" of the section nats of the daemon's configuration. */
const char *tls_front_section(const struct tls_front *front);

unsigned tls_front_port(const struct tls_front *front);

/* Return the path of the authority that has signed its certificate. */
const char *tls_front_authority(const struct tls_front *front);

/* Let each new connection fall silent after this number of bytes to the client. SIZE_MAX: never. */
void tls_front_fall_silent_after(struct tls_front *front, size_t bytes);

/* The same, but the connection ends there, perhaps with a FIN in the middle of a record. */
void tls_front_end_after(struct tls_front *front, size_t bytes);

/* Return the bytes to the client so far, of the newest connection; and the number of connections so far. */
size_t tls_front_bytes(const struct tls_front *front);
unsigned tls_front_connections(const struct tls_front *front);

#endif
