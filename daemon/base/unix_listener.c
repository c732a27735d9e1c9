#include "daemon/base/unix_listener.h"

#include "daemon/base/lock_file.h"
#include "daemon/base/log.h"
#include "daemon/base/usergroup.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/*
 * The lock decides which daemon owns the path. The socket could not: two daemons that start at the same moment could
 * both find a socket that nobody serves, and remove each other's.
 */
static int unix_listener_lock(const struct unix_listener_options *options, char *error, size_t error_bytes)
{
    char path[128], what[256];

    snprintf(path, sizeof(path), "%s.lock", options->path);
    snprintf(what, sizeof(what), "%s %s", options->path_setting, options->path);
    return lock_file_take(path, what, error, error_bytes);
}

/* Remove a socket that nobody serves. Another program may serve the path without the lock: if it accepts, it runs. */
static int unix_listener_remove_stale(const struct unix_listener_options *options, const struct sockaddr_un *address,
                                      char *error, size_t error_bytes)
{
    struct stat status;

    if (lstat(options->path, &status) != 0)
        return 0;
    if (!S_ISSOCK(status.st_mode)) {
        snprintf(error, error_bytes, "%s %s exists and is no socket", options->path_setting, options->path);
        return -1;
    }
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool is_served = probe >= 0 && (connect(probe, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
                                    errno == EAGAIN); /* its backlog is full */
    if (probe >= 0)
        close(probe);
    if (is_served) {
        snprintf(error, error_bytes, "%s %s is served by another program", options->path_setting, options->path);
        return -1;
    }
    if (unlink(options->path) != 0) {
        snprintf(error, error_bytes, "cannot replace %s: %s", options->path, strerror(errno));
        return -1;
    }
    log_info("replaced the socket %s, which nobody served", options->path);
    return 0;
}

static int unix_listener_set_owner(const struct unix_listener_options *options, char *error, size_t error_bytes)
{
    unsigned owner = UINT_MAX, group = UINT_MAX; /* as it is: chown(2) */

    if (options->owner != NULL && !usergroup_find_user(options->owner, &owner)) {
        snprintf(error, error_bytes, "%s: unknown user \"%s\"", options->owner_setting, options->owner);
        return -1;
    }
    if (options->group != NULL && !usergroup_find_group(options->group, &group)) {
        snprintf(error, error_bytes, "%s: unknown group \"%s\"", options->group_setting, options->group);
        return -1;
    }
    if ((owner != UINT_MAX || group != UINT_MAX) && chown(options->path, owner, group) != 0) {
        snprintf(error, error_bytes, "cannot set the owner and group of %s: %s", options->path, strerror(errno));
        return -1;
    }
    return 0;
}

int unix_listener_bind(const struct unix_listener_options *options, int *lock, char *error, size_t error_bytes)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    *lock = -1;
    if (strlen(options->path) >= sizeof(address.sun_path)) {
        snprintf(error, error_bytes, "%s %s is too long: a socket's path has up to %zu characters",
                 options->path_setting, options->path, sizeof(address.sun_path) - 1);
        return -1;
    }
    strcpy(address.sun_path, options->path);
    *lock = unix_listener_lock(options, error, error_bytes);
    if (*lock < 0 || unix_listener_remove_stale(options, &address, error, error_bytes) != 0)
        return -1;

    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0) {
        snprintf(error, error_bytes, "cannot create a socket: %s", strerror(errno));
        return -1;
    }
    /* Nobody may connect before mode and owner are set: the socket is created without permissions. */
    mode_t old_mask = umask(0777);
    int bound = bind(listener, (struct sockaddr *)&address, sizeof(address));
    umask(old_mask);
    if (bound != 0) {
        snprintf(error, error_bytes, "cannot listen on %s: %s", options->path, strerror(errno));
        close(listener);
        return -1;
    }
    if (unix_listener_set_owner(options, error, error_bytes) != 0)
        goto fail;
    if (chmod(options->path, options->mode) != 0) {
        snprintf(error, error_bytes, "cannot set the mode of %s: %s", options->path, strerror(errno));
        goto fail;
    }
    return listener;

fail:
    close(listener);
    unlink(options->path);
    return -1;
}
