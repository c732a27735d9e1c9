"""The daemon under test, and its embedded nats-server."""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import answers
import daemon_process
import wire

START_PATIENCE_S = 60
# Longer than calls.drain_timeout and the time that the nats-server needs to end.
STOP_PATIENCE_S = 60
FAULTS = re.compile(
    rb"AddressSanitizer|LeakSanitizer|^(?!.* nats-server: ).*runtime error:|Assertion `|internal error in|slow turn:",
    re.M)
# A crash of the nats-server is not the daemon's fault: the daemon starts it again.
NATS_PANIC = re.compile(rb"nats-server: (panic|fatal error): ")


class Daemon(daemon_process.Daemon):
    """A kvstored whose log is checked, and whose nats-server can be killed and called."""

    def __init__(self, program, nats_server, directory, log_path, sections):
        super().__init__(program, nats_server, directory, log_path, sections)
        self.log_checked = 0

    # --- Life ----------------------------------------------------------------------------------------

    def start_fresh(self):
        """Start it without data and with an empty log, and wait until it is ready."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self.log_path.write_bytes(b"")
        self.start({"ASAN_OPTIONS": "handle_abort=1",  # a failed assertion has a stack then
                    "LSAN_OPTIONS": "suppressions=tests/support/lsan.suppressions:print_suppressions=0"})
        end = time.monotonic() + START_PATIENCE_S
        while b"ready: kvstored" not in self.log_path.read_bytes():
            if self.has_ended() or time.monotonic() > end:
                raise answers.Wrong("the daemon does not become ready")
            time.sleep(0.02)

    def reload(self, sections):
        self.configure(sections)
        self.process.send_signal(signal.SIGHUP)

    def finish_stop(self):
        """Wait until the daemon has ended, and check its log and its exit status."""
        try:
            status = self.process.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise answers.Wrong(f"the daemon does not end within {STOP_PATIENCE_S} s of SIGTERM") from None
        self.check_log()
        answers.expect(status == 0, "the daemon ended with status {}", status)

    def clean_up(self):
        """Kill the daemon if it still runs, and remove its directory."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- The log -------------------------------------------------------------------------------------

    def check_log(self):
        """Check the new lines of the log for faults. Return whether they report a crash of the nats-server."""
        with open(self.log_path, "rb") as log:
            log.seek(self.log_checked)
            fresh = log.read()
        whole = fresh.rfind(b"\n") + 1
        self.log_checked += whole
        found = FAULTS.search(fresh[:whole])
        if found:
            line = fresh[fresh.rfind(b"\n", 0, found.start()) + 1:fresh.find(b"\n", found.end())]
            raise answers.Wrong(f"the daemon's log has a fault: {line.decode(errors='replace')}")
        return NATS_PANIC.search(fresh[:whole]) is not None

    def last_log_lines(self, count=40):
        """Return the end of the log. If it reports a fault, return the beginning of that."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        for index, line in enumerate(lines):
            if FAULTS.search(line.encode()):
                return lines[max(0, index - 5):index + count]
        return lines[-count:]

    # --- The nats-server -----------------------------------------------------------------------------

    def kill_nats(self):
        """Kill the embedded nats-server, and return its pid. None: it was not running."""
        pid = self.nats_pid()
        if pid is None:
            return None
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return None
        try:
            # The descriptor stays with this process. It is our server if its parent is our daemon.
            parent = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if parent != self.process.pid:
                return None
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            return pid
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def nats(self):
        """Connect to the embedded nats-server. Raise OSError if it is not running."""
        try:
            text = (self.data_path / "nats-server.conf").read_text()
            ports = json.loads(next(iter(sorted(self.data_path.glob("ports/*.ports")))).read_text())
            port = int(ports["nats"][0].rpartition(":")[2])
            user, password = (re.search(rf'{name}: "([^"]*)"', text)[1] for name in ("user", "password"))
        except (StopIteration, ValueError, KeyError, TypeError) as problem:
            raise OSError(f"the nats-server's port is not known: {problem}") from problem
        return Nats(port, user, password)


class Nats:
    """A NATS client that can call the JetStream API."""

    def __init__(self, port, user, password):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.file = self.socket.makefile("rb")
        self.inboxes = 0
        self.file.readline()  # INFO
        options = {"verbose": False, "user": user, "pass": password, "headers": True, "no_responders": True}
        self.socket.sendall(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")

    def api(self, subject, body):
        """Call the JetStream API, and return the JSON of the answer. Raise OSError if there is none."""
        self.inboxes += 1
        payload = json.dumps(body).encode() if body is not None else b""
        inbox = f"_INBOX.fuzz.{self.inboxes}"
        self.socket.sendall(f"SUB {inbox} {self.inboxes}\r\nPUB $JS.API.{subject} {inbox} {len(payload)}\r\n".encode() +
                            payload + b"\r\n")
        while True:
            line = self.file.readline()
            if not line:
                raise OSError("the nats-server closed the connection")
            words = line.split()
            if words[0] == b"PING":
                self.socket.sendall(b"PONG\r\n")
            elif words[0] == b"MSG":
                return json.loads(self.file.read(int(words[-1]) + 2))
            elif words[0] == b"HMSG" or line.startswith(b"-ERR"):
                raise OSError(f"the nats-server answers {line!r}")

    def make_old_bucket(self, bucket):
        """Recreate a bucket as clients do that know neither atomic batches nor TTLs of values."""
        self.api(f"STREAM.DELETE.KV_{bucket}", None)
        return self.api(f"STREAM.CREATE.KV_{bucket}", {
            "name": f"KV_{bucket}", "subjects": [f"$KV.{bucket}.>"], "max_msgs_per_subject": 5, "discard": "new",
            "allow_rollup_hdrs": True, "deny_delete": True, "allow_direct": True, "num_replicas": 1})

    def is_old(self, bucket):
        """Return whether the bucket exists and has no atomic batches."""
        config = self.api(f"STREAM.INFO.KV_{bucket}", None).get("config")
        return config is not None and not config.get("allow_atomic")

    def remove_buckets_but(self, kept):
        """Delete all other buckets: requests with mutated names create ever more of them."""
        for stream in self.api("STREAM.NAMES", None).get("streams") or ():
            if stream.removeprefix("KV_") not in kept:
                self.api(f"STREAM.DELETE.{stream}", None)

    def close(self):
        self.file.close()
        self.socket.close()


class Caller(daemon_process.Session):
    """A session that makes one call at a time, and checks the answers' form."""

    def __init__(self, socket_path, patience_s):
        super().__init__(socket_path, patience_s, wire.StrictUnpacker())

    def call(self, method, params):
        """Return the error and the result. Raise OSError if the daemon closes, or does not answer in time."""
        self.socket.sendall(wire.encode([0, 1, method, params]).data)
        message = self.receive_message()
        answers.expect(type(message) is list and len(message) == 4, "the daemon sent {}", message)
        if message[2] is not None:
            answers.check_error(message[2])
        return message[2], message[3]

    def exchange(self, data):
        """Send bytes, close, and return all that the daemon answers."""
        answer = b""
        try:
            self.socket.sendall(data)
            self.socket.shutdown(socket.SHUT_WR)
            while received := self.socket.recv(1 << 18):
                answer += received
        except ConnectionError:
            pass  # the daemon has ended the session, or itself
        self.close()
        return answer
