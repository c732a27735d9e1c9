/*
 * server_directory: nats.data_dir, the directory that the embedded nats-server keeps its files in.
 *
 * Used by embedded. It is locked, so that one daemon uses it. It holds the server's
 * configuration, its data, its pid and the file in which it says its port.
 */
#ifndef DAEMON_NATS_SERVER_DIRECTORY_H
#define DAEMON_NATS_SERVER_DIRECTORY_H

#include "conf/conf.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#define SERVER_DIRECTORY_ERROR_BYTES 512

/* The only user of the server. */
#define SERVER_DIRECTORY_USER "kvstored"

/* What the server may store beyond nats.max_store: who gives it work keeps that for deletes and purges. */
#define SERVER_DIRECTORY_RESERVE_BYTES (256ull * 1024 * 1024)

struct server_directory {
    char path[PATH_MAX - 64]; /* absolute */
    int lock;                 /* -1: not locked */
};

/* Makes the directory at path where it is not there, and locks it. False with a sentence in error. */
bool server_directory_open(struct server_directory *directory, const char *path,
                           char error[SERVER_DIRECTORY_ERROR_BYTES]);
void server_directory_close(struct server_directory *directory);

/* The path of a file in the directory. */
void server_directory_path(const struct server_directory *directory, const char *name, char path[PATH_MAX]);

/*
 * Kills a server that an earlier daemon left behind, and waits until it has ended. False with a sentence in error: it
 * does not end.
 */
bool server_directory_end_leftover(const struct server_directory *directory, char error[SERVER_DIRECTORY_ERROR_BYTES]);

/*
 * Writes nats-server.conf. server_port 0: the server takes a free one. Nobody but SERVER_DIRECTORY_USER with the
 * secret may log in. False with a sentence in error.
 */
bool server_directory_configure(const struct server_directory *directory, const struct conf *conf, unsigned server_port,
                                const char *secret, char error[SERVER_DIRECTORY_ERROR_BYTES]);

/* Removes what an earlier process of the server wrote: its pid and its port. */
void server_directory_clear(const struct server_directory *directory);

/* Reads the port from the file that the server writes when it listens. False: not there, or not whole. */
bool server_directory_read_port(const struct server_directory *directory, unsigned *port);

#endif
