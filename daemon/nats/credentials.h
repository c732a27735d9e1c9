/*
 * credentials: the daemon's login at a NATS server, and the verification of the server.
 *
 * Used by libnats for each connection: user, token, nkey or credentials file, and TLS, as configured. For the embedded
 * server it is the secret of the target and nothing else.
 */
#ifndef DAEMON_NATS_CREDENTIALS_H
#define DAEMON_NATS_CREDENTIALS_H

#include "conf/conf.h"
#include "daemon/nats/connection.h"
#include "daemon/nats/secrets.h"

#include <nats/nats.h>
#include <stdbool.h>
#include <sys/socket.h>

/*
 * Set all of them except TLS in the library's options. If the library refuses one, its status is returned. error is set
 * only if the library does not report the reason. The secrets must outlive the library's attempt to connect.
 */
natsStatus credentials_set(natsOptions *options, struct secrets *secrets, char *error, size_t error_bytes);

/* Return whether the connection is to be encrypted, because of the section nats.tls or a tls:// URL. */
bool credentials_want_tls(const struct conf *conf, const struct connection_target *target);

/*
 * Set the options of TLS. Creating the context and parsing the authorities takes 20 ms, and 50 with a system's: so call
 * it on the thread that connects.
 */
natsStatus credentials_set_tls(natsOptions *options, struct secrets *secrets);

/* Return the setting whose content a connection without TLS would expose to the network; NULL: there is none. */
const char *credentials_in_clear_text(const struct conf *conf, const struct connection_target *target);

/* Return whether an address is outside this machine: it is not a loopback address. */
bool credentials_leave_machine(const struct sockaddr *address);

/* Return whether a connected socket's peer is on this machine, or unknown. */
bool credentials_peer_is_local(int socket);

#endif
