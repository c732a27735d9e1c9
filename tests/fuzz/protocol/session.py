"""One session: it sends requests, and checks that the answers are those that the protocol promises.

A loop calls on_writable, on_readable and on_tick. What a session sends depends on the seed and on
the session's name, except for revisions and watch ids, which it learns from answers.
"""
import collections
import enum
import socket

import answers
import grammar
import mutation
import pools
import wire
from answers import Wrong, expect

# An answer may come so long after the call's timeout, because the machine may be busy.
PATIENCE_S = 30
# The daemon's calls.timeout and calls.max_timeout.
TIMEOUT_S = 2
TIMEOUT_MAX_S = 60
# After so long a session sends no more requests, and another one begins.
LIFE_S = 15
# After `unavailable` a session pauses, as others do: otherwise most requests of a run meet no NATS.
PAUSE_S = 0.05
# How often a session stops reading for a while, of 10 times a second.
DEAF_SHARE = 0.004
MSGID_MAX = 2**32 - 1


class Request:
    """A message to the daemon, and what its answer must be."""

    def __init__(self, data, method="", params=None, msgid=None, code=None, timeout=TIMEOUT_S, is_answered=True):
        self.data = data
        self.method = method
        self.params = params
        self.msgid = msgid              # of the answer; None: nil
        self.code = code                # of the answer, which must be an error; None: any answer will do
        self.timeout = timeout
        self.is_answered = is_answered  # False for a notification
        self.is_last = False            # after its answer the daemon ends the session
        self.session_name = ""
        self.sent_at = None             # None: a part of it is not sent yet


class Ending(enum.Enum):
    """What a session does after its last request."""

    DRAIN = "waits for all answers, shuts down its sending half, and waits until the daemon closes"
    HALF_CLOSE = "shuts down its sending half with calls in flight, and waits until the daemon closes"
    ABORT = "closes with calls in flight"
    TRUNCATE = "closes in the middle of a message"
    TRUNCATE_HALF = "shuts down its sending half in the middle of a message, and waits until the daemon closes"
    LAST = "sends a message that the daemon ends the session for"
    NOISE = "sends random bytes"


ENDINGS = ((Ending.DRAIN, 10), (Ending.HALF_CLOSE, 6), (Ending.ABORT, 5), (Ending.TRUNCATE, 3),
           (Ending.TRUNCATE_HALF, 2), (Ending.LAST, 4), (Ending.NOISE, 1))


class State(enum.Enum):
    ASKING = 1
    FINISHING = 2   # the requests are all made; what is queued is sent
    LISTENING = 3   # nothing more will be sent; the daemon is about to close
    OVER = 4


def timeout_of(params):
    """Return an upper bound of the timeout of a call with these params."""
    longest = TIMEOUT_S
    for name, value in wire.map_items(params[-1]) or () if params else ():
        if wire.text_bytes(name) == b"timeout" and isinstance(value, (int, float)) and 0 < value <= TIMEOUT_MAX_S:
            longest = max(longest, value)
    return longest


class Session:
    def __init__(self, run, name, script=None, on_answer=None):
        """Connect. With a script, a list of (method, params), send these instead of random requests.

        on_answer(error) is called after each answer.
        """
        rng = self.rng = pools.new_rng(run.seed, name)
        self.timing_rng = pools.new_rng(run.seed, name, "timing")  # for draws whose number depends on time
        self.run = run
        self.name = name
        self.context = grammar.Context(rng, run.allowance, run.limits["frame_depth"])
        self.script = script and script[::-1]
        self.on_answer = on_answer
        self.state = State.ASKING
        self.ending = (Ending.DRAIN if script else
                       rng.choices([end for end, _ in ENDINGS], [weight for _, weight in ENDINGS])[0])
        self.left = len(script) if script else rng.choice((1, 5, 20, 100, 300))  # requests
        self.window = rng.choice((1, 2, 8, 64)) if not script else 64
        self.style = rng.choice(("whole", "whole", "together", "split")) if not script else "whole"
        self.msgid = rng.choice((0, 0, 120, 65000, MSGID_MAX - 10))
        self.queue = collections.deque()       # [bytes that are not sent yet, their request or None]
        self.pending = {}                      # requests that wait for an answer, by msgid
        self.nil_pending = collections.deque()  # those whose answer has the msgid nil
        self.is_noisy = False                  # random bytes were sent, which may be requests
        self.watches = {}                      # by id
        self.errors = "map"                    # the form of errors; None: undefined, as a notification may change it
        self.began_at = self.heard_at = self.moved_at = run.clock()
        self.deaf_until = 0.0                  # it does not read until then
        self.pauses_until = 0.0                # it makes no requests until then
        self.unpacker = wire.StrictUnpacker()
        self.received = bytearray()            # the beginning of an answer
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(run.socket_path)
        self.socket.setblocking(False)

    def fileno(self):
        return self.socket.fileno()

    # --- Making requests -----------------------------------------------------------------------------

    def next_msgid(self):
        self.msgid = self.context.msgid = (self.msgid + 1) & MSGID_MAX
        return self.msgid

    def make_request(self):
        """Return a random message. None: the one that was drawn must not be sent."""
        rng = self.rng
        share = rng.random()
        if share < 0.02:
            return self.make_broken_envelope()
        if share < 0.04:
            return self.pack(mutation.unknown_method(rng), [pools.junk(rng)], code="invalid_argument")
        if share < 0.045:
            return self.make_too_large()
        method, arguments, options = self.make_call()
        if rng.random() < 0.12:
            options = mutation.mutate_options(rng, options, self.run.learned[method].options)
        params = arguments + ([options] if options or rng.random() < 0.05 else [])
        if rng.random() < 0.35:
            mutation.mutate(rng, params)
        if (mutation.feeds_a_cycle(method, params) or mutation.kills_a_session(method, params) or
                mutation.waits_for_long(method, params)):
            return None
        return self.pack(method, params, is_notification=rng.random() < 0.04)

    def make_call(self):
        rng = self.rng
        method = rng.choices(self.run.method_names, self.run.method_weights)[0]
        if method in grammar.METHODS and rng.random() > self.run.generic_share:
            arguments, options = grammar.arguments_of(method, self.context)
        else:
            arguments, options = self.run.learned[method].request(self.context)
        if rng.random() < 0.15:
            options = {**options, "timeout": rng.choice(pools.TIMEOUTS)}
        return method, arguments, options

    def make_broken_envelope(self):
        value, msgid = mutation.broken_envelope(self.rng, self.next_msgid())
        return Request(wire.encode(value).data, "(envelope)", value, msgid, "invalid_argument")

    def make_too_large(self):
        """Return a request that breaks only the limit of bytes: it is refused, and the session continues."""
        value = bytes(self.run.limits["frame_bytes"] + self.rng.choice((0, 1, 100_000)))
        return self.pack("kv.put", ["fz-plain", "k1", value], code="too_large")

    def pack(self, method, params, code=None, is_notification=False):
        """Put a call into its envelope, and determine what its answer must be. None: it is undefined."""
        rng, limits = self.rng, self.run.limits
        if is_notification and method == "session.configure":
            self.errors = None
        odd_rng = rng if not self.script and rng.random() < 0.05 else None
        name = method.encode() if type(method) is str and rng.random() < 0.02 else method
        msgid = None if is_notification else self.next_msgid()
        encoded = wire.encode([2, name, params] if is_notification else [0, msgid, name, params], odd_rng)
        data = encoded.data
        request = Request(data, method if type(method) is str else repr(method), params, msgid, code,
                          timeout_of(params), not is_notification)
        is_too_large = len(data) > limits["frame_bytes"]
        breaks_structure = encoded.elements > limits["frame_elements"] or encoded.depth > limits["frame_depth"]
        if is_too_large and (breaks_structure or odd_rng or is_notification):
            return None  # which limit the daemon finds first is undefined
        if is_too_large:
            request.code = "too_large"
        if breaks_structure:
            if odd_rng:
                return None  # whether it can read the msgid is undefined
            request.code = "too_large"
            request.is_last = True
            request.is_answered = True
        return request

    # --- Sending -------------------------------------------------------------------------------------

    def ask(self):
        """Queue messages until the window is full."""
        if self.run.clock() < self.pauses_until:
            return
        while self.state is State.ASKING and len(self.pending) + len(self.nil_pending) < self.window:
            if self.left == 0:
                self.finish()
                return
            self.left -= 1
            request = self.pack(*self.script.pop()) if self.script is not None else self.make_request()
            if request is not None:
                self.enqueue(request)

    def enqueue(self, request):
        request.session_name = self.name
        if request.is_answered:
            if request.msgid is None:
                self.nil_pending.append(request)
            else:
                self.pending[request.msgid] = request
        self.run.note_request(request)
        self.queue.append([memoryview(request.data), request])
        if request.is_last:
            self.ending = Ending.LAST
            self.state = State.FINISHING

    def finish(self):
        """Make no more requests; begin the ending."""
        if self.state is not State.ASKING:
            return
        self.state = State.FINISHING
        rng = self.rng
        if self.ending is Ending.LAST:
            data, msgid = mutation.last_message(rng, self.next_msgid(), self.run.limits)
            request = Request(data, "(last message)", data, msgid)
            request.is_last = True
            self.enqueue(request)
        elif self.ending in (Ending.TRUNCATE, Ending.TRUNCATE_HALF):
            request = self.pack("kv.put", ["fz-plain", "k1", "v" * rng.choice((1, 100, 100_000))])
            part = request.data[:rng.randint(1, len(request.data) - 1)]
            self.queue.append([memoryview(part), None])
        elif self.ending is Ending.NOISE:
            self.is_noisy = True
            self.queue.append([memoryview(mutation.noise(rng)), None])

    def wants_to_write(self):
        return bool(self.queue) and self.state in (State.ASKING, State.FINISHING)

    def wants_to_read(self):
        return self.state is not State.OVER and self.run.clock() >= self.deaf_until

    def next_bytes(self):
        """Return what one write sends: a message, several, or a part of one."""
        front = self.queue[0][0]
        if self.style == "together":
            size, parts = 0, []
            for part, _ in self.queue:
                if size > 60_000:
                    break
                parts.append(part)
                size += len(part)
            return b"".join(parts) if len(parts) > 1 else front
        if self.style == "split" and len(front) > 1:
            return front[:max(self.timing_rng.randint(1, 40), len(front) // 20)]
        return front

    def on_writable(self):
        try:
            sent = self.socket.send(self.next_bytes())
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self.queue.clear()  # the daemon has closed; on_end checks whether it may
            return
        now = self.moved_at = self.run.clock()
        while sent:
            entry = self.queue[0]
            part = min(sent, len(entry[0]))
            entry[0] = entry[0][part:]
            sent -= part
            if not entry[0]:
                self.queue.popleft()
                if entry[1] is not None:
                    entry[1].sent_at = now
        self.go_on()

    def go_on(self):
        """After any event: make more requests, or take the next step of the ending."""
        self.ask()
        if self.state is not State.FINISHING or self.queue:
            return
        if self.ending in (Ending.ABORT, Ending.TRUNCATE):
            self.close()
        elif self.ending is Ending.LAST:
            self.state = State.LISTENING
        elif self.ending is not Ending.DRAIN or not (self.pending or self.nil_pending):
            self.shut_down()

    def shut_down(self):
        self.state = State.LISTENING
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the daemon has closed; on_end checks whether it may

    # --- Receiving -----------------------------------------------------------------------------------

    def on_readable(self):
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self.heard_at = self.moved_at = self.run.clock()
        if not data:
            self.on_end()
            return
        self.unpacker.feed(data)
        self.received += data
        while True:
            begin = self.unpacker.tell()
            try:
                message = self.unpacker.unpack()
            except wire.msgpack.OutOfData:
                break
            except (ValueError, wire.msgpack.UnpackException) as problem:
                raise self.wrong_bytes(problem) from problem
            del self.received[:self.unpacker.tell() - begin]
            self.on_message(message)
            self.unpacker.repeated = None
        self.go_on()

    def wrong_bytes(self, problem):
        """Return the failure for an answer that cannot be decoded, with its request if that is known."""
        wrong = Wrong(f"an answer cannot be decoded: {problem!r}; its bytes: {bytes(self.received[:500]).hex()}")
        try:
            lenient = wire.lenient_unpacker()
            lenient.feed(self.received)
            wrong.request = self.pending.get(lenient.unpack()[1])
        except (ValueError, TypeError, IndexError, wire.msgpack.UnpackException):
            pass
        return wrong

    def on_end(self):
        """Check that the daemon may close."""
        waiting = len(self.pending) + len(self.nil_pending)
        # It ends a session before it has the whole of a message that breaks a limit.
        may_close = self.state is State.LISTENING or (
            self.ending is Ending.LAST and all(request.is_last for _, request in self.queue))
        if self.is_noisy or self.run.is_stopping or (may_close and waiting == 0):
            self.close()
            return
        raise Wrong(f"the daemon closed the session with {waiting} calls in flight" if waiting else
                    "the daemon closed the session without a reason")

    def on_message(self, message):
        expect(type(message) is list and message, "the daemon sent {}", message)
        if message[0] == 2:
            self.expect_unique_keys()
            self.on_notification(message)
            return
        expect(len(message) == 4 and message[0] == 1, "the daemon sent {}", message)
        _, msgid, error, result = message
        expect(error is None or result is None, "an answer has an error and a result: {}", message)
        request = self.take_pending(msgid, message)
        if request is None:
            return
        try:
            if request.method != "kv.get_json" or error is not None:
                self.expect_unique_keys()
            if error is not None:
                expect(self.errors in (None, "text" if type(error) is str else "map"), "errors should be {}: {}",
                       self.errors, error)
            if type(error) is str:
                error = answers.read_text_error(error)
            if error is not None:
                answers.check_error(error)
                answers.check_outcome(request.method, error)
                if error["code"] == "unavailable":
                    self.pauses_until = self.run.clock() + PAUSE_S
            self.check_answer(request, error, result)
        except Wrong as wrong:
            wrong.request = request
            raise
        self.run.note_answer(request, error)
        if self.on_answer:
            self.on_answer(error)

    def expect_unique_keys(self):
        """Check that no map of the message had a key twice. The JSON that clients store may have such maps."""
        expect(self.unpacker.repeated is None, "an answer has a map with a key twice: {}", self.unpacker.repeated)

    def is_dismissal(self, msgid, error):
        """Return whether the daemon, which ends, has sent that it did not begin the calls without an answer."""
        if msgid is not None or not self.run.is_stopping:
            return False
        if type(error) is str:
            error = answers.read_text_error(error)
        return type(error) is dict and error.get("code") == "unavailable" and error.get("outcome") == "none"

    def take_pending(self, msgid, message):
        if self.is_dismissal(msgid, message[2]):
            return None
        if msgid is None:
            request = self.nil_pending.popleft() if self.nil_pending else None
        else:
            request = self.pending.pop(msgid, None)
        expect(request is not None or self.is_noisy, "an answer without a request, or a second one: {}", message)
        return request

    def check_answer(self, request, error, result):
        if request.code is not None:
            expect(error is not None and error["code"] == request.code, "the answer should be {} and is {}",
                   request.code, error if error is not None else result)
        if request.is_last:
            expect(error is not None and error["code"] in ("too_large", "invalid_argument"), "the answer is {}",
                   error if error is not None else result)
            return
        if error is None:
            answers.check_result(request.method, result, request.params)
            self.learn(request, result)

    def learn(self, request, result):
        params = request.params
        if request.method == "watch.start":
            expect(result not in self.watches, "two watches have the id {}", result)
            self.watches[result] = {"is_ready": False, "is_meta_only": wire.option_of(params, "meta_only") is True,
                                    "is_snapshot": wire.option_of(params, "snapshot") is True}
            self.context.watch_ids.append(result)
        elif request.method == "session.configure" and self.errors is not None:
            self.errors = result["errors"]
        elif request.method == "watch.stop":
            self.watches.pop(params[0].number if type(params[0]) is wire.Wide else params[0], None)
        elif request.method in ("lock.acquire", "lock.check"):
            if all(type(name) is str for name in params[:2]):
                self.context.learn_revision(params[0], params[1], result["token"])
                self.context.locks.append([*params[:2], result["token"]])
        elif type(result) is int and len(params) > 1 and all(type(name) is str for name in params[:2]):
            self.context.learn_revision(params[0], params[1], result)
        elif request.method == "kv.get" and result is not None and type(params[0]) is str:
            self.context.learn_revision(params[0], result["key"], result["revision"])

    def on_notification(self, message):
        expect(len(message) == 3 and type(message[2]) is list and message[2], "a notification is {}", message)
        _, method, params = message
        if method == "lock.lost":
            self.on_lock_lost(params)
            return
        watch = self.watches.get(params[0])
        expect(watch is not None, "a notification of an unknown watch: {}", message)
        if method == "watch.entries":
            expect(len(params) == 2 and type(params[1]) is list and params[1], "watch.entries has {}", params)
            for entry in params[1]:
                answers.check_entry(entry, watch["is_meta_only"])
        elif method == "watch.ready":
            expect(len(params) == 1 + watch["is_snapshot"] and not watch["is_ready"] and type(params[-1]) is int,
                   "watch.ready comes twice, or with {}", params)
            watch["is_ready"] = True
        else:
            expect(method == "watch.ended" and len(params) == 2, "a notification is {}", message)
            answers.check_error(params[1])
            del self.watches[params[0]]
        self.run.notifications += 1

    def on_lock_lost(self, params):
        expect(len(params) == 4 and all(type(name) is str for name in params[:2]) and type(params[2]) is int,
               "lock.lost has {}", params)
        answers.check_error(params[3])
        self.run.notifications += 1

    # --- Time ----------------------------------------------------------------------------------------

    def on_tick(self):
        """Be deaf for a while, at times. End what has lived long enough. Find answers that are missing."""
        now = self.run.clock()
        if self.state is State.ASKING and now - self.began_at > LIFE_S:
            self.finish()
        self.go_on()
        if self.state is State.OVER or now < self.deaf_until:
            return
        if not self.script and self.state is not State.LISTENING and self.timing_rng.random() < DEAF_SHARE:
            self.deaf_until = self.heard_at = self.moved_at = now + self.timing_rng.choice((0.2, 1, 3))
            return
        self.check_progress(now)

    def check_progress(self, now):
        """Check that no answer is overdue, and that the daemon reads."""
        for request in (*self.pending.values(), *self.nil_pending):
            if request.sent_at is None:
                continue
            # Back-pressure may hold a request up while the daemon answers those before it.
            since = max(request.sent_at, self.heard_at)
            if now > since + request.timeout + PATIENCE_S:
                wrong = Wrong(f"no answer {now - request.sent_at:.1f} s after the request, which has a timeout of "
                              f"{request.timeout} s at most")
                wrong.request = request
                raise wrong
        if self.queue or self.state is not State.ASKING:
            expect(now < self.moved_at + TIMEOUT_MAX_S + PATIENCE_S,
                   "the daemon does not read, answer or close for {} s", round(now - self.moved_at))

    def close(self):
        self.state = State.OVER
        self.socket.close()
