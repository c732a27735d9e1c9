/*
 * unix_listener: binds the path of a listening Unix socket.
 *
 * Used by server and by the endpoint of the metrics. One daemon at a time serves a path: a second one is refused, and a
 * socket that nobody serves is replaced. Nobody can connect before mode, owner and group are set.
 */
#ifndef DAEMON_UNIX_LISTENER_H
#define DAEMON_UNIX_LISTENER_H

#include <stddef.h>
#include <sys/types.h>

struct unix_listener_options {
    const char *path;
    const char *path_setting; /* for messages, such as "listen.path" */
    mode_t mode;
    const char *owner; /* name or number; NULL: the daemon's own */
    const char *owner_setting;
    const char *group;
    const char *group_setting;
};

/*
 * Return a socket that is bound to the path, or -1 with a sentence in error. *lock is the lock of the path, which lasts
 * until the caller closes it; -1: none.
 */
int unix_listener_bind(const struct unix_listener_options *options, int *lock, char *error, size_t error_bytes);

#endif
