"""What the core has to send, until the socket takes it. Used by the channels of both clients.

The messages go to the kernel as they were packed: they are neither joined nor copied.
"""
from __future__ import annotations

import itertools
import socket
from collections import deque
from typing import Deque, Iterable, List, Tuple, Union

from ._core import Call, Core

#: Messages in one system call. The kernel takes up to 1,024.
MESSAGES_MAX = 512

#: With its call. A memoryview is the rest of a message whose beginning was sent.
_Message = Tuple[Union[bytes, memoryview], Call]


class Outbox:
    """The messages that the socket has not taken."""

    def __init__(self) -> None:
        self._messages: Deque[_Message] = deque()

    def __bool__(self) -> bool:
        return bool(self._messages)

    def clear(self) -> None:
        """Forget what was not sent."""
        self._messages.clear()

    def send(self, connection: socket.socket, core: Core) -> None:
        """Send what the core has, as far as the socket takes it. Raises OSError."""
        waiting = self._messages
        while True:
            if waiting:  # the core keeps its output, and holds further calls
                batch = list(itertools.islice(waiting, MESSAGES_MAX))
                sent, size = self._send_batch(connection, batch)
                self._remove(sent)
            else:
                batch = core.take_output()
                if not batch:
                    return
                if len(batch) > MESSAGES_MAX:
                    waiting.extend(batch)
                    continue
                sent, size = self._send_batch(connection, batch)
                if sent < size:
                    waiting.extend(batch)
                    self._remove(sent)
            if sent < size:
                self._note_unsent(waiting)
                return

    def take(self, size: int) -> memoryview:
        """Return up to `size` bytes for somebody else to send: of the first message only."""
        message, call = self._messages[0]
        call.is_sent = True
        beginning = memoryview(message)[:size]
        self._remove(len(beginning))
        return beginning

    def _send_batch(self, connection: socket.socket, batch: List[_Message]) -> Tuple[int, int]:
        """Return the number of bytes that the socket has taken, and how many there were."""
        for _, call in batch:
            call.is_sent = True  # before it is: a signal handler can interrupt this at any moment
        try:
            if len(batch) == 1:
                message = batch[0][0]
                return connection.send(message), len(message)
            messages = [message for message, _ in batch]
            return connection.sendmsg(messages), sum(map(len, messages))
        except BlockingIOError:
            return 0, 1
        except OSError:
            self._note_unsent(batch)
            raise

    @staticmethod
    def _note_unsent(messages: Iterable[_Message]) -> None:
        """Nothing of these messages was sent, but of one whose beginning was."""
        for message, call in messages:
            call.is_sent = isinstance(message, memoryview)

    def _remove(self, size: int) -> None:
        """Remove bytes that were sent."""
        messages = self._messages
        while size > 0:
            message, call = messages[0]
            if size < len(message):
                messages[0] = (memoryview(message)[size:], call)
                return
            size -= len(message)
            messages.popleft()
