#include "daemon/transport/socket.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>

ssize_t socket_send(int socket, const void *bytes, size_t size)
{
    return send(socket, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

ssize_t socket_receive(int socket, void *bytes, size_t size)
{
    return recv(socket, bytes, size, MSG_DONTWAIT);
}

bool socket_peer_has_left(int socket)
{
    struct pollfd state = {.fd = socket, .events = 0};

    return poll(&state, 1, 0) > 0 && (state.revents & POLLHUP) != 0;
}

size_t socket_unread_bytes(int socket)
{
    int bytes = 0;

    return ioctl(socket, SIOCOUTQ, &bytes) == 0 ? (size_t)bytes : 0;
}

struct ucred socket_peer(int socket)
{
    struct ucred peer = {.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};
    socklen_t size = sizeof(peer);

    getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    return peer;
}
