"""The sockets of both clients. A session lives as long as any process has its socket open."""
from __future__ import annotations

import contextlib
import os
import socket
import weakref

_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def new_socket() -> socket.socket:
    """Return a socket for a connection. A process that is forked leaves it to its parent."""
    new = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    _sockets.add(new)
    return new


def end_connection(connection: socket.socket) -> None:
    """Close the socket, and end the session also if another process has inherited it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _leave_to_parent() -> None:
    """In a forked process: close the sockets. Otherwise the locks of a parent that has ended would stay held."""
    for inherited in list(_sockets):
        inherited.close()


os.register_at_fork(after_in_child=_leave_to_parent)
