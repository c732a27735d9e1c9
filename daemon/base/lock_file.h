/*
 * lock_file: the lock that keeps a path for one daemon.
 *
 * Used by server (for the socket's path) and embedded (for the data directory). The lock is POSIX's (fcntl(2)); the
 * file holds the pid of the daemon that took it last, for people to read.
 */
#ifndef DAEMON_LOCK_FILE_H
#define DAEMON_LOCK_FILE_H

#include <stddef.h>

/*
 * Lock the file at path, which is created if it is missing, and write our pid into it. A symbolic link, or a file that
 * has another name besides, is refused: it would be truncated. Return the descriptor that holds the lock until it, or
 * any other descriptor of the file, is closed, or -1 with a sentence in error. what: the setting that asks for the
 * lock, with its value, for that sentence.
 */
int lock_file_take(const char *path, const char *what, char *error, size_t error_bytes);

#endif
