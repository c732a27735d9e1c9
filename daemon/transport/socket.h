/*
 * socket: what inbox and outbox ask of a client's connected socket, beside libuv.
 *
 * With libuv's streams, this is all that sessions know of the outside, so a simulation can replace it. No function
 * blocks.
 */
#ifndef DAEMON_SOCKET_H
#define DAEMON_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

/*
 * Send what the socket accepts now. Return its number of bytes, or -1 with errno. Not uv_try_write: write(2) has more
 * layers to go through than send(2), about 3 % of a cached get.
 */
ssize_t socket_send(int socket, const void *bytes, size_t size);

/* Receive what is there, up to size bytes. Return its number of bytes, 0 at the end, or -1 with errno. */
ssize_t socket_receive(int socket, void *bytes, size_t size);

/* Return whether the peer has closed both directions. */
bool socket_peer_has_left(int socket);

/* Return the memory of what was sent and the peer has not read. The kernel counts whole buffers, about 32 KB each. */
size_t socket_unread_bytes(int socket);

/* Return who the peer was when it connected; pid 0 and the highest uid if that is not known. */
struct ucred socket_peer(int socket);

#endif
