/*
 * credentials: how the daemon logs in to a NATS server, and how it verifies the server.
 *
 * Used by libnats for each connection: user, token, nkey or credentials file, and TLS, as the configuration has them;
 * for the daemon's embedded server its secret and nothing else.
 */
#ifndef DAEMON_NATS_CREDENTIALS_H
#define DAEMON_NATS_CREDENTIALS_H

#include "conf/conf.h"
#include "daemon/nats/connection.h"

#include <nats/nats.h>
#include <stdbool.h>
#include <sys/socket.h>

/*
 * Sets all of them but TLS in the library's options. If the library refuses one (a missing file), its status is
 * returned. If the library does not know the reason, error says it; otherwise error stays as it is.
 */
natsStatus credentials_set(natsOptions *options, const struct conf *conf, const struct connection_target *target,
                           char *error, size_t error_bytes);

/* Whether the connection is to be encrypted: the section tls asks for it, and a tls:// URL does. */
bool credentials_want_tls(const struct conf *conf, const struct connection_target *target);

/*
 * Sets what TLS needs. It makes a context and parses the authorities, which takes 20 ms, and 50 with a system's: so it
 * is for the thread that connects. No reload changes the settings that it reads.
 */
natsStatus credentials_set_tls(natsOptions *options, const struct conf *conf);

/* The setting whose content a connection without TLS would show to the network. NULL: there is none. */
const char *credentials_in_clear_text(const struct conf *conf, const struct connection_target *target);

/* Whether what is sent to this address leaves the machine: whether it is not a loopback address. */
bool credentials_leave_machine(const struct sockaddr *address);

/* Return whether a connected socket's peer is on this machine, or unknown. */
bool credentials_peer_is_local(int socket);

#endif
