#include "daemon/transport/server.h"

#include "daemon/base/log.h"
#include "daemon/base/unix_listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

/* The pause before connections are accepted again, after there was no file descriptor at all. */
#define RETRY_MS 100u

/* The daemon accepts no connection while this number of sessions is abandoned: their clients have left. */
#define ABANDONED_MAX 64u

/* --- The socket ------------------------------------------------------------------------------------- */

static int server_bind_path(struct server *server, char error[SERVER_ERROR_BYTES])
{
    const struct conf *conf = server->conf;
    const struct unix_listener_options options = {.path = conf->listen.path,
                                                  .path_setting = "listen.path",
                                                  .mode = conf->listen.mode,
                                                  .owner = conf->listen.owner,
                                                  .owner_setting = "listen.owner",
                                                  .group = conf->listen.group,
                                                  .group_setting = "listen.group"};

    int listener = unix_listener_bind(&options, &server->lock, error, SERVER_ERROR_BYTES);
    if (listener < 0)
        return -1;
    snprintf(server->path, sizeof(server->path), "%s", conf->listen.path);
    server->is_ours = true;
    return listener;
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
