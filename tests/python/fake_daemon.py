"""A daemon that answers what a test wants."""
import contextlib
import os
import pathlib
import socket
import tempfile
import threading
import tracemalloc

import msgpack

#: As the daemon describes an error.
NOT_HELD = {"code": "not_held", "message": "this session does not hold the lock", "retryable": False}
DISMISSAL = {"code": "unavailable", "message": "the daemon shuts down", "retryable": True, "outcome": "none"}


@contextlib.contextmanager
def measured_memory():
    """Measure the memory of a `with` statement: it returns a function that returns its largest growth in bytes."""
    tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    peaks = []
    try:
        yield lambda: peaks[0]
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()


def packing_memory(value):
    """Return how much memory it takes to pack a call that writes the value, while the socket takes nothing."""
    with measured_memory() as peak:
        msgpack.Packer(autoreset=True).pack([0, 1, "kv.put", ["b", "k", value, {"timeout": 1.0, "id": bytes(16)}]])
    return peak()


class FakeDaemon:
    """Listens on `path` and notes each call in `calls`, as (method, arguments).

    answer(method, arguments) returns the error and the result of an answer, and notifications that follow it as
    (method, arguments), or bytes to send instead of an answer. It can wait: each connection has a thread. While the Event `may_read` is not set, the daemon reads nothing.
    """

    def __init__(self, answer):
        self.answer = answer
        self._directory = tempfile.mkdtemp()
        self.path = os.path.join(self._directory, "socket")
        self.calls = []
        self.may_read = threading.Event()
        self.may_read.set()
        self.connections = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def methods(self):
        """Return the methods that were called."""
        return [method for method, _ in self.calls]

    def drop(self):
        """Close all connections."""
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self):
        """End. A client cannot connect any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        self.may_read.set()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        with contextlib.suppress(FileNotFoundError):
            pathlib.Path(self._directory).rmdir()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        unpacker = msgpack.Unpacker(strict_map_key=False)
        with contextlib.suppress(OSError), connection:
            while True:
                self.may_read.wait()
                data = connection.recv(65536)
                if not data:
                    return
                unpacker.feed(data)
                for _, msgid, method, arguments in unpacker:
                    self.calls.append((method, arguments))
                    answer = self.answer(method, arguments)
                    if not isinstance(answer, bytes):
                        error, result, *notifications = answer
                        messages = [[1, msgid, error, result], *([2, *each] for each in notifications)]
                        answer = b"".join(map(msgpack.packb, messages))
                    connection.sendall(answer)
