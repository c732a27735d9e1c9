#include "daemon/monitor/endpoint_server.h"

#include "daemon/base/unix_listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#define PATH "/metrics"

/* Connections that wait to be accepted. */
#define BACKLOG 64

/* The memory of one connection, for its request and the header of the answer. */
#define CONNECTION_BYTES 8192u

/* A client that neither sends nor reads for so long is disconnected. */
#define IDLE_TIMEOUT_S 5u

/* The library may use one part in LOAD_PARTS of the loop's time. */
#define LOAD_PARTS     10u
#define PAUSE_MAX_MS   100u
#define NS_PER_MS      1000000u
#define SERVER_HANDLES 2u

/* The kinds of content. A client that does not ask for OpenMetrics gets the older name: the text is valid in both. */
enum endpoint_content { CONTENT_PLAIN, CONTENT_OPENMETRICS, CONTENT_KINDS };

static const char *const content_types[CONTENT_KINDS] = {"text/plain; version=0.0.4; charset=utf-8",
                                                         "application/openmetrics-text; version=1.0.0; charset=utf-8"};

struct endpoint_connection {
    struct endpoint_connection *next, *previous; /* of the server, the oldest first */
    struct endpoint_server *server;
    struct MHD_Connection *http;
    int descriptor;
    uint64_t ends_ms; /* loop time */
    struct exposition_waiter waiter;
    bool is_suspended; /* it waits for the text */
    bool has_begun;    /* the header of its request has arrived */
};

struct endpoint_server {
    uv_loop_t *loop;
    struct jobs *jobs;
    struct exposition *exposition;
    char *address; /* copies of the settings */
    char *group;
    mode_t mode;
    int lock;         /* of the path of a Unix socket; -1: none */
    const char *path; /* of a Unix socket, to be removed; NULL: none */
    struct MHD_Daemon *http;
    uv_poll_t poll;
    uv_timer_t timer;
    bool is_paused; /* the timer ends the pause; otherwise it is for the timeouts of connections */
    bool must_run;  /* a connection was resumed or has ended, which the library's descriptor does not show */
    struct endpoint_connection *connections;
    unsigned connection_count;
    struct MHD_Response *responses[CONTENT_KINDS]; /* with the last text; NULL: none */
    uint64_t text_ms;                              /* loop time of the last text */
    unsigned open_handles;
};

/* --- Answers ----------------------------------------------------------------------------------------- */

static struct MHD_Response *endpoint_new_response(const char *bytes, size_t size, const char *type)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(size, (void *)bytes, MHD_RESPMEM_MUST_COPY);

    if (response == NULL)
        return NULL;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    return response;
}

static enum MHD_Result endpoint_answer_text(struct MHD_Connection *http, unsigned status, const char *text,
                                            const char *allow)
{
    struct MHD_Response *response = endpoint_new_response(text, strlen(text), "text/plain; charset=utf-8");

    if (response == NULL)
        return MHD_NO;
    if (allow != NULL)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, allow);
    enum MHD_Result result = MHD_queue_response(http, status, response);
    MHD_destroy_response(response);
    return result;
}

static void endpoint_forget_text(struct endpoint_server *server)
{
    for (unsigned kind = 0; kind < CONTENT_KINDS; kind++) {
        if (server->responses[kind] != NULL)
            MHD_destroy_response(server->responses[kind]);
        server->responses[kind] = NULL;
    }
}

/* Connections that are being answered keep the old text until they end. */
static void endpoint_keep_text(struct endpoint_server *server, const char *text, size_t size)
{
    endpoint_forget_text(server);
    if (text == NULL)
        return;
    for (unsigned kind = 0; kind < CONTENT_KINDS; kind++)
        server->responses[kind] = endpoint_new_response(text, size, content_types[kind]);
    server->text_ms = uv_now(server->loop);
}

static enum MHD_Result endpoint_answer_figures(struct endpoint_server *server, struct MHD_Connection *http)
{
    const char *accept = MHD_lookup_connection_value(http, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);
    bool is_new = accept != NULL && strstr(accept, "application/openmetrics-text") != NULL;
    struct MHD_Response *response = server->responses[is_new ? CONTENT_OPENMETRICS : CONTENT_PLAIN];

    if (response == NULL)
        return endpoint_answer_text(http, MHD_HTTP_SERVICE_UNAVAILABLE, "out of memory\n", NULL);
    return MHD_queue_response(http, MHD_HTTP_OK, response);
}

static void endpoint_on_timer(uv_timer_t *timer);

/* The text is kept by the first of those who wait for it. The library asks for the answer when it runs next. */
static void endpoint_on_text(struct exposition_waiter *waiter, const char *text, size_t size)
{
    struct endpoint_connection *connection =
        (struct endpoint_connection *)((char *)waiter - offsetof(struct endpoint_connection, waiter));
    struct endpoint_server *server = connection->server;

    if (server->text_ms != uv_now(server->loop) || text == NULL)
        endpoint_keep_text(server, text, size);
    connection->is_suspended = false;
    MHD_resume_connection(connection->http);
    server->must_run = true;
    if (!server->is_paused)
        uv_timer_start(&server->timer, endpoint_on_timer, 0, 0);
}

static bool endpoint_has_text(const struct endpoint_server *server)
{
    return server->responses[CONTENT_PLAIN] != NULL && uv_now(server->loop) - server->text_ms < ENDPOINT_TEXT_MS;
}

/* Called when the header has arrived, then again when the request is complete, and after the connection was resumed. */
static enum MHD_Result endpoint_on_request(void *arg, struct MHD_Connection *http, const char *url, const char *method,
                                           const char *version, const char *body, size_t *body_bytes, void **context)
{
    struct endpoint_server *server = arg;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(http, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct endpoint_connection *connection = info != NULL ? info->socket_context : NULL;

    (void)version;
    (void)body;
    (void)context;
    if (connection == NULL)
        return MHD_NO;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return endpoint_answer_text(http, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n", "GET, HEAD");
    if (*body_bytes > 0)
        return MHD_NO; /* a GET with a body */
    if (!connection->has_begun) {
        connection->has_begun = true;
        return MHD_YES;
    }
    if (strcmp(url, PATH) != 0)
        return endpoint_answer_text(http, MHD_HTTP_NOT_FOUND, "kvstored: the figures are at " PATH "\n", NULL);
    if (endpoint_has_text(server) || connection->waiter.done != NULL)
        return endpoint_answer_figures(server, http);
    connection->waiter.done = endpoint_on_text;
    connection->is_suspended = true;
    MHD_suspend_connection(http);
    exposition_request(server->exposition, &connection->waiter);
    return MHD_YES;
}

/* --- Connections ------------------------------------------------------------------------------------- */

/* The library sees the end of the connection when it runs next. */
static void endpoint_cut(struct endpoint_connection *connection)
{
    shutdown(connection->descriptor, SHUT_RDWR);
}

static void endpoint_add_connection(struct endpoint_server *server, struct MHD_Connection *http, void **context)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(http, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct endpoint_connection *connection = calloc(1, sizeof(*connection));

    if (connection == NULL || info == NULL) {
        free(connection);
        return; /* its request is refused */
    }
    connection->server = server;
    connection->http = http;
    connection->descriptor = info->connect_fd;
    connection->ends_ms = uv_now(server->loop) + ENDPOINT_CONNECTION_MS;
    DL_APPEND2(server->connections, connection, previous, next);
    server->connection_count++;
    *context = connection;
    /* The oldest goes, so that connections that do nothing cannot keep others out. */
    if (server->connection_count > ENDPOINT_CONNECTIONS_MAX)
        endpoint_cut(server->connections);
}

static void endpoint_on_connection(void *arg, struct MHD_Connection *http, void **context,
                                   enum MHD_ConnectionNotificationCode code)
{
    struct endpoint_server *server = arg;
    struct endpoint_connection *connection = *context;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        endpoint_add_connection(server, http, context);
        return;
    }
    if (connection == NULL)
        return;
    /* At its limit of connections the library does not listen, and listens again when it runs after one has ended. */
    server->must_run = true;
    exposition_cancel(&connection->waiter);
    DL_DELETE2(server->connections, connection, previous, next);
    server->connection_count--;
    free(connection);
    *context = NULL;
}

/* Connections are in the order of their ends. */
static void endpoint_cut_old(struct endpoint_server *server)
{
    struct endpoint_connection *connection;

    DL_FOREACH2(server->connections, connection, next)
    {
        if (connection->ends_ms > uv_now(server->loop))
            return;
        endpoint_cut(connection);
    }
}

/* --- Running the library ------------------------------------------------------------------------------ */

static void endpoint_on_readable(uv_poll_t *poll, int status, int events);
static void endpoint_serve(struct endpoint_server *server);

/* Return in how many ms the library must run although its descriptor is not readable. */
static uint64_t endpoint_timeout_ms(struct endpoint_server *server)
{
    MHD_UNSIGNED_LONG_LONG of_library;
    uint64_t timeout_ms = UINT64_MAX, now_ms = uv_now(server->loop);

    if (server->must_run)
        return 0;
    if (MHD_get_timeout(server->http, &of_library) == MHD_YES)
        timeout_ms = of_library;
    if (server->connections != NULL) {
        uint64_t ends_ms = server->connections->ends_ms;
        uint64_t left_ms = ends_ms > now_ms ? ends_ms - now_ms : 1;
        timeout_ms = left_ms < timeout_ms ? left_ms : timeout_ms;
    }
    return timeout_ms;
}

static void endpoint_on_timer(uv_timer_t *timer)
{
    struct endpoint_server *server = timer->data;

    if (!server->is_paused) {
        endpoint_serve(server);
        return;
    }
    server->is_paused = false;
    uint64_t timeout_ms = endpoint_timeout_ms(server);
    if (timeout_ms == 0) {
        endpoint_serve(server);
        return;
    }
    uv_poll_start(&server->poll, UV_READABLE, endpoint_on_readable);
    if (timeout_ms != UINT64_MAX)
        uv_timer_start(&server->timer, endpoint_on_timer, timeout_ms, 0);
}

/* Run the library once, then let others have the loop for several times as long. */
static void endpoint_serve(struct endpoint_server *server)
{
    uint64_t begin_ns = uv_hrtime(), pause_ms = 1;

    uv_poll_stop(&server->poll);
    if (jobs_begin_slice(server->jobs)) {
        endpoint_cut_old(server);
        server->must_run = false;
        MHD_run(server->http);
        pause_ms += (uv_hrtime() - begin_ns) * (LOAD_PARTS - 1) / NS_PER_MS;
    }
    server->is_paused = true;
    uv_timer_start(&server->timer, endpoint_on_timer, pause_ms < PAUSE_MAX_MS ? pause_ms : PAUSE_MAX_MS, 0);
}

static void endpoint_on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    endpoint_serve(poll->data);
}

/* --- Listening ---------------------------------------------------------------------------------------- */

static int endpoint_bind_unix(struct endpoint_server *server, char error[ENDPOINT_ERROR_BYTES])
{
    const struct unix_listener_options options = {.path = server->address + strlen("unix:"),
                                                  .path_setting = "metrics.listen",
                                                  .mode = server->mode,
                                                  .group = server->group,
                                                  .group_setting = "metrics.group"};

    int listener = unix_listener_bind(&options, &server->lock, error, ENDPOINT_ERROR_BYTES);
    if (listener >= 0)
        server->path = options.path;
    return listener;
}

/* Read ADDRESS:PORT or [IPV6-ADDRESS]:PORT, which conf has checked. Return the length of the address, or 0. */
static socklen_t endpoint_read_address(const char *text, struct sockaddr_storage *address)
{
    struct sockaddr_in *four = (struct sockaddr_in *)address;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)address;
    const char *colon = strrchr(text, ':');
    char host[64];

    memset(address, 0, sizeof(*address));
    if (colon == NULL)
        return 0;
    bool is_six = text[0] == '[';
    snprintf(host, sizeof(host), "%.*s", (int)(colon - text) - (is_six ? 2 : 0), text + (is_six ? 1 : 0));
    uint16_t port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    if (is_six) {
        six->sin6_family = AF_INET6;
        six->sin6_port = port;
        return inet_pton(AF_INET6, host, &six->sin6_addr) == 1 ? sizeof(*six) : 0;
    }
    four->sin_family = AF_INET;
    four->sin_port = port;
    return inet_pton(AF_INET, host, &four->sin_addr) == 1 ? sizeof(*four) : 0;
}

static int endpoint_bind_ip(struct endpoint_server *server, char error[ENDPOINT_ERROR_BYTES])
{
    struct sockaddr_storage address;
    socklen_t length = endpoint_read_address(server->address, &address);
    int on = 1;

    int listener = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0) {
        snprintf(error, ENDPOINT_ERROR_BYTES, "cannot create a socket: %s", strerror(errno));
        return -1;
    }
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (address.ss_family == AF_INET6)
        setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    if (bind(listener, (struct sockaddr *)&address, length) == 0)
        return listener;
    snprintf(error, ENDPOINT_ERROR_BYTES, "cannot listen on %s (metrics.listen): %s", server->address, strerror(errno));
    close(listener);
    return -1;
}

static int endpoint_listen(struct endpoint_server *server, char error[ENDPOINT_ERROR_BYTES])
{
    bool is_unix = strncmp(server->address, "unix:", strlen("unix:")) == 0;

    int listener = is_unix ? endpoint_bind_unix(server, error) : endpoint_bind_ip(server, error);
    if (listener >= 0 && listen(listener, BACKLOG) != 0) {
        snprintf(error, ENDPOINT_ERROR_BYTES, "cannot listen on %s (metrics.listen): %s", server->address,
                 strerror(errno));
        close(listener);
        return -1;
    }
    return listener;
}

/* Free all but the handles and the struct that has them. */
static void endpoint_server_release(struct endpoint_server *server)
{
    endpoint_forget_text(server);
    if (server->path != NULL)
        unlink(server->path);
    /* The lock's file stays: removing it would let a third daemon lock another file of that name. */
    if (server->lock >= 0)
        close(server->lock);
    free(server->address);
    free(server->group);
}

/* The same, if no handle was opened. */
static void endpoint_server_free(struct endpoint_server *server)
{
    endpoint_server_release(server);
    free(server);
}

static bool endpoint_start_http(struct endpoint_server *server, int listener)
{
    const unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME;

    server->http = MHD_start_daemon(flags, 0, NULL, NULL, endpoint_on_request, server, MHD_OPTION_LISTEN_SOCKET,
                                    listener, MHD_OPTION_CONNECTION_LIMIT, 2 * ENDPOINT_CONNECTIONS_MAX,
                                    MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                                    (size_t)CONNECTION_BYTES, MHD_OPTION_NOTIFY_CONNECTION, endpoint_on_connection,
                                    server, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
    return server->http != NULL;
}

struct endpoint_server *endpoint_server_open(const struct endpoint *endpoint, char error[ENDPOINT_ERROR_BYTES])
{
    const struct conf *conf = endpoint->conf;
    struct endpoint_server *server = calloc(1, sizeof(*server));

    if (server == NULL) {
        snprintf(error, ENDPOINT_ERROR_BYTES, "out of memory");
        return NULL;
    }
    server->loop = endpoint->loop;
    server->jobs = endpoint->jobs;
    server->exposition = endpoint->exposition;
    server->lock = -1;
    server->mode = conf->metrics.mode;
    server->address = strdup(conf->metrics.listen);
    server->group = conf->metrics.group != NULL ? strdup(conf->metrics.group) : NULL;
    if (server->address == NULL || (server->group == NULL) != (conf->metrics.group == NULL)) {
        snprintf(error, ENDPOINT_ERROR_BYTES, "out of memory");
        endpoint_server_free(server);
        return NULL;
    }
    int listener = endpoint_listen(server, error);
    if (listener < 0) {
        endpoint_server_free(server);
        return NULL;
    }
    if (!endpoint_start_http(server, listener)) { /* it has closed the listener */
        snprintf(error, ENDPOINT_ERROR_BYTES,
                 "cannot start the HTTP server for metrics.listen: out of memory or files");
        endpoint_server_free(server);
        return NULL;
    }
    int epoll = MHD_get_daemon_info(server->http, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    int failed = uv_poll_init(server->loop, &server->poll, epoll);
    if (failed != 0) {
        snprintf(error, ENDPOINT_ERROR_BYTES, "cannot watch the HTTP server: %s", uv_strerror(failed));
        MHD_stop_daemon(server->http);
        endpoint_server_free(server);
        return NULL;
    }
    uv_timer_init(server->loop, &server->timer);
    server->poll.data = server->timer.data = server;
    server->open_handles = SERVER_HANDLES;
    uv_poll_start(&server->poll, UV_READABLE, endpoint_on_readable);
    return server;
}

static bool endpoint_is_same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool endpoint_server_has_address(const struct endpoint_server *server, const struct conf *conf)
{
    return endpoint_is_same_text(server->address, conf->metrics.listen);
}

bool endpoint_server_is_current(const struct endpoint_server *server, const struct conf *conf)
{
    return endpoint_server_has_address(server, conf) && server->mode == conf->metrics.mode &&
           endpoint_is_same_text(server->group, conf->metrics.group);
}

/* --- The end ------------------------------------------------------------------------------------------ */

static void endpoint_on_handle_closed(uv_handle_t *handle)
{
    struct endpoint_server *server = handle->data;

    if (--server->open_handles == 0)
        free(server);
}

void endpoint_server_close(struct endpoint_server *server)
{
    struct endpoint_connection *connection;

    uv_close((uv_handle_t *)&server->poll, endpoint_on_handle_closed);
    uv_close((uv_handle_t *)&server->timer, endpoint_on_handle_closed);
    DL_FOREACH2(server->connections, connection, next)
    {
        exposition_cancel(&connection->waiter);
        if (connection->is_suspended)
            MHD_resume_connection(connection->http);
        connection->is_suspended = false;
    }
    MHD_stop_daemon(server->http); /* closes the listener and all connections */
    endpoint_server_release(server);
}
