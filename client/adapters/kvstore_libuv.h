/*
 * kvstore_libuv: connects a handle of libkvstore to a libuv loop.
 *
 *     struct kvs *kvs = kvs_connect(NULL, &options, &error);
 *     struct kvs_libuv *adapter = kvs_libuv_attach(loop, kvs);
 *     kvs_async_put(kvs, "config", "port", "80", 2, NULL, on_done, context);
 *     uv_run(loop, UV_RUN_DEFAULT);
 *
 * After it is attached, the loop sends the handle's requests and calls its callbacks; the program must not call
 * kvs_process. All of it happens on the loop's thread. The adapter keeps the loop running until it is detached:
 *
 *     kvs_libuv_detach(adapter);     may be called inside a callback
 *     kvs_close(kvs);                must not be called inside a callback
 *
 * The adapter is this one header; compile with libuv and link with -luv. For another event library, write the same few
 * functions: kvs_libuv_update tells the loop what to wait for, and the others call kvs_process.
 */
#ifndef KVSTORE_LIBUV_H
#define KVSTORE_LIBUV_H

#include <kvstore_async.h>

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The poll handle of one connection. It polls a duplicate of the library's socket: the library closes its own when the
 * connection is lost, and the number may belong to another file before libuv has stopped polling it.
 */
struct kvs_libuv_socket {
    uv_poll_t poll;
    int fd;
};

struct kvs_libuv {
    struct kvs *kvs; /* NULL: detached */
    uv_prepare_t prepare;
    uv_timer_t timer;
    struct kvs_libuv_socket *socket; /* NULL: there is no connection */
    uint64_t connection_count;       /* of the connection that socket belongs to */
    int polled_events;               /* what socket waits for */
    int open_handles;                /* prepare and timer, until they are closed */
};

static inline void kvs_libuv_on_socket_closed(uv_handle_t *handle)
{
    struct kvs_libuv_socket *socket = (struct kvs_libuv_socket *)handle->data;

    close(socket->fd);
    free(socket);
}

static inline void kvs_libuv_close_socket(struct kvs_libuv *adapter)
{
    if (adapter->socket == NULL)
        return;
    adapter->socket->poll.data = adapter->socket;
    uv_close((uv_handle_t *)&adapter->socket->poll, kvs_libuv_on_socket_closed);
    adapter->socket = NULL;
    adapter->polled_events = 0;
}

static inline void kvs_libuv_on_poll(uv_poll_t *poll, int status, int events)
{
    struct kvs_libuv *adapter = (struct kvs_libuv *)poll->data;

    (void)events;
    /* libuv has stopped to poll a socket with an error. The library finds out what is wrong, maybe not at once. */
    if (status < 0)
        adapter->polled_events = 0;
    kvs_process(adapter->kvs);
}

static inline void kvs_libuv_on_timer(uv_timer_t *timer)
{
    struct kvs_libuv *adapter = (struct kvs_libuv *)timer->data;

    kvs_process(adapter->kvs);
}

/* Poll the socket of the present connection. Without a handle for it, the timer tries again. */
static inline void kvs_libuv_open_socket(struct kvs_libuv *adapter)
{
    struct kvs_libuv_socket *socket = (struct kvs_libuv_socket *)calloc(1, sizeof(*socket));

    if (socket == NULL)
        return;
    socket->fd = fcntl(kvs_fd(adapter->kvs), F_DUPFD_CLOEXEC, 0);
    if (socket->fd < 0 || uv_poll_init(adapter->prepare.loop, &socket->poll, socket->fd) != 0) {
        if (socket->fd >= 0)
            close(socket->fd);
        free(socket);
        return;
    }
    socket->poll.data = adapter;
    adapter->socket = socket;
    adapter->connection_count = kvs_connection_count(adapter->kvs);
}

/* Wait for what the handle needs now. */
static inline void kvs_libuv_update(struct kvs_libuv *adapter)
{
    short wanted = kvs_events(adapter->kvs);
    int timeout_ms = kvs_timeout_ms(adapter->kvs);
    int events = ((wanted & POLLIN) != 0 ? UV_READABLE : 0) | ((wanted & POLLOUT) != 0 ? UV_WRITABLE : 0);

    if (adapter->socket != NULL && (events == 0 || adapter->connection_count != kvs_connection_count(adapter->kvs)))
        kvs_libuv_close_socket(adapter);
    if (events != 0 && adapter->socket == NULL)
        kvs_libuv_open_socket(adapter);
    if (adapter->socket != NULL && events != adapter->polled_events &&
        uv_poll_start(&adapter->socket->poll, events, kvs_libuv_on_poll) == 0)
        adapter->polled_events = events;
    if (events != 0 && events != adapter->polled_events)
        timeout_ms = timeout_ms < 0 || timeout_ms > 100 ? 100 : timeout_ms; /* out of memory or descriptors */
    if (timeout_ms >= 0)
        uv_timer_start(&adapter->timer, kvs_libuv_on_timer, (uint64_t)timeout_ms, 0);
    else
        uv_timer_stop(&adapter->timer);
}

/* Called in each turn of the loop before it waits. */
static inline void kvs_libuv_on_prepare(uv_prepare_t *prepare)
{
    struct kvs_libuv *adapter = (struct kvs_libuv *)prepare->data;

    /* All requests of this turn leave now, in one system call, and not after one more turn. */
    if ((kvs_events(adapter->kvs) & POLLOUT) != 0)
        kvs_process(adapter->kvs);
    if (adapter->kvs != NULL) /* a callback may have detached the handle */
        kvs_libuv_update(adapter);
}

static inline void kvs_libuv_on_handle_closed(uv_handle_t *handle)
{
    struct kvs_libuv *adapter = (struct kvs_libuv *)handle->data;

    if (--adapter->open_handles == 0)
        free(adapter);
}

/* Connect a handle to a loop. A handle must not be attached twice. Returns NULL when out of memory. */
static inline struct kvs_libuv *kvs_libuv_attach(uv_loop_t *loop, struct kvs *kvs)
{
    struct kvs_libuv *adapter = (struct kvs_libuv *)calloc(1, sizeof(*adapter));

    if (adapter == NULL)
        return NULL;
    adapter->kvs = kvs;
    /* Neither of these can fail. */
    uv_prepare_init(loop, &adapter->prepare);
    uv_timer_init(loop, &adapter->timer);
    adapter->prepare.data = adapter;
    adapter->timer.data = adapter;
    adapter->open_handles = 2;
    uv_prepare_start(&adapter->prepare, kvs_libuv_on_prepare);
    return adapter;
}

/*
 * Disconnect the handle from the loop, which no longer touches the handle. The adapter is freed by the loop: run
 * it until it has closed its handles. NULL is allowed.
 */
static inline void kvs_libuv_detach(struct kvs_libuv *adapter)
{
    if (adapter == NULL || adapter->kvs == NULL)
        return;
    adapter->kvs = NULL;
    kvs_libuv_close_socket(adapter);
    uv_close((uv_handle_t *)&adapter->prepare, kvs_libuv_on_handle_closed);
    uv_close((uv_handle_t *)&adapter->timer, kvs_libuv_on_handle_closed);
}

#ifdef __cplusplus
}
#endif

#endif
