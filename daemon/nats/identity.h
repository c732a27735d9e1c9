/*
 * identity: who the daemon is to a NATS server, and how it knows the server.
 *
 * Used by the link for each connection: credentials, user, token or nkey, and TLS, as
 * the configuration has them; for our own embedded server its secret and nothing else.
 */
#ifndef DAEMON_NATS_IDENTITY_H
#define DAEMON_NATS_IDENTITY_H

#include "conf/conf.h"
#include "daemon/nats/link.h"

#include <nats/nats.h>
#include <stdbool.h>

/*
 * Sets all that on the library's options. What the library refuses (a file that is not there) is its status; where it
 * does not know why, error says so, which is left as it was otherwise.
 */
natsStatus identity_set(natsOptions *options, const struct conf *conf, const struct link_target *target, char *error,
                        size_t error_bytes);

/* Whether the connection is to be encrypted: a section tls: asks for it, and so does a URL of that scheme. */
bool identity_wants_tls(const struct conf *conf, const struct link_target *target);

#endif
