#include "daemon/nats/former.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

/* Bytes that the server still sends are read in pieces of this size and discarded. */
#define DISCARD_BYTES (16u * 1024u)

struct former_connection {
    uv_poll_t poll; /* must be the first member */
    struct former *owner;
    struct former_connection *next, *previous;
    uint64_t number;
    int socket;
};

static void on_former_poll_closed(uv_handle_t *handle)
{
    struct former_connection *connection = (struct former_connection *)handle;
    struct former *former = connection->owner;

    close(connection->socket);
    free(connection);
    former->closed(former->arg);
}

static void release_former(struct former_connection *connection)
{
    struct former *former = connection->owner;

    DL_DELETE2(former->first, connection, previous, next);
    former->count--;
    uv_poll_stop(&connection->poll);
    uv_close((uv_handle_t *)&connection->poll, on_former_poll_closed);
}

static void on_former_readable(uv_poll_t *poll, int status, int events)
{
    struct former_connection *connection = (struct former_connection *)poll;
    char discarded[DISCARD_BYTES];
    ssize_t count = recv(connection->socket, discarded, sizeof(discarded), MSG_DONTWAIT);

    (void)status;
    (void)events;
    if (count > 0 || (count < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    /* 0, or a reset: the server has closed its side. After any other error its state stays unknown. */
    if (count < 0 && errno != ECONNRESET && connection->number > connection->owner->newest_unknown)
        connection->owner->newest_unknown = connection->number;
    release_former(connection);
}

bool former_keep(struct former *former, int socket, uint64_t number)
{
    struct former_connection *connection = former->count < FORMER_MAX ? calloc(1, sizeof(*connection)) : NULL;

    if (connection == NULL)
        goto unknown;
    connection->owner = former;
    connection->number = number;
    connection->socket = fcntl(socket, F_DUPFD_CLOEXEC, 0);
    if (connection->socket < 0)
        goto free_connection;
    shutdown(connection->socket, SHUT_WR);
    if (uv_poll_init_socket(former->loop, &connection->poll, connection->socket) != 0)
        goto close_socket;
    DL_APPEND2(former->first, connection, previous, next);
    former->count++;
    uv_poll_start(&connection->poll, UV_READABLE, on_former_readable);
    return true;

close_socket:
    close(connection->socket);
free_connection:
    free(connection);
unknown:
    shutdown(socket, SHUT_WR);
    if (number > former->newest_unknown)
        former->newest_unknown = number;
    return false;
}

bool former_are_closed(const struct former *former, uint64_t first)
{
    const struct former_connection *connection;

    DL_FOREACH2(former->first, connection, next)
    {
        if (connection->number >= first)
            return false;
    }
    return former->newest_unknown < first;
}

void former_close_all(struct former *former)
{
    while (former->first != NULL)
        release_former(former->first);
}
