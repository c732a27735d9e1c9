/*
 * credentials: how the daemon logs in to a NATS server, and how it verifies the server.
 *
 * Used by libnats for each connection: user, token, nkey or credentials file, and TLS, as the configuration has them;
 * for the daemon's embedded server its secret and nothing else.
 */
#ifndef DAEMON_NATS_CREDENTIALS_H
#define DAEMON_NATS_CREDENTIALS_H

#include "conf/conf.h"
#include "daemon/nats/link.h"

#include <nats/nats.h>
#include <stdbool.h>
#include <sys/socket.h>

/*
 * Sets all of them in the library's options. If the library refuses one (a missing file), its status is returned. If
 * the library does not know the reason, error says it; otherwise error stays as it is.
 */
natsStatus credentials_set(natsOptions *options, const struct conf *conf, const struct link_target *target, char *error,
                           size_t error_bytes);

/* The setting whose content a connection without TLS would show to the network. NULL: there is none. */
const char *credentials_in_clear_text(const struct conf *conf, const struct link_target *target);

/* Whether what is sent to this address leaves the machine: whether it is not a loopback address. */
bool credentials_leave_machine(const struct sockaddr *address);

#endif
