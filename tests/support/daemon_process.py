"""A kvstored with an embedded nats-server, and sessions with it: what the tests in Python share.

Programs add this directory to sys.path before they import it.
"""
import ctypes
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import time

import msgpack

PATIENCE_S = 60
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Failed(Exception):
    """The daemon does not do what it must."""


class SessionEnded(Failed, OSError):
    """The daemon has closed the connection."""


def die_with_parent():
    """Let the kernel kill this process when its parent ends. Called in a child, before exec."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Daemon:
    """A kvstored whose directory has the configuration, the socket and, below data, the data.

    The path of the directory is relative: 107 bytes is the limit of a socket's. sections are the configuration besides
    listen, nats.data_dir and nats.server_binary.
    """

    def __init__(self, program, nats_server, directory, log_path, sections):
        self.program = program
        self.nats_server = nats_server
        self.directory = pathlib.Path(directory)
        self.log_path = pathlib.Path(log_path)
        self.socket_path = str(self.directory / "socket")
        self.data_path = self.directory / "data"
        self.fixed_sections = sections
        self.process = None

    def configure(self, sections):
        """Write the configuration: the sections given to the constructor, changed by these."""
        merged = {name: dict(settings) for name, settings in self.fixed_sections.items()}
        merged["listen"] = {"path": self.socket_path}
        merged["nats"] = {**merged.get("nats", {}), "data_dir": str(self.data_path), "server_binary": self.nats_server}
        for name, settings in sections.items():
            merged[name] = {**merged.get(name, {}), **settings} if isinstance(settings, dict) else settings
        fresh = self.directory / "kvstored.yaml.new"
        fresh.write_text(json.dumps(merged, indent=1))  # JSON is YAML
        fresh.rename(self.directory / "kvstored.yaml")

    def start(self, environment=None):
        """Write the configuration and start the program, with more environment. Its log is appended to the file."""
        self.configure({})
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "--config", str(self.directory / "kvstored.yaml")], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env={**os.environ, **(environment or {})}, preexec_fn=die_with_parent)

    def has_ended(self):
        return self.process.poll() is not None

    def connect(self):
        """Return a session once the daemon listens."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return Session(self.socket_path)
            except OSError:
                if self.has_ended() or time.monotonic() > end:
                    raise Failed("the daemon does not listen") from None
            time.sleep(0.005)

    def nats_pid(self):
        """Return the pid that the embedded nats-server has written. None: there is none."""
        try:
            return int((self.data_path / "nats-server.pid").read_text())
        except (OSError, ValueError):
            return None

    def begin_stop(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """End the daemon in an orderly way."""
        self.begin_stop()
        status = self.process.wait(PATIENCE_S)
        if status != 0:
            raise Failed(f"the daemon ended with status {status}")

    def kill(self):
        """End the daemon at once, and with it its nats-server. Return when both have ended."""
        server = None
        if self.process is None:
            return
        try:
            server = os.pidfd_open(self.nats_pid() or 0)
        except OSError:
            pass  # it has not started
        if not self.has_ended():
            self.process.kill()
        self.process.wait()
        if server is not None:
            select.select([server], [], [], PATIENCE_S)
            os.close(server)


class Session:
    """A connection to the daemon's socket. Its sockets and unpacker may be used directly."""

    def __init__(self, socket_path, patience_s=PATIENCE_S, unpacker=None):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(patience_s)
        self.socket.connect(socket_path)
        self.unpacker = unpacker or msgpack.Unpacker(max_buffer_size=1 << 28)
        self.last_id = 0

    def send(self, method, params):
        """Send a request, and return its msgid."""
        self.last_id += 1
        self.socket.sendall(msgpack.packb([0, self.last_id, method, params]))
        return self.last_id

    def receive_message(self):
        """Return the next message. Raise SessionEnded, or TimeoutError if none comes in time."""
        while True:
            for message in self.unpacker:
                return message
            received = self.socket.recv(1 << 18)
            if not received:
                raise SessionEnded("the daemon has ended the session")
            self.unpacker.feed(received)

    def receive(self):
        """Return the next response: msgid, error, result. The session must have no watches."""
        return self.receive_message()[1:]

    def call(self, method, *params):
        """Make a call, and return its result. Raise Failed if it is an error."""
        self.send(method, params)
        _, error, result = self.receive()
        if error:
            raise Failed(f"{method}{params[:2]}: {error['code']}: {error['message']}")
        return result

    def close(self):
        self.socket.close()
