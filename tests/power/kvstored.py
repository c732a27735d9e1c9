"""A kvstored with an embedded nats-server, and a session with it."""
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


def die_with_parent():
    """Let the kernel kill this process when its parent ends. Called in a child, before exec."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Daemon:
    """The directory gets the configuration, the socket and the log; the data are below it, in data."""

    def __init__(self, program, server, directory, nats_settings):
        self.directory = pathlib.Path(directory)
        self.socket_path = str(self.directory / "socket")  # relative: 107 bytes is the limit
        self.log_path = self.directory / "log"
        configuration = {
            "listen": {"path": self.socket_path},
            "nats": {"data_dir": str(self.directory / "data"), "server": server, "ping_interval": 60, **nats_settings},
            "calls": {"timeout": 50}}
        path = self.directory / "kvstored.yaml"
        path.write_text(json.dumps(configuration, indent=1))  # JSON is YAML
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([program, "--config", str(path)], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, preexec_fn=die_with_parent)

    def connect(self):
        """Return a session once the daemon listens."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return Session(self.socket_path)
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise Failed("the daemon does not listen") from None
            time.sleep(0.005)

    def stop(self):
        """End the daemon in an orderly way."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE_S)
        if status != 0:
            raise Failed(f"the daemon ended with status {status}")

    def kill(self):
        """End the daemon at once, and with it its nats-server. Return when both have ended."""
        server = None
        try:
            server = os.pidfd_open(int((self.directory / "data/nats-server.pid").read_text()))
        except (OSError, ValueError):
            pass  # it has not started
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if server is not None:
            select.select([server], [], [], PATIENCE_S)
            os.close(server)


class Session:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(path)
        self.unpacker = msgpack.Unpacker()
        self.last_id = 0

    def send(self, method, params):
        """Send a request, and return its msgid."""
        self.last_id += 1
        self.socket.sendall(msgpack.packb([0, self.last_id, method, params]))
        return self.last_id

    def receive(self):
        """Return the next response: msgid, error, result."""
        while True:
            for message in self.unpacker:
                return message[1:]
            received = self.socket.recv(1 << 18)
            if not received:
                raise Failed("the daemon has ended the session")
            self.unpacker.feed(received)

    def call(self, method, *params):
        self.send(method, params)
        _, error, result = self.receive()
        if error:
            raise Failed(f"{method}{params[:2]}: {error['code']}: {error['message']}")
        return result

    def close(self):
        self.socket.close()
