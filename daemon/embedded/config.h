/*
 * config: the configuration of the embedded nats-server.
 *
 * Used by process before each start of the server.
 */
#ifndef DAEMON_EMBEDDED_CONFIG_H
#define DAEMON_EMBEDDED_CONFIG_H

#include "conf/conf.h"
#include "daemon/embedded/directory.h"

/* The server's only user. */
#define EMBEDDED_CONFIG_USER "kvstored"

/* The file's name in the directory. */
#define EMBEDDED_CONFIG_FILE "nats-server.conf"

/*
 * Write the configuration. port 0: the server takes a free one. Nobody but EMBEDDED_CONFIG_USER with the secret may log
 * in. Return false with an error.
 */
bool embedded_config_write(const struct embedded_directory *directory, const struct conf *conf, unsigned port,
                           const char *secret, char error[EMBEDDED_ERROR_BYTES]);

#endif
