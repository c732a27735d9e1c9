#include "daemon/server.h"

#include "daemon/lock_file.h"
#include "daemon/log.h"
#include "daemon/names.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

/* --- One daemon per path --------------------------------------------------------------------------- */

/*
 * The lock, not the socket, decides whose the path is: two daemons that start at the same moment
 * could both find a socket that nobody serves and remove each other's.
 */
static int lock_path(struct server *server, char error[SERVER_ERROR_BYTES])
{
    char path[sizeof(server->path) + 8], what[sizeof(server->path) + 16];

    snprintf(path, sizeof(path), "%s.lock", server->path);
    snprintf(what, sizeof(what), "listen.path %s", server->path);
    server->lock = lock_file_take(path, what, error, SERVER_ERROR_BYTES);
    return server->lock >= 0 ? 0 : -1;
}

/* Somebody else's program may serve the path without our lock: whoever accepts is alive. */
static int remove_stale(const struct server *server, const struct sockaddr_un *address, char error[SERVER_ERROR_BYTES])
{
    struct stat status;

    if (lstat(server->path, &status) != 0)
        return 0;
    if (!S_ISSOCK(status.st_mode)) {
        snprintf(error, SERVER_ERROR_BYTES, "listen.path %s is there and is no socket", server->path);
        return -1;
    }
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool is_served = probe >= 0 && (connect(probe, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
                                    errno == EAGAIN); /* its backlog is full */
    if (probe >= 0)
        close(probe);
    if (is_served) {
        snprintf(error, SERVER_ERROR_BYTES, "listen.path %s is served by another program", server->path);
        return -1;
    }
    if (unlink(server->path) != 0) {
        snprintf(error, SERVER_ERROR_BYTES, "cannot replace %s: %s", server->path, strerror(errno));
        return -1;
    }
    log_info("replaced %s, which nobody served any more", server->path);
    return 0;
}

/* --- Whose the socket is --------------------------------------------------------------------------- */

static int set_owner(const struct server *server, char error[SERVER_ERROR_BYTES])
{
    unsigned owner = UINT_MAX, group = UINT_MAX; /* as it is: chown(2) */

    if (server->conf->listen.owner != NULL && !names_find_user(server->conf->listen.owner, &owner)) {
        snprintf(error, SERVER_ERROR_BYTES, "listen.owner: there is no user \"%s\"", server->conf->listen.owner);
        return -1;
    }
    if (server->conf->listen.group != NULL && !names_find_group(server->conf->listen.group, &group)) {
        snprintf(error, SERVER_ERROR_BYTES, "listen.group: there is no group \"%s\"", server->conf->listen.group);
        return -1;
    }
    if ((owner != UINT_MAX || group != UINT_MAX) && chown(server->path, owner, group) != 0) {
        snprintf(error, SERVER_ERROR_BYTES, "cannot give %s to its owner and group: %s", server->path, strerror(errno));
        return -1;
    }
    return 0;
}

static int bind_path(struct server *server, char error[SERVER_ERROR_BYTES])
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = server->conf->listen.path;

    if (strlen(path) >= sizeof(address.sun_path) || strlen(path) >= sizeof(server->path)) {
        snprintf(error, SERVER_ERROR_BYTES, "listen.path %s is too long: a socket's path has up to %zu characters",
                 path, sizeof(address.sun_path) - 1);
        return -1;
    }
    strcpy(address.sun_path, path);
    strcpy(server->path, path);
    if (lock_path(server, error) != 0 || remove_stale(server, &address, error) != 0)
        return -1;

    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0) {
        snprintf(error, SERVER_ERROR_BYTES, "cannot make a socket: %s", strerror(errno));
        return -1;
    }
    /* Nobody may connect before mode and owner are set: the socket comes into being closed. */
    mode_t old_mask = umask(0777);
    int bound = bind(listener, (struct sockaddr *)&address, sizeof(address));
    umask(old_mask);
    if (bound != 0) {
        snprintf(error, SERVER_ERROR_BYTES, "cannot listen on %s: %s", path, strerror(errno));
        close(listener);
        return -1;
    }
    server->is_ours = true;
    if (set_owner(server, error) != 0)
        goto fail;
    if (chmod(path, server->conf->listen.mode) != 0) {
        snprintf(error, SERVER_ERROR_BYTES, "cannot set the mode of %s: %s", path, strerror(errno));
        goto fail;
    }
    return listener;

fail:
    close(listener);
    unlink(path);
    return -1;
}

/* The one socket that systemd has opened for us (sd_listen_fds(3)); -1 where it has none, -2 with an error. */
static int inherited_socket(struct server *server, char error[SERVER_ERROR_BYTES])
{
    int count = sd_listen_fds(1);
    struct sockaddr_un address;
    socklen_t length = sizeof(address);

    if (count <= 0)
        return -1;
    if (count > 1 || sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_STREAM, 1, NULL, 0) <= 0) {
        snprintf(error, SERVER_ERROR_BYTES,
                 "the service manager handed over something other than one listening Unix socket");
        return -2;
    }
    memset(&address, 0, sizeof(address));
    if (getsockname(SD_LISTEN_FDS_START, (struct sockaddr *)&address, &length) == 0)
        snprintf(server->path, sizeof(server->path), "%.*s", (int)sizeof(server->path) - 1, address.sun_path);
    return SD_LISTEN_FDS_START;
}

/* --- Listening ------------------------------------------------------------------------------------- */

static bool run_accepting(struct job *job)
{
    struct server *server = (struct server *)((char *)job - offsetof(struct server, accepting));

    session_accept(server->sessions, (uv_stream_t *)&server->listener);
    return false;
}

/* A connection that is not accepted at once keeps libuv from taking the next one out of the kernel. */
static void on_connection(uv_stream_t *stream, int status)
{
    struct server *server = stream->data;

    if (status < 0) {
        log_limited(&server->failure_log, "connections could not be taken", CONF_LOG_ERROR,
                    "a connection could not be taken: %s", uv_strerror(status));
        return;
    }
    if (jobs_begin_slice(server->sessions->jobs))
        session_accept(server->sessions, stream);
    else
        jobs_add(server->sessions->jobs, &server->accepting, run_accepting);
}

int server_open(struct server *server, uv_loop_t *loop, const struct conf *conf, struct session_list *sessions,
                char error[SERVER_ERROR_BYTES])
{
    memset(server, 0, sizeof(*server));
    server->conf = conf;
    server->sessions = sessions;
    server->lock = -1;

    int listener = inherited_socket(server, error);
    bool is_inherited = listener >= 0;
    if (listener == -1)
        listener = bind_path(server, error);
    if (listener < 0)
        goto fail;
    uv_pipe_init(loop, &server->listener, 0);
    server->listener.data = server;
    int failed = uv_pipe_open(&server->listener, listener);
    if (failed == 0)
        failed = uv_listen((uv_stream_t *)&server->listener, (int)conf->listen.backlog, on_connection);
    server->is_open = true;
    if (failed != 0) {
        snprintf(error, SERVER_ERROR_BYTES, "cannot listen on %s: %s", server->path, uv_strerror(failed));
        server_close(server);
        return -1;
    }
    log_info("listening on %s%s", server->path, is_inherited ? ", handed over by the service manager" : "");
    return 0;

fail:
    if (server->lock >= 0)
        close(server->lock);
    return -1;
}

void server_close(struct server *server)
{
    if (!server->is_open)
        return;
    server->is_open = false;
    jobs_remove(server->sessions->jobs, &server->accepting);
    if (server->is_ours)
        unlink(server->path);
    uv_close((uv_handle_t *)&server->listener, NULL);
    /* The lock's file stays: removing it would let a third daemon lock another file of that name. */
    if (server->lock >= 0)
        close(server->lock);
    server->lock = -1;
}
