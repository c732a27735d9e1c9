#include "daemon/transport/server.h"

#include "daemon/base/lock_file.h"
#include "daemon/base/log.h"
#include "daemon/base/usergroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

/* The pause before connections are accepted again, after there was no file descriptor at all. */
#define RETRY_MS 100u

/* While so many sessions wait for their end because their clients have left, no connection is accepted. */
#define ABANDONED_MAX 64u

/* --- One daemon per path --------------------------------------------------------------------------- */

/*
 * The lock decides which daemon owns the path. The socket could not: two daemons that start at the same moment could
 * both find a socket that nobody serves, and remove each other's.
 */
static int server_lock_path(struct server *server, char error[SERVER_ERROR_BYTES])
{
    char path[sizeof(server->path) + 8], what[sizeof(server->path) + 16];

    snprintf(path, sizeof(path), "%s.lock", server->path);
    snprintf(what, sizeof(what), "listen.path %s", server->path);
    server->lock = lock_file_take(path, what, error, SERVER_ERROR_BYTES);
    return server->lock >= 0 ? 0 : -1;
}

/* Remove a socket that nobody serves. Another program may serve the path without the lock: if it accepts, it runs. */
static int server_remove_stale(const struct server *server, const struct sockaddr_un *address,
                               char error[SERVER_ERROR_BYTES])
{
    struct stat status;

    if (lstat(server->path, &status) != 0)
        return 0;
    if (!S_ISSOCK(status.st_mode)) {
        snprintf(error, SERVER_ERROR_BYTES, "listen.path %s exists and is no socket", server->path);
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
    log_info("replaced the socket %s, which nobody served", server->path);
    return 0;
}

/* --- Whose the socket is --------------------------------------------------------------------------- */

static int server_set_owner(const struct server *server, char error[SERVER_ERROR_BYTES])
{
    unsigned owner = UINT_MAX, group = UINT_MAX; /* as it is: chown(2) */

    if (server->conf->listen.owner != NULL && !usergroup_find_user(server->conf->listen.owner, &owner)) {
        snprintf(error, SERVER_ERROR_BYTES, "listen.owner: unknown user \"%s\"", server->conf->listen.owner);
        return -1;
    }
    if (server->conf->listen.group != NULL && !usergroup_find_group(server->conf->listen.group, &group)) {
        snprintf(error, SERVER_ERROR_BYTES, "listen.group: unknown group \"%s\"", server->conf->listen.group);
        return -1;
    }
    if ((owner != UINT_MAX || group != UINT_MAX) && chown(server->path, owner, group) != 0) {
        snprintf(error, SERVER_ERROR_BYTES, "cannot set the owner and group of %s: %s", server->path, strerror(errno));
        return -1;
    }
    return 0;
}

static int server_bind_path(struct server *server, char error[SERVER_ERROR_BYTES])
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
    if (server_lock_path(server, error) != 0 || server_remove_stale(server, &address, error) != 0)
        return -1;

    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0) {
        snprintf(error, SERVER_ERROR_BYTES, "cannot create a socket: %s", strerror(errno));
        return -1;
    }
    /* Nobody may connect before mode and owner are set: the socket is created without permissions. */
    mode_t old_mask = umask(0777);
    int bound = bind(listener, (struct sockaddr *)&address, sizeof(address));
    umask(old_mask);
    if (bound != 0) {
        snprintf(error, SERVER_ERROR_BYTES, "cannot listen on %s: %s", path, strerror(errno));
        close(listener);
        return -1;
    }
    server->is_ours = true;
    if (server_set_owner(server, error) != 0)
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

/* Return the socket that systemd has opened for the daemon (sd_listen_fds(3)); -1: none; -2: *error says why. */
static int server_inherited_socket(struct server *server, char error[SERVER_ERROR_BYTES])
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

static void server_on_connections(uv_poll_t *poll, int status, int events);

static void server_listen_on(struct server *server)
{
    uv_poll_start(&server->poll, UV_READABLE, server_on_connections);
}

static void server_on_retry(struct timer *timer)
{
    server_listen_on((struct server *)((char *)timer - offsetof(struct server, retry)));
}

static int server_accept_next(const struct server *server)
{
    int descriptor;

    do {
        descriptor = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    } while (descriptor < 0 && errno == EINTR);
    return descriptor;
}

static int server_open_reserve(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* The socket stays readable: without a pause the loop would not sleep. */
static void server_pause_accepting(struct server *server)
{
    uv_poll_stop(&server->poll);
    timer_start(server->sessions->timers, &server->retry, uv_now(server->poll.loop) + RETRY_MS, server_on_retry);
}

/* Close the reserve to answer the next connection: all other descriptors of the process or the system are taken. */
static void server_refuse_next(struct server *server)
{
    if (server->reserve >= 0)
        close(server->reserve);
    int descriptor = server_accept_next(server);
    if (descriptor >= 0)
        session_refuse(server->sessions, descriptor);
    server->reserve = server_open_reserve();
    if (descriptor < 0)
        server_pause_accepting(server);
}

/* Accept for a slice. Abandoned sessions count as open: they end before others begin. */
static void server_accept_some(struct server *server)
{
    if (server->sessions->abandoned >= ABANDONED_MAX)
        return;
    do {
        int descriptor = server_accept_next(server);
        if (descriptor >= 0) {
            session_accept(server->sessions, descriptor);
        } else if (errno == EMFILE || errno == ENFILE) {
            server_refuse_next(server);
            return;
        } else {
            if (errno == EAGAIN || errno == ECONNABORTED)
                return;
            log_limited(&server->failure_log, "connections could not be accepted", CONF_LOG_ERROR,
                        "a connection could not be accepted: %s", strerror(errno));
            server_pause_accepting(server);
            return;
        }
    } while (!jobs_slice_is_over(server->sessions->jobs));
}

static bool server_run_accepting(struct job *job)
{
    server_accept_some((struct server *)((char *)job - offsetof(struct server, accepting)));
    return false;
}

/* A listening stream of libuv would close waiting connections without an answer when all descriptors are taken. */
static void server_on_connections(uv_poll_t *poll, int status, int events)
{
    struct server *server = poll->data;

    (void)status; /* accept4 says what is wrong */
    (void)events;
    if (jobs_begin_slice(server->sessions->jobs))
        server_accept_some(server);
    else
        jobs_add_shared(server->sessions->jobs, &server->accepting, server_run_accepting);
}

static void server_close_descriptors(struct server *server)
{
    int *descriptors[] = {&server->listener, &server->reserve, &server->lock};

    for (size_t i = 0; i < sizeof(descriptors) / sizeof(descriptors[0]); i++) {
        if (*descriptors[i] >= 0)
            close(*descriptors[i]);
        *descriptors[i] = -1;
    }
}

/* Of other files than sessions, for the limit of open files. */
#define OTHER_DESCRIPTORS 128u

void server_raise_descriptor_limit(const struct conf *conf)
{
    struct rlimit limit;
    rlim_t wanted = conf->limits.sessions + OTHER_DESCRIPTORS;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < wanted)
        log_warning("the limit of open files is %llu, too low for limits.sessions of %u",
                    (unsigned long long)limit.rlim_cur, conf->limits.sessions);
}

int server_open(struct server *server, uv_loop_t *loop, const struct conf *conf, struct session_list *sessions,
                char error[SERVER_ERROR_BYTES])
{
    memset(server, 0, sizeof(*server));
    server->conf = conf;
    server->sessions = sessions;
    server->lock = -1;

    server->reserve = server_open_reserve();
    server->listener = server_inherited_socket(server, error);
    bool is_inherited = server->listener >= 0;
    if (server->listener == -1)
        server->listener = server_bind_path(server, error);
    if (server->listener < 0)
        goto fail;
    int failed = uv_poll_init_socket(loop, &server->poll, server->listener);
    if (failed == 0 && listen(server->listener, (int)conf->listen.backlog) != 0)
        failed = uv_translate_sys_error(errno);
    if (failed != 0) {
        snprintf(error, SERVER_ERROR_BYTES, "cannot listen on %s: %s", server->path, uv_strerror(failed));
        goto fail;
    }
    server->poll.data = server;
    server->is_open = true;
    server_listen_on(server);
    log_info("listening on %s%s", server->path, is_inherited ? ", handed over by the service manager" : "");
    return 0;

fail:
    if (server->is_ours)
        unlink(server->path);
    server_close_descriptors(server);
    return -1;
}

void server_close(struct server *server)
{
    if (!server->is_open)
        return;
    server->is_open = false;
    jobs_remove(server->sessions->jobs, &server->accepting);
    timer_stop(server->sessions->timers, &server->retry);
    if (server->is_ours)
        unlink(server->path);
    uv_close((uv_handle_t *)&server->poll, NULL);
    /* The lock's file stays: removing it would let a third daemon lock another file of that name. */
    server_close_descriptors(server);
}
