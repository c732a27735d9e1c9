"""The connection of the asyncio client."""
from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import random
import socket
import time
from typing import Any, Awaitable, Callable, Coroutine, List, Optional, TypeVar

from ._connections import end_connection, new_socket
from ._core import FIRST_PAUSE_S, LAST_PAUSE_S, BrokenProtocol, Call, Core, Request, Watch
from ._outbox import Outbox
from ._paths import AnyPath, socket_path
from .errors import KvstoredError, Unavailable, fresh

T = TypeVar("T")
R = TypeVar("R")
A = TypeVar("A")

#: The transport gets this much when the socket is full, which it copies, and says when the socket takes more.
WAKE_BYTES = 4096

RECEIVE_BYTES = 262144


class Channel(asyncio.Protocol):
    """Moves the core's bytes over a socket, and waits for the ends of its calls."""

    def __init__(self, path: Optional[AnyPath], *, reconnect: bool, timeout_s: float) -> None:
        self.path = socket_path(path)
        self.core = Core(reconnect=reconnect, timeout_s=timeout_s)
        self.on_reconnected: List[Callable[[], None]] = []
        self.on_ephemeral_lost: Optional[Callable[[str, str, KvstoredError], None]] = None
        self.core.on_ephemeral_lost = self._on_ephemeral_lost
        self.loop: Optional[asyncio.AbstractEventLoop] = None
        self._pid = 0  # of the process that the loop runs in
        self._socket: Optional[socket.socket] = None  # of the transport, which closes it
        self._transport: Optional[asyncio.Transport] = None
        self._connecting: Optional[asyncio.Task[None]] = None
        self._was_connected = False
        self._pause_s = FIRST_PAUSE_S
        self._broken_because = ""  # the daemon has broken the protocol
        self._outbox = Outbox()
        self._flush_is_planned = False
        self._timer: Optional[asyncio.TimerHandle] = None
        self._timer_due = float("inf")
        self._is_full = False  # the socket takes no more
        self._ended: Optional[asyncio.Future[None]] = None  # of the transport

    # --- Calls -------------------------------------------------------------------------------------

    async def call(self, request: Request[T], timeout_s: Optional[float] = None, wait_s: float = 0.0) -> T:
        """Make a call and return its decoded result. If the task is cancelled meanwhile, so is the call."""
        if not self._is_connected_here():
            await self._ensure_connection()
        assert self.loop is not None
        future = self.loop.create_future()
        core = self.core
        call = core.new_call(request, lambda call: None if future.done() else future.set_result(None), timeout_s,
                             wait_s)
        core.submit(call)
        self._after_core()
        try:
            await future
        except asyncio.CancelledError:
            core.give_up(call)
            self._after_core()
            raise
        if call.error is not None:
            raise call.error
        return request.decoded(call.result)

    async def connect(self) -> None:
        """Connect, if there is no connection."""
        if not self._is_connected_here():
            await self._ensure_connection()

    async def close(self) -> None:
        """Close the connection. Calls in flight fail."""
        if self.loop is not None and self._pid != os.getpid():
            return  # the connection is the parent's
        self.core.close(Unavailable("the client is closed"))
        if self._connecting is not None:
            self._connecting.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()  # and not close(), which waits until the daemon has read everything
        if self._ended is not None:
            await self._ended

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task of the client's loop."""
        assert self.loop is not None
        return self.loop.create_task(work)

    def new_mutex(self) -> asyncio.Lock:
        """Return a lock between tasks."""
        return asyncio.Lock()

    async def pause(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)

    async def call_function(self, function: Callable[[A], Awaitable[R]], argument: A) -> R:
        """Call a function of the program, which is async."""
        result = function(argument)
        is_async: bool = inspect.isawaitable(result)
        if not is_async:
            raise TypeError(f"the function must be async: it has returned {result!r:.100}")
        return await result

    def use(self, function: Callable[[Core], R]) -> R:
        """Do something with the core, and send what it has then."""
        result = function(self.core)
        if self.loop is not None:
            self._after_core()
        return result

    def _on_ephemeral_lost(self, bucket: str, key: str, error: KvstoredError) -> None:
        if self.on_ephemeral_lost is not None and self.loop is not None:  # not within the core: it may raise exceptions
            self.loop.call_soon(self.on_ephemeral_lost, bucket, key, error)

    # --- Watches -----------------------------------------------------------------------------------

    async def start_watch(self, watch: Watch) -> None:
        """Begin a watch, if it is not begun yet, and return when it has begun. Raises why it cannot."""
        await self.connect()
        self.core.start_watch(watch)
        self._after_core()
        while not watch.was_started and not watch.is_stopped:
            if watch.error is not None:
                raise fresh(watch.error)
            await self._wait_for_watch(watch)

    async def next_event(self, watch: Watch) -> Any:
        """Return the next event of the watch; None if it was closed. Raises why it has ended."""
        while True:
            event = self.core.next_event(watch)
            if event is not None:
                self._after_core()
                return event
            if watch.is_stopped:
                return None
            if watch.error is not None:
                raise fresh(watch.error)
            await self._wait_for_watch(watch)

    async def close_watch(self, watch: Watch) -> None:
        """End the watch."""
        self.use(lambda core: core.stop_watch(watch))

    def drop_watch(self, watch: Watch) -> None:
        """The program has dropped the watch without closing it. The garbage collector says so, in any thread."""
        if not watch.is_begun or watch.is_stopped or self.loop is None or self._pid != os.getpid():
            return
        self.core.dropped_watches.append(watch)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.use, Core.stop_dropped_watches)

    async def _wait_for_watch(self, watch: Watch) -> None:
        assert self.loop is not None
        future = self.loop.create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        watch.waiters.append(wake)
        try:
            await future
        finally:
            watch.waiters.remove(wake)

    # --- The connection ----------------------------------------------------------------------------

    def _is_connected_here(self) -> bool:
        """Return whether there is a connection, and it belongs to the running loop and to this process."""
        return self._transport is not None and asyncio.get_running_loop() is self.loop and self._pid == os.getpid()

    async def _ensure_connection(self) -> None:
        """Connect for the first time. Later the channel connects by itself, and calls wait for that until their
        timeouts."""
        loop = asyncio.get_running_loop()
        if self.loop is None:
            self.loop, self._pid = loop, os.getpid()
        elif self._pid != os.getpid():
            raise RuntimeError("the client belongs to the parent process: make one for each")
        elif self.loop is not loop:
            raise RuntimeError("the client belongs to another event loop: make one for each")
        self.core.check_open()
        if self._was_connected:
            return
        if self._connecting is None:
            self._connecting = loop.create_task(self._connect())
        try:
            await asyncio.shield(self._connecting)
        except asyncio.CancelledError:
            if self._connecting is not None and self._connecting.cancelled():
                self.core.check_open()
            raise
        except OSError as error:
            raise Unavailable(f"cannot connect to {self.path}: {error.strerror or error}", retryable=True,
                              outcome="none") from error
        finally:
            if self._connecting is not None and self._connecting.done():
                self._connecting = None

    async def _connect(self) -> None:
        assert self.loop is not None
        if self._transport is not None:
            return
        self._socket = new_socket()
        try:
            self._socket.setblocking(False)
            await self.loop.sock_connect(self._socket, self.path)
            await self.loop.create_unix_connection(lambda: self, sock=self._socket)
        except BaseException:
            self._socket.close()
            raise

    async def _connect_again(self) -> None:
        """Connect again: at once, but after a pause if the daemon has answered nothing on the last connection."""
        if self.core.has_answered:
            self._pause_s = 0.0
        while True:
            if self._pause_s > 0:
                await asyncio.sleep(self._pause_s * random.uniform(0.75, 1.0))
            self._pause_s = min(max(self._pause_s * 2, FIRST_PAUSE_S), LAST_PAUSE_S)
            try:
                await self._connect()
                return
            except OSError as error:
                self.core.cannot_connect(self.path, error)

    # --- asyncio.Protocol ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected."""
        assert isinstance(transport, asyncio.Transport) and self.loop is not None
        if self.core.closed_because is not None:
            transport.close()
            return
        self._transport = transport
        transport.set_write_buffer_limits(0)  # it says when it has sent all that it has, and the outbox goes on
        self._ended = self.loop.create_future()
        again, self._was_connected = self._was_connected, True
        self.core.connected()
        self._after_core()
        if again:
            for function in self.on_reconnected:
                self.loop.call_soon(function)  # not here: it may raise exceptions

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        try:
            self.core.receive(data)
        except BrokenProtocol as error:
            self._broken_because = str(error)
            assert self._transport is not None
            self._transport.abort()
            return
        self._after_core()

    def connection_lost(self, exception: Optional[Exception]) -> None:
        """The connection has ended."""
        self._transport = None
        self._is_full = False
        self._outbox.clear()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        assert self._socket is not None
        if exception is not None and self.core.closed_because is None and not self._broken_because:
            self._receive_rest(self._socket)
        end_connection(self._socket)
        if self.core.closed_because is not None:
            return
        why = f"the connection was lost: {exception}" if exception else "the daemon has ended the session"
        broken, self._broken_because = self._broken_because, ""
        self.core.lost(broken or why)
        if self.core.reconnects:
            assert self.loop is not None
            self._connecting = self.loop.create_task(self._connect_again())
        self._after_core()

    def _receive_rest(self, connection: socket.socket) -> None:
        """The daemon has closed the connection, and a write has failed before all was read. Its last messages say what
        became of the calls."""
        try:
            while True:
                data = connection.recv(RECEIVE_BYTES)
                if not data:
                    return
                self.core.receive(data)
        except BrokenProtocol as error:
            self._broken_because = str(error)
        except OSError:
            pass  # there is no more

    def pause_writing(self) -> None:
        """The socket takes no more, and the transport has some bytes left: the outbox and the core keep the others."""
        self._is_full = True

    def resume_writing(self) -> None:
        """The socket takes more."""
        self._is_full = False
        self._after_core()

    # --- The core's output and timers ----------------------------------------------------------------

    def _after_core(self) -> None:
        """The core was used: send its output at the end of this turn of the loop, and set its timer."""
        core, loop = self.core, self.loop
        assert loop is not None
        if not self._flush_is_planned and not self._is_full and (core.has_output() or self._outbox):
            self._flush_is_planned = True
            loop.call_soon(self._flush)
        due = core.next_due()
        if due is not None and due < self._timer_due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_due = due
            self._timer = loop.call_later(max(due - time.monotonic(), 0), self._run_timers)

    def _flush(self) -> None:
        self._flush_is_planned = False
        transport = self._transport
        while transport is not None and not self._is_full and not transport.is_closing():  # a write can change both
            assert self._socket is not None
            try:
                self._outbox.send(self._socket, self.core)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the transport finds the same error
            except OSError:  # what was to be sent is lost with the connection
                transport.abort()
                return
            if not self._outbox:
                return
            transport.write(self._outbox.take(WAKE_BYTES))

    def _run_timers(self) -> None:
        self._timer, self._timer_due = None, float("inf")
        self.core.run_timers()
        self._after_core()
