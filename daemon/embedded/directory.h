/*
 * directory: nats.data_dir, in which the embedded nats-server keeps its files.
 *
 * Used by the other modules of embedded. The directory holds the server's configuration, its data, its pid file and the
 * file in which it writes its port. It also has the version of the newest server that has opened the data. A lock
 * refuses a second daemon.
 */
#ifndef DAEMON_EMBEDDED_DIRECTORY_H
#define DAEMON_EMBEDDED_DIRECTORY_H

#include <limits.h>
#include <stdbool.h>

/* Of every sentence about an error in this room. */
#define EMBEDDED_ERROR_BYTES 512

/* A version of nats-server. */
struct embedded_version {
    unsigned major, minor, patch;
};

struct embedded_directory {
    char path[PATH_MAX - 64]; /* absolute */
    int lock;                 /* -1: not locked */
};

/* Create the directory at path if it does not exist, check who may write in it, and lock it. Return false with an
 * error. */
bool embedded_directory_open(struct embedded_directory *directory, const char *path, char error[EMBEDDED_ERROR_BYTES]);
void embedded_directory_close(struct embedded_directory *directory);

/*
 * Check that the server can use the data, if there are any. The daemon's user must be able to write in their
 * directories, and no newer server may have opened them: an older one may misread what it wrote. Return false with an
 * error.
 */
bool embedded_directory_check_data(const struct embedded_directory *directory, const struct embedded_version *version,
                                   char error[EMBEDDED_ERROR_BYTES]);

/* Record that a server of this version opens the data. Return false with an error if it cannot be recorded. */
bool embedded_directory_record_version(const struct embedded_directory *directory,
                                       const struct embedded_version *version, char error[EMBEDDED_ERROR_BYTES]);

/* Write the path of a file in the directory. */
void embedded_directory_path(const struct embedded_directory *directory, const char *name, char path[PATH_MAX]);

/* Remove what an earlier process of the server wrote: its pid and its port. */
void embedded_directory_clear(const struct embedded_directory *directory);

/* Read the port from the file that the server writes when it listens. Return false if it is missing or incomplete. */
bool embedded_directory_read_port(const struct embedded_directory *directory, unsigned *port);

#endif
