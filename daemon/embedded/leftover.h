/*
 * leftover: a nats-server that runs on the directory although its daemon has ended.
 *
 * Used by process before the first start. The server usually dies with its daemon (PR_SET_PDEATHSIG).
 */
#ifndef DAEMON_EMBEDDED_LEFTOVER_H
#define DAEMON_EMBEDDED_LEFTOVER_H

#include "daemon/embedded/directory.h"

/*
 * Kill such a server and wait until it has ended. The caller holds the directory's lock, so no daemon uses the server.
 * Return false with an error if it does not end.
 */
bool embedded_leftover_kill(const struct embedded_directory *directory, char error[EMBEDDED_ERROR_BYTES]);

#endif
