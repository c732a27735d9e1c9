"""The connection of the blocking client, which many threads can use at the same time.

There is no thread in the background. Of the threads that wait for something, one is the reader: it waits for the
socket, and wakes the others when their answers have come. When it has its own answer, it makes another waiting thread
the reader. So a single thread gets its answer without a switch.
"""
from __future__ import annotations

import inspect
import os
import random
import select
import socket
import threading
import time
import weakref
from typing import Any, Callable, Dict, List, Optional, TypeVar

from ._connections import end_connection, new_socket
from ._core import FIRST_PAUSE_S, LAST_PAUSE_S, BrokenProtocol, Call, Core, Request, Watch, is_of_program
from ._outbox import Outbox
from ._paths import AnyPath, socket_path
from .errors import KvstoredError, Unavailable, fresh

T = TypeVar("T")
R = TypeVar("R")
A = TypeVar("A")

RECEIVE_BYTES = 262144

#: Connecting blocks all threads of a client. It takes long only if the daemon is stopped and its queue is full.
CONNECT_S = 1.0


_fork_lock = threading.Lock()


class _Waiter:
    """A thread that waits. It sleeps until `wake` is called."""

    __slots__ = ("_lock", "is_awake")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.is_awake = False

    def wake(self) -> None:
        """Let the thread continue. The channel's lock is held."""
        if not self.is_awake:
            self.is_awake = True
            self._lock.release()

    def sleep(self) -> None:
        """Sleep until wake."""
        with self._lock:
            pass

    def rearm(self) -> None:
        """Before the next sleep. The channel's lock is held."""
        if self.is_awake:
            self._lock.acquire()
            self.is_awake = False


class Channel:
    """Moves the core's bytes over a socket, and waits for the ends of its calls."""

    def __init__(self, path: Optional[AnyPath], *, reconnect: bool, timeout_s: float) -> None:
        self.path = socket_path(path)
        self.on_reconnected: List[Callable[[], None]] = []
        self.on_ephemeral_lost: Optional[Callable[[str, str, KvstoredError], None]] = None
        self._reconnect = reconnect
        self._timeout_s = timeout_s
        self._begin()

    def _begin(self) -> None:
        self.core = Core(reconnect=self._reconnect, timeout_s=self._timeout_s)
        me: Channel = weakref.proxy(self)  # without a cycle, the pipe is closed as soon as the program drops the client
        self.core.on_ephemeral_lost = lambda bucket, key, error: me._on_ephemeral_lost(bucket, key, error)
        self._lock = threading.RLock()  # guards everything here, and the core
        self._socket: Optional[socket.socket] = None
        self._outbox = Outbox()
        self._was_connected = False
        self._next_attempt = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._reader: Optional[int] = None  # the thread that waits for the socket
        self._reader_due: Optional[float] = None  # until when, at most
        self._sleeping: Dict[_Waiter, None] = {}
        self._alarm_in, self._alarm_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)  # interrupts the reader's poll
        self._pid = os.getpid()

    def __del__(self) -> None:
        if getattr(self, "_alarm_out", None) is not None and self._pid == os.getpid():
            os.close(self._alarm_in)
            os.close(self._alarm_out)

    # --- Calls -------------------------------------------------------------------------------------

    def call(self, request: Request[T], timeout_s: Optional[float] = None, wait_s: float = 0.0) -> T:
        """Make a call and return its decoded result."""
        self._follow_fork()
        waiter = _Waiter()
        with self._lock:
            self._ensure_connection()
            call = self.core.new_call(request, lambda call: waiter.wake(), timeout_s, wait_s)
        try:
            with self._lock:
                self.core.submit(call)
                self._send()
            self._wait(waiter, lambda: call.is_done)
            if call.error is None:
                return request.decoded(call.result)
        except BaseException:  # such as KeyboardInterrupt
            with self._lock:
                self.core.give_up(call)
                self._send()
            raise
        error = call.error
        del call  # the error's traceback has this frame: a cycle would keep the channel until the garbage is collected
        try:
            raise error
        finally:
            del error

    def connect(self) -> None:
        """Connect, if there is no connection."""
        self._follow_fork()
        with self._lock:
            self._ensure_connection()

    def close(self) -> None:
        """Close the connection. Calls in flight fail."""
        self._follow_fork()
        with self._lock:
            self.core.close(Unavailable("the client is closed"))
            if self._socket is not None:
                end_connection(self._socket)
                self._socket = None
            for waiter in self._sleeping:
                waiter.wake()
            self._interrupt_reader()

    def new_mutex(self) -> threading.Lock:
        """Return a lock between threads."""
        return threading.Lock()

    def pause(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def call_function(self, function: Callable[[A], R], argument: A) -> R:
        """Call a function of the program, which is not async."""
        result = function(argument)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("the function must not be async: kvstored.aio.Client takes async functions")
        return result

    def use(self, function: Callable[[Core], R]) -> R:
        """Do something with the core, and send what it has then."""
        self._follow_fork()
        with self._lock:
            result = function(self.core)
            self._send()
        return result

    def _on_ephemeral_lost(self, bucket: str, key: str, error: KvstoredError) -> None:
        if self.on_ephemeral_lost is not None:  # it may make calls, which this thread must not wait for
            threading.Thread(target=self.on_ephemeral_lost, args=(bucket, key, error), daemon=True).start()

    # --- Watches -----------------------------------------------------------------------------------

    def start_watch(self, watch: Watch) -> None:
        """Begin a watch, if it is not begun yet, and return when it has begun. Raises why it cannot."""
        self._follow_fork()
        self._check_owner(watch)
        with self._lock:
            self._ensure_connection()
            self.core.start_watch(watch)
            self._send()
        self._wait_for_watch(watch, lambda: watch.was_started or watch.error is not None or watch.is_stopped)
        if not watch.was_started and watch.error is not None:
            raise fresh(watch.error)

    def next_event(self, watch: Watch) -> Any:
        """Return the next event of the watch; None if it was closed. Raises why it has ended."""
        self._follow_fork()
        self._check_owner(watch)
        while True:
            with self._lock:
                event = self.core.next_event(watch)
                if event is not None:
                    self._send()
                    return event
                if watch.is_stopped:
                    return None
                if watch.error is not None:
                    raise fresh(watch.error)
            self._wait_for_watch(watch, watch.has_news)

    def close_watch(self, watch: Watch) -> None:
        """End the watch."""
        self._follow_fork()
        if watch.core is not self.core:  # the parent process has it
            watch.is_stopped = True
            return
        with self._lock:
            self.core.stop_watch(watch)
            self._send()
            self._interrupt_reader()

    def drop_watch(self, watch: Watch) -> None:
        """The program has dropped the watch without closing it. The garbage collector says so, maybe while this thread
        has the lock: the reader stops the watch, or the next call does."""
        if watch.is_begun and not watch.is_stopped and watch.core is self.core and self._pid == os.getpid():
            self.core.dropped_watches.append(watch)
            self._interrupt_reader()

    def _check_owner(self, watch: Watch) -> None:
        if watch.core is not self.core:
            raise Unavailable("the watch belongs to the parent process: begin a new one")

    def _wait_for_watch(self, watch: Watch, is_over: Callable[[], bool]) -> None:
        waiter = _Waiter()
        with self._lock:
            watch.waiters.append(waiter.wake)
        try:
            self._wait(waiter, is_over)
        finally:
            with self._lock:
                watch.waiters.remove(waiter.wake)

    # --- Waiting -------------------------------------------------------------------------------------

    def _wait(self, waiter: _Waiter, is_over: Callable[[], bool]) -> None:
        """Wait until the condition holds, as the reader if there is none."""
        if self._reader == threading.get_ident():
            raise RuntimeError("a signal handler or a callback cannot use the client whose call it interrupts")
        try:
            try:
                self._sleep_or_read(waiter, is_over)
            finally:
                self._stop_waiting(waiter)
        except BaseException:  # of a signal handler, which may have interrupted that as well
            self._stop_waiting(waiter)
            raise

    def _sleep_or_read(self, waiter: _Waiter, is_over: Callable[[], bool]) -> None:
        me = threading.get_ident()
        while True:
            with self._lock:
                if is_over():
                    return
                if self._reader is None:
                    self._reader = me
                else:
                    waiter.rearm()
                    self._sleeping[waiter] = None
            if self._reader == me:
                self._read_until(is_over)
                return
            waiter.sleep()

    def _stop_waiting(self, waiter: _Waiter) -> None:
        """This thread waits no more. It can be called again after it was interrupted."""
        with self._lock:
            if self._reader == threading.get_ident():
                self._reader = None
            self._sleeping.pop(waiter, None)
            if self._reader is None:  # it was this thread, or this thread was woken to be it
                self._pass_reading_on(waiter)

    def _pass_reading_on(self, but: _Waiter) -> None:
        """Wake one of the other waiting threads, which becomes the reader."""
        for waiter in self._sleeping:
            if waiter is not but:
                waiter.wake()
                return

    def _read_until(self, is_over: Callable[[], bool]) -> None:
        """Move bytes until the condition holds. Only the reader does this."""
        while True:
            with self._lock:
                self.core.run_timers()
                self._reconnect_if_due(time.monotonic())
                self._send()
                if is_over():
                    return
                due = self.core.next_due()
                if self._socket is None and self.core.reconnects:
                    due = self._next_attempt if due is None else min(due, self._next_attempt)
                self._reader_due = due
                poll = select.poll()
                poll.register(self._alarm_in, select.POLLIN)
                if self._socket is not None:
                    poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._outbox else 0))
            ready = poll.poll(None if due is None else max(due - time.monotonic(), 0) * 1000 + 1)
            with self._lock:
                if any(descriptor == self._alarm_in for descriptor, _ in ready):
                    os.read(self._alarm_in, 4096)
                if self._socket is not None and any(descriptor != self._alarm_in for descriptor, _ in ready):
                    self._receive()
                    self._send()

    def _interrupt_reader(self) -> None:
        """Something has changed that the reader must look at, if it is another thread."""
        if self._reader is not None and self._reader != threading.get_ident():
            try:
                os.write(self._alarm_out, b"!")
            except BlockingIOError:
                pass  # it has not read the earlier ones

    # --- The socket ----------------------------------------------------------------------------------

    def _send(self) -> None:
        """Send what the core has, as far as the socket takes it. The reader sends the rest."""
        if self._socket is None:
            self.core.take_output()
        else:
            try:
                self._outbox.send(self._socket, self.core)
            except BaseException as error:
                if is_of_program(error) or not isinstance(error, OSError):  # the stream may end within a message
                    self._lose("a call was interrupted while it was sent")
                    raise
                self._receive_rest()
                self._lose(f"the connection was lost: {error.strerror or error}")
        due = self.core.next_due()
        if self._outbox or due is not None and (self._reader_due is None or due < self._reader_due):
            self._interrupt_reader()

    def _receive(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(RECEIVE_BYTES)
            if not data:
                self._lose("the daemon has ended the session")
                return
            self.core.receive(data)
        except BaseException as error:
            if is_of_program(error) or not isinstance(error, (OSError, BrokenProtocol)):
                self._lose("an answer was interrupted while it was read")
                raise
            if isinstance(error, BrokenProtocol):
                self._lose(str(error))
            elif not isinstance(error, BlockingIOError):
                self._lose(f"the connection was lost: {error.strerror or error}")

    def _receive_rest(self) -> None:
        """The daemon has closed the connection while nobody read. Its last message says what became of the calls."""
        while self._socket is not None:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            if not poll.poll(0):
                return
            self._receive()

    def _lose(self, why: str) -> None:
        if self._socket is None:
            return
        end_connection(self._socket)
        self._socket = None
        self._outbox.clear()
        if self.core.has_answered:
            self._pause_s = FIRST_PAUSE_S
            self._next_attempt = time.monotonic()
        else:
            self._rest(time.monotonic())
        if self.core.closed_because is None:
            self.core.lost(why)

    def _open(self) -> None:
        connection = new_socket()
        try:
            connection.settimeout(CONNECT_S)
            connection.connect(self.path)
            connection.setblocking(False)
        except BaseException:
            connection.close()
            raise
        self._socket = connection
        again, self._was_connected = self._was_connected, True
        try:
            self.core.connected()
        except BaseException:
            self._lose("the client was interrupted when it had connected")
            raise
        if again:
            for function in self.on_reconnected:  # they may make calls, which this thread must not wait for
                threading.Thread(target=function, daemon=True).start()

    def _ensure_connection(self) -> None:
        """Connect for the first time. Later the reader connects, and calls wait for that until their timeouts."""
        self.core.check_open()
        if self._socket is not None or self._was_connected:
            return
        try:
            self._open()
        except OSError as error:
            if is_of_program(error):
                raise
            raise Unavailable(f"cannot connect to {self.path}: {error.strerror or error}", retryable=True,
                              outcome="none") from error

    def _reconnect_if_due(self, now: float) -> None:
        if self._socket is not None or not self.core.reconnects or now < self._next_attempt:
            return
        try:
            self._open()
        except OSError as error:
            if is_of_program(error):
                raise
            self.core.cannot_connect(self.path, error)
            self._rest(now)

    def _rest(self, now: float) -> None:
        """Plan the next attempt to connect after a pause."""
        self._next_attempt = now + self._pause_s * random.uniform(0.75, 1.0)
        self._pause_s = min(self._pause_s * 2, LAST_PAUSE_S)

    def _follow_fork(self) -> None:
        """In a child process: leave the connection to the parent, and begin with a new one."""
        if self._pid == os.getpid():
            return
        with _fork_lock:
            if self._pid == os.getpid():
                return  # another thread was faster
            if self._socket is not None:  # not forked by Python: see _connections.py
                self._socket.close()
            os.close(self._alarm_in)
            os.close(self._alarm_out)
            self._begin()
