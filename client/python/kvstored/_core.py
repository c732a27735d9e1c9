"""The protocol without a socket: calls, answers, watches and what happens to them when a connection is lost.

Used by the channels of the two clients, which move the bytes and wait. A channel calls `submit`, sends what
`take_output` returns, passes what it receives to `receive`, and reports `connected` and `lost`. It calls `run_timers`
when `next_due` is reached. Everything here runs in one thread at a time, and blocks nobody.
"""
from __future__ import annotations

import heapq
import itertools
import os
import random
import time
from collections import OrderedDict, deque
from typing import Any, Callable, Deque, Dict, Generic, List, Optional, Tuple, TypeVar

import msgpack  # type: ignore[import]

from .entries import Entry, entry_of, grant_of, integer_of
from .errors import DeadlineExceeded, Internal, InvalidArgument, KvstoredError, Unavailable, error_of, fresh

T = TypeVar("T")

DEFAULT_PATH = "/run/kvstored/kvstored.sock"

#: The daemon keeps the timeout of a call. Its answer may need some time for the way back.
GRACE_S = 1.0

#: Calls are looked through this often for those whose time is over.
EXPIRY_S = 0.25

#: The pauses between attempts to connect again, and to start a watch again.
FIRST_PAUSE_S, LAST_PAUSE_S = 0.05, 2.0

#: A watch whose consumer is behind by more bytes is stopped, and resumed when the consumer has caught up. Not before it
#: is ready: the daemon may be unable to continue within the contents of a bucket (revision_gone).
WATCH_QUEUE_BYTES = 8 * 1024 * 1024

#: When messages of this size wait for the socket, further calls are held until it takes some.
OUTPUT_BYTES = 1024 * 1024

#: An answer is at most as large as limits.frame_bytes of the daemon, which can be configured up to this.
MESSAGE_BYTES_MAX = 1 << 30

#: These can always be repeated. lock.check is about the session: on another one it says that the lock is not held.
READS = frozenset((
    "kv.get", "kv.get_json", "kv.history", "kv.keys", "kv.entries", "bulk.get", "bucket.info", "bucket.list",
    "lock.check", "health.check", "daemon.info", "daemon.stats", "daemon.metrics", "daemon.dump", "daemon.config",
    "daemon.sessions"))

WRITES_WITH_ID = frozenset((
    "kv.put", "kv.create", "kv.update", "kv.delete", "kv.purge", "kv.increment", "kv.touch", "bulk.put", "bulk.delete",
    "txn.commit"))

#: They end something of a session, and are obsolete when the session ends.
ABOUT_SESSION = frozenset(("watch.stop", "call.cancel"))


class BrokenProtocol(Exception):
    """The daemon has sent what is not of the protocol: end the connection."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"the daemon broke the protocol: {error if isinstance(error, ValueError) else repr(error)}")


def is_of_program(error: BaseException) -> bool:
    """Return whether the program has raised it, in a signal handler that has interrupted this package."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = "" if traceback is None else traceback.tb_frame.f_globals.get("__name__", "")
    return module.partition(".")[0] not in (__name__.partition(".")[0], "msgpack", "socket")


def frozen(value: Any) -> Any:
    """Return a copy of what the program can change later: a call may be packed later, or again, and must not differ."""
    kind = value.__class__
    if kind is str or kind is bytes or kind is int or value is None:
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, dict):
        return dict(zip(map(frozen, value), map(frozen, value.values())))
    return list(map(frozen, value)) if isinstance(value, (list, tuple)) else value


class Request(Generic[T]):
    """One call to make: a method, its arguments, its options, and the function that turns the result into T."""

    __slots__ = ("method", "arguments", "options", "decode")

    def __init__(self, method: str, arguments: List[Any], options: Dict[str, Any], decode: Callable[[Any], T]) -> None:
        self.method = method
        self.arguments = arguments
        self.options = {name: value for name, value in options.items() if value is not None}
        self.decode = decode

    def decoded(self, result: Any) -> T:
        """Return the result as T. Raises Internal if it has another form than the protocol says."""
        try:
            return self.decode(result)
        except Exception as error:  # pylint: disable=broad-except # of any kind
            if is_of_program(error):
                raise
            raise self.malformed(f"its result cannot be understood: {error!r}") from error

    def malformed(self, why: str) -> KvstoredError:
        """Return the error for an answer that is not of the protocol."""
        return Internal(f"the daemon broke the protocol in its answer to {self.method}: {why}",
                        outcome=None if self.method in READS else "unknown")


class Call:
    """A call between submit and its end. `wake` is called once, when `result` or `error` is set."""

    __slots__ = ("request", "deadline", "wait_until", "wake", "result", "error", "is_done", "msgid", "first_sent_us",
                 "is_sent", "is_given_up")

    def __init__(self, request: Request[Any], deadline: float, wait_until: Optional[float],
                 wake: Callable[[Call], None]) -> None:
        self.request = request
        self.deadline = deadline
        self.wait_until = wait_until  # when the option `wait` is over
        self.wake = wake
        self.result: Any = None
        self.error: Optional[KvstoredError] = None
        self.is_done = False
        self.msgid = 0  # on this connection
        self.first_sent_us = 0  # 0: not sent yet
        self.is_sent = False  # on this connection: set by the channel with the first byte
        self.is_given_up = False  # nobody waits for the answer

    def end(self, result: Any, error: Optional[KvstoredError]) -> None:
        """Note the result, and wake the caller."""
        self.result, self.error, self.is_done = result, error, True
        if not self.is_given_up:
            self.wake(self)

    def value(self) -> Any:
        """Return the decoded result of a call that is done, or raise its error."""
        if self.error is not None:
            raise self.error
        return self.request.decoded(self.result)


class Watch:
    """A watch between start and end. Its events wait in `events`. The functions in `waiters` are called when there are
    new ones, and when it has started or ended.

    An event is an Entry, or READY.
    """

    READY = object()

    def __init__(self, core: Core, bucket: str, options: Dict[str, Any]) -> None:
        self.core = core
        self.bucket = bucket
        self.options = options
        self.waiters: List[Callable[[], None]] = []
        self.is_begun = False  # start_watch was called
        self.events: Deque[Tuple[Any, int]] = deque()  # and the bytes that they count for
        self.queued_bytes = 0
        self.id: Optional[int] = None
        self.error: Optional[KvstoredError] = None  # why it has ended
        self.is_ready = False
        self.ready_revision: Optional[int] = None
        self.is_stopped = False  # by the program
        self.is_paused = False  # the consumer is behind
        self.was_started = False
        self.floor: Optional[int] = None  # the revision after the last one when the watch began
        self.resume_from: Optional[int] = None  # the revision from which the next start continues
        self.pause_s = FIRST_PAUSE_S

    def wake(self) -> None:
        """Call the waiters."""
        for function in list(self.waiters):
            function()

    def has_news(self) -> bool:
        """Return whether a consumer that waits should look again."""
        return bool(self.events) or self.error is not None or self.is_stopped


_LockKey = Tuple[str, str, int]  # bucket, name, token


class Core:
    """The state of one client."""

    def __init__(self, *, reconnect: bool, timeout_s: float) -> None:
        self.reconnects = reconnect
        self.timeout_s = timeout_s
        self.is_connected = False
        self.has_answered = False  # the daemon, on this connection
        self.on_ephemeral_lost: Optional[Callable[[str, str, KvstoredError], None]] = None
        self.closed_because: Optional[KvstoredError] = None  # no further call is accepted
        self.lost_because: Optional[KvstoredError] = None  # of the last connection
        self._lost_at = 0.0
        self._connect_error: Optional[Tuple[str, str]] = None  # path and reason of the last attempt since then
        self._unpacker = self._new_unpacker()
        self._packer = msgpack.Packer(autoreset=True)
        self._output: List[Tuple[bytes, Call]] = []
        self._output_bytes = 0
        self._msgid = 0
        self._pending: Dict[int, Call] = {}  # in flight, the oldest first
        # Until there is a connection, and room in the output. Ordered: many calls may be given up, and the first is found
        # at once.
        self._held: OrderedDict[Call, None] = OrderedDict()
        self._watches: Dict[int, Watch] = {}  # by the id of this connection
        self._waiting_watches: Dict[Watch, None] = {}  # for the next connection
        self._resting_watches: Dict[Watch, None] = {}  # in the pause before the next attempt to start
        self.dropped_watches: Deque[Watch] = deque()  # by the program, in any thread and at any moment
        self._locks: Dict[_LockKey, Optional[Callable[[KvstoredError], None]]] = {}  # held by this session
        self._losses: Dict[_LockKey, KvstoredError] = {}  # of locks whose function is not known yet
        self._dismissal: Optional[KvstoredError] = None
        self._timers: List[Tuple[float, int, Callable[[], None]]] = []
        self._timer_numbers = itertools.count()
        self._expiry_is_set = False
        self._id_prefix = os.urandom(8)
        self._id_count = 0

    @staticmethod
    def _new_unpacker() -> Any:
        # A name that another NATS client has stored, and that is not UTF-8, comes as bytes: see _text.py.
        return msgpack.Unpacker(max_buffer_size=MESSAGE_BYTES_MAX, strict_map_key=False)

    # --- Calls -------------------------------------------------------------------------------------

    def new_call(self, request: Request[Any], wake: Callable[[Call], None], timeout_s: Optional[float],
                 wait_s: float = 0.0) -> Call:
        """Return a call that can be submitted. wait_s: its option `wait`, by which it may exceed its timeout."""
        timeout_s = timeout_s if timeout_s is not None else self.timeout_s
        request.options["timeout"] = timeout_s
        wait_until = time.monotonic() + wait_s
        return Call(request, wait_until + timeout_s + GRACE_S, wait_until if wait_s > 0 else None, wake)

    def submit(self, call: Call) -> None:
        """Send a call, or hold it until it can be sent. Raises why the client is closed."""
        self.check_open()
        self.stop_dropped_watches()
        request = call.request
        try:
            request.arguments, request.options = frozen(request.arguments), frozen(request.options)
        except RecursionError as error:
            raise ValueError(f"an argument of {request.method} is nested too deeply") from error
        if self.reconnects and request.method in WRITES_WITH_ID and "id" not in request.options and \
                not request.options.get("ephemeral") and "filter" not in request.options:
            self._id_count += 1
            request.options["id"] = self._id_prefix + self._id_count.to_bytes(8, "little")
        if self._has_room() and not self._held:
            self._send(call)
        else:
            self._held[call] = None
        if not self._expiry_is_set:
            self._expiry_is_set = True
            self.at(time.monotonic() + EXPIRY_S, self._expire)

    def check_open(self) -> None:
        """Raise why the client is closed, if it is."""
        if self.closed_because is not None:
            raise fresh(self.closed_because, outcome="none")

    def give_up(self, call: Call) -> None:
        """Forget a call for which nobody waits, and cancel it at the daemon if it was sent. If that is too late, its
        answer is dropped, and its lock is released."""
        call.is_given_up = True
        self._held.pop(call, None)
        request = call.request
        if not call.is_done and self._pending.get(call.msgid) is call:
            # Also if there is no room for further calls: it makes some.
            self._send(self.new_call(Request("call.cancel", [call.msgid], {}, lambda result: result),
                                     lambda call: None, None))
        if call.is_done and call.error is None and request.method == "lock.acquire":
            key = (request.arguments[0], request.arguments[1], grant_of(call.result)[0])
            if self._locks.get(key, self._ignore_loss) is None:  # nobody has taken the lock over from the answer
                self.release_lock(*key)

    def has_calls(self) -> bool:
        """Return whether calls are in flight or held."""
        return bool(self._pending or self._held)

    def _has_room(self) -> bool:
        return self.is_connected and self._output_bytes < OUTPUT_BYTES

    def _send(self, call: Call) -> None:
        request = call.request
        self._msgid = msgid = (self._msgid + 1) & 0xFFFFFFFF
        while msgid in self._pending:
            self._msgid = msgid = (msgid + 1) & 0xFFFFFFFF
        params = [*request.arguments, request.options] if request.options else request.arguments
        try:
            packed = self._packer.pack([0, msgid, request.method, params])
        except (TypeError, ValueError, OverflowError) as error:
            self._packer.reset()
            if is_of_program(error):
                raise
            if isinstance(error, UnicodeEncodeError):
                raise InvalidArgument(f"{self._unsendable(request)} of {request.method}: {error.object!r:.100} is not "
                                      "UTF-8: keys and headers must be; pass bytes as a value",
                                      outcome="none") from error
            if isinstance(error, OverflowError):
                raise InvalidArgument(f"{self._unsendable(request)} of {request.method}: an integer must fit into 64 "
                                      "bits: pass larger ones as str", outcome="none") from error
            if isinstance(error, ValueError):
                raise InvalidArgument(f"{self._unsendable(request)} of {request.method}: {error}",
                                      outcome="none") from error
            raise TypeError(f"{self._unsendable(request)} of {request.method}: {error}: pass bytes or str, or what "
                            "JSON can express (numbers, lists and dicts)") from error
        if call.first_sent_us == 0:
            call.first_sent_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        call.is_sent = False
        call.msgid = msgid
        self._pending[msgid] = call
        self._output.append((packed, call))
        self._output_bytes += len(packed)

    def _send_held(self) -> None:
        """Send the calls that were held, in their order, as far as there is room."""
        while self._held and self._has_room():
            call = next(iter(self._held))
            if call.first_sent_us != 0 and call.request.method in WRITES_WITH_ID:
                call.request.options["first_sent"] = call.first_sent_us
            elif call.request.method in READS:
                call.request.options["timeout"] = max(call.deadline - GRACE_S - time.monotonic(), 0.001)
            elif call.wait_until is not None:
                call.request.options["wait"] = max(call.wait_until - time.monotonic(), 0.0)
            try:
                self._send(call)
            except (TypeError, ValueError, OverflowError) as error:
                call.end(None, InvalidArgument(f"the call cannot be sent: {error}", outcome="none"))
            self._held.pop(call, None)

    def _unsendable(self, request: Request[Any]) -> str:
        """Return the name of the argument that MessagePack cannot express."""
        named = [(f"argument {number}", argument) for number, argument in enumerate(request.arguments, 1)]
        for name, argument in named + [(f"option {name}", value) for name, value in request.options.items()]:
            try:
                self._packer.pack(argument)
            except (TypeError, ValueError, OverflowError):
                self._packer.reset()
                return name
        return "an argument"

    def _expire(self) -> None:
        now = time.monotonic()
        self._expiry_is_set = False
        try:
            self._end_expired(now)
        finally:
            if self.has_calls():
                self._expiry_is_set = True
                self.at(now + EXPIRY_S, self._expire)

    def _end_expired(self, now: float) -> None:
        for call in [call for call in self._pending.values() if call.deadline <= now and not call.is_done]:
            outcome = None if call.request.method in READS else "unknown"
            call.end(None, DeadlineExceeded("the daemon did not answer in time: is it running?", retryable=True,
                                            outcome=outcome))
            call.is_given_up = True  # its msgid stays in use until the answer comes
            if not call.request.method.startswith("lock."):
                call.request.arguments = []  # free the value
        # A call that is held is not sent after its timeout: there would be no time for its answer.
        for call in [call for call in self._held if call.deadline - GRACE_S <= now]:
            del self._held[call]
            self._fail_unanswered(call, self._why_held(now))

    def _why_held(self, now: float) -> KvstoredError:
        if self.is_connected:
            return DeadlineExceeded("the daemon reads nothing: the call was not sent")
        if self._connect_error is None:
            return self.lost_because or Unavailable("there is no connection")
        path, reason = self._connect_error
        return Unavailable(f"cannot connect to {path} for {now - self._lost_at:.1f} s ({reason}): is kvstored running?")

    @staticmethod
    def _fail_unanswered(call: Call, reason: KvstoredError) -> None:
        """End a call with the reason, and with what is known of its outcome."""
        outcome = "none" if call.first_sent_us == 0 else None if call.request.method in READS else "unknown"
        call.end(None, fresh(reason, retryable=True, outcome=outcome))

    # --- The connection ----------------------------------------------------------------------------

    def connected(self) -> None:
        """A connection is there. Send the calls that were held, and start the watches again."""
        self.is_connected = True
        self.has_answered = False
        self._connect_error = None
        self._dismissal = None
        self._unpacker = self._new_unpacker()
        self._send_held()
        watches, self._waiting_watches = self._waiting_watches, {}
        for watch in watches:
            self._start_watch(watch)

    def cannot_connect(self, path: str, error: OSError) -> None:
        """An attempt to connect again has failed."""
        self._connect_error = (path, error.strerror or str(error))

    def lost(self, why: str) -> None:
        """The connection has ended. Hold what can be sent again, and end the other calls."""
        dismissal, self._dismissal = self._dismissal, None
        reason = dismissal or Unavailable(why, retryable=True)
        self.is_connected = False
        self.lost_because, self._lost_at = reason, time.monotonic()
        self._output.clear()
        self._output_bytes = 0
        if not self.reconnects:
            self.closed_because = reason
        nothing_done = dismissal is not None and dismissal.outcome == "none"
        is_dismissed = nothing_done and reason.code == "unavailable"
        # A further session was refused. Or this one was ended because of its memory: it may have begun calls.
        is_refused = nothing_done and reason.code == "resource_exhausted" and not self.has_answered
        pending, self._pending = self._pending, {}
        ended: List[Call] = []
        held: List[Call] = []
        for call in pending.values():
            if call.is_done or call.is_given_up:
                continue
            is_begun = call.is_sent and not is_dismissed and not (is_refused and "id" not in call.request.options)
            if not is_begun and "first_sent" not in call.request.options:
                call.first_sent_us = 0
            method = call.request.method
            if method in ABOUT_SESSION:
                continue  # the watch or the call has ended with its session
            can_repeat = not is_begun or method in READS or "id" in call.request.options
            (held if self.reconnects and can_repeat else ended).append(call)
        held += [call for call in self._held if call.request.method not in ABOUT_SESSION]
        self._held = OrderedDict.fromkeys(held)  # one may have been in both if `_send_held` was interrupted
        watches, self._watches = list(self._watches.values()), {}
        for watch in watches:
            watch.id = None
            if self.reconnects:
                self._waiting_watches[watch] = None
            else:
                self._end_watch(watch, reason)
        if not self.reconnects:  # they have no owner: others can have them now
            for on_lost in list(self._locks.values()):
                if on_lost is not None:
                    on_lost(reason)
        for call in ended:
            self._fail_unanswered(call, reason)

    def close(self, reason: KvstoredError) -> None:
        """The client is closed: end all calls and watches."""
        self.reconnects = False
        self.closed_because = reason
        waiting = [*self._waiting_watches, *self._resting_watches]
        self._waiting_watches, self._resting_watches = {}, {}
        held, self._held = self._held, OrderedDict()
        self.lost(reason.message)
        self.closed_because = reason
        for call in held:
            self._fail_unanswered(call, reason)
        for watch in waiting:
            self._end_watch(watch, reason)

    def take_output(self) -> List[Tuple[bytes, Call]]:
        """Return the messages to send, with their calls, and forget them. Calls that were held come next."""
        output, self._output = self._output, []
        self._output_bytes = 0
        self._send_held()
        return output

    def has_output(self) -> bool:
        """Return whether there is something to send."""
        return bool(self._output)

    def receive(self, data: bytes) -> None:
        """Take what has arrived. Raises BrokenProtocol if it is not of this protocol."""
        self.stop_dropped_watches()
        unpacker = self._unpacker
        try:
            unpacker.feed(data)
            for message in unpacker:
                if message[0] == 1:
                    self._on_answer(message[1], message[2], message[3])
                elif message[0] == 2:
                    self._on_notification(message[1], message[2])
                else:
                    raise ValueError("the daemon has sent a request")
        except Exception as error:  # pylint: disable=broad-except # of any kind, if the message has another form
            if is_of_program(error):
                raise
            self.has_answered = False  # connect again after a pause: the next connection may fail in the same way
            raise BrokenProtocol(error) from error

    def _on_answer(self, msgid: Optional[int], error: Any, result: Any) -> None:
        if msgid is None:  # the last message of a session that the daemon ends
            self._dismissal = error_of(error)
            return
        self.has_answered = True
        call = self._pending.get(msgid)
        if call is None:
            raise ValueError("the daemon has answered a call that was not made")
        request = call.request
        try:
            failure = error_of(error) if error is not None else None
            if failure is None and request.method == "lock.acquire":
                self._on_lock_acquired(call, (request.arguments[0], request.arguments[1], grant_of(result)[0]))
        except (TypeError, ValueError, LookupError) as problem:
            if not is_of_program(problem) and not call.is_done:
                call.end(None, request.malformed(f"{problem!r}"))
            raise
        if call.is_done or call.is_given_up:
            if failure is None and request.method == "watch.start":
                self._stop_id(result)
        if not call.is_done:
            call.end(result, failure)
        del self._pending[msgid]  # at last: if a signal handler interrupts this, the call ends with the connection

    def _on_notification(self, method: str, params: List[Any]) -> None:
        if method == "lock.lost":
            self._on_lock_lost((params[0], params[1], params[2]), error_of(params[3]))
            return
        watch = self._watches.get(params[0])
        if watch is None:
            return
        if method == "watch.entries":
            self._on_entries(watch, params[1])
        elif method == "watch.ready":
            self._on_ready(watch, params[1] if len(params) > 1 else None)
        elif method == "watch.ended":
            self._on_ended(watch, error_of(params[1]))

    # --- Watches -----------------------------------------------------------------------------------

    def start_watch(self, watch: Watch) -> None:
        """Begin a watch, if it is not begun yet. Its entries come as events; its error is set when it ends."""
        self.check_open()
        if watch.is_begun:
            return
        watch.is_begun = True
        if self.is_connected:
            self._start_watch(watch)
        else:
            self._waiting_watches[watch] = None

    def stop_watch(self, watch: Watch) -> None:
        """The program is no longer interested."""
        watch.is_stopped = True
        watch.events.clear()
        self._waiting_watches.pop(watch, None)
        self._resting_watches.pop(watch, None)
        if self.closed_because is None:
            self._send_stop(watch)
        watch.wake()

    def stop_dropped_watches(self) -> None:
        """Stop the watches that the program has dropped. The garbage collector cannot do it: it interrupts the core."""
        while self.dropped_watches:
            self.stop_watch(self.dropped_watches.popleft())

    def next_event(self, watch: Watch) -> Any:
        """Return the next event, or None. A watch that was stopped because its consumer was behind is resumed."""
        if not watch.events:
            return None
        event, size = watch.events.popleft()
        watch.queued_bytes -= size
        if watch.is_paused and watch.queued_bytes <= WATCH_QUEUE_BYTES // 2:
            watch.is_paused = False
            self._restart_watch(watch)
        return event

    def _submit_internal(self, request: Request[Any], wake: Callable[[Call], None]) -> None:
        self.submit(self.new_call(request, wake, None))

    def _start_watch(self, watch: Watch) -> None:
        """First ask for the last revision: from there the watch continues after a lost connection if it has delivered
        nothing, and a watch of updates only begins there. A bucket that is older than what was delivered was recreated
        or restored."""
        if watch.resume_from is None and "from_revision" in watch.options:
            self._send_watch_start(watch)
            return
        self._submit_for_watch(watch, Request("bucket.info", [watch.bucket], {},
                                              lambda result: integer_of(result["last_revision"]) + 1),
                               self._on_watch_info)

    def _send_watch_start(self, watch: Watch) -> None:
        options = dict(watch.options)
        is_exclusive = "include_history" not in options and "from_revision" not in options
        if watch.resume_from is None and options.get("updates_only") and is_exclusive:
            watch.resume_from = watch.floor
        if watch.resume_from is not None:
            options.pop("include_history", None)
            options.pop("updates_only", None)
            options["from_revision"] = watch.resume_from
        if watch.is_ready:
            options.pop("snapshot", None)
        self._submit_for_watch(watch, Request("watch.start", [watch.bucket], options, integer_of),
                               self._on_watch_started)

    def _submit_for_watch(self, watch: Watch, request: Request[Any], done: Callable[[Watch, Call], None]) -> None:
        try:
            self._submit_internal(request, lambda call: done(watch, call))
        except (TypeError, ValueError, OverflowError) as error:
            self._end_watch(watch, InvalidArgument(f"the watch cannot be started: {error}", outcome="none"))

    def _restart_watch(self, watch: Watch) -> None:
        if watch.is_stopped or watch.is_paused:
            return
        if self.is_connected:
            self._start_watch(watch)
        elif self.closed_because is None:
            self._waiting_watches[watch] = None
        else:
            self._end_watch(watch, self.closed_because)

    def _restart_watch_later(self, watch: Watch) -> None:
        pause_s = watch.pause_s * random.uniform(0.75, 1.0)
        watch.pause_s = min(watch.pause_s * 2, LAST_PAUSE_S)
        self._resting_watches[watch] = None
        self.at(time.monotonic() + pause_s, lambda: self._on_rested(watch))

    def _on_rested(self, watch: Watch) -> None:
        if watch in self._resting_watches:
            del self._resting_watches[watch]
            self._restart_watch(watch)

    def _on_watch_info(self, watch: Watch, call: Call) -> None:
        if watch.is_stopped:
            return
        try:
            watch.floor = floor = call.value()
        except KvstoredError as error:
            self._on_start_failed(watch, error)
            return
        # The program itself may wait for a revision that does not exist yet.
        if watch.resume_from is not None and watch.resume_from > max(floor, watch.options.get("from_revision", 0)):
            watch.resume_from = 1  # all entries of the bucket are new
        self._send_watch_start(watch)

    def _on_watch_started(self, watch: Watch, call: Call) -> None:
        try:
            watch_id = call.value()
        except KvstoredError as error:
            self._on_start_failed(watch, error)
            return
        watch.id = watch_id
        self._watches[watch_id] = watch
        watch.was_started = True
        watch.pause_s = FIRST_PAUSE_S
        if watch.is_stopped or watch.is_paused:
            self._send_stop(watch)
        else:
            watch.wake()

    def _on_start_failed(self, watch: Watch, error: KvstoredError) -> None:
        """A watch that has run before is started again if the error may heal, and the first start only if it was not
        refused by the daemon."""
        if watch.is_stopped:
            return
        if self.reconnects and error.retryable and (watch.was_started or not self.is_connected):
            self._restart_watch_later(watch)
        else:
            self._end_watch(watch, error)

    def _send_stop(self, watch: Watch) -> None:
        if watch.id is None:
            return
        self._watches.pop(watch.id, None)
        if self.is_connected:
            self._stop_id(watch.id)
        watch.id = None

    def _stop_id(self, watch_id: int) -> None:
        self._submit_internal(Request("watch.stop", [watch_id], {}, lambda result: result), lambda call: None)

    def _end_watch(self, watch: Watch, reason: KvstoredError) -> None:
        watch.error = reason
        watch.wake()

    def _on_entries(self, watch: Watch, maps: List[Dict[str, Any]]) -> None:
        for fields in maps:
            entry = entry_of(fields, watch.bucket)
            size = 200 + len(entry.key) + len(entry.value) + len(entry.previous_value or b"")
            watch.events.append((entry, size))
            watch.queued_bytes += size
        if maps:
            watch.resume_from = maps[-1]["revision"] + 1
        if watch.queued_bytes > WATCH_QUEUE_BYTES and watch.is_ready and not watch.is_paused:
            watch.is_paused = True
            self._send_stop(watch)
        watch.wake()

    def _on_ready(self, watch: Watch, revision: Optional[int]) -> None:
        if watch.is_ready:
            return
        watch.is_ready = True
        watch.ready_revision = revision
        if watch.floor is not None:
            watch.resume_from = max(watch.resume_from or 0, watch.floor)
        watch.events.append((Watch.READY, 0))
        watch.wake()

    def _on_ended(self, watch: Watch, error: KvstoredError) -> None:
        assert watch.id is not None
        del self._watches[watch.id]
        watch.id = None
        if error.revision is not None and self.reconnects and not watch.is_stopped:
            watch.resume_from = error.revision
            self._restart_watch(watch)
        else:
            self._end_watch(watch, error)

    # --- Locks ---------------------------------------------------------------------------------------

    def watch_lock(self, bucket: str, name: str, token: int, on_lost: Callable[[KvstoredError], None]) -> None:
        """Call the function if the lock is lost: at once, if the daemon has said so since it was acquired."""
        key = (bucket, name, token)
        self._locks[key] = on_lost
        if key in self._losses:
            on_lost(self._losses.pop(key))

    def forget_lock(self, bucket: str, name: str, token: int) -> None:
        """The lock is no longer held."""
        self._locks.pop((bucket, name, token), None)
        self._losses.pop((bucket, name, token), None)

    def release_lock(self, bucket: str, name: str, token: int) -> None:
        """Release a lock that nobody wants now."""
        self.forget_lock(bucket, name, token)
        if self.closed_because is None:
            self._submit_internal(Request("lock.release", [bucket, name, token], {}, lambda result: result),
                                  lambda call: None)

    def lets_go(self, bucket: str, name: str) -> bool:
        """Return whether this session is about to release the lock, because its caller has given up."""
        return any(call.request.arguments[:2] == [bucket, name] and (
            call.request.method == "lock.release" or call.request.method == "lock.acquire" and call.is_given_up)
            for call in itertools.chain(self._pending.values(), self._held))

    def _on_lock_acquired(self, call: Call, key: _LockKey) -> None:
        if not call.is_done and not call.is_given_up:
            self._locks.setdefault(key, None)
        elif key not in self._locks:  # otherwise the program still holds it, and this was for its new session
            self.release_lock(*key)

    @staticmethod
    def _ignore_loss(_error: KvstoredError) -> None:
        pass

    def _on_lock_lost(self, key: _LockKey, error: KvstoredError) -> None:
        if key not in self._locks:
            if self.on_ephemeral_lost is not None:
                self.on_ephemeral_lost(key[0], key[1], error)
            return
        on_lost = self._locks[key]
        if on_lost is not None:
            on_lost(error)
        else:
            self._losses[key] = error

    # --- Timers --------------------------------------------------------------------------------------

    def at(self, due: float, function: Callable[[], None]) -> None:
        """Call the function when time.monotonic() has reached due."""
        heapq.heappush(self._timers, (due, next(self._timer_numbers), function))

    def next_due(self) -> Optional[float]:
        """Return when run_timers has something to do; None: nothing is planned."""
        return self._timers[0][0] if self._timers else None

    def run_timers(self) -> None:
        """Call the functions whose time has come."""
        self.stop_dropped_watches()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
