"""A daemon for a class of tests."""
import atexit
import itertools
import os
import pathlib
import shutil
import unittest

import daemon_process
import kvstored

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = os.environ.get("BUILD", "build")
OUTPUT = pathlib.Path("build/python")
_numbers = itertools.count(1)


class DaemonTest(unittest.TestCase):
    """Each class has a daemon of its own, in self.daemon, whose log must have no fault at the end."""

    @classmethod
    def setUpClass(cls):
        """Start the daemon."""
        os.chdir(ROOT)
        name = f"{os.getpid()}-{next(_numbers)}"
        directory = OUTPUT / name
        directory.mkdir(parents=True)
        server = pathlib.Path("build/nats-server.path").read_text().strip()
        cls.daemon = daemon_process.Daemon(
            f"{BUILD}/kvstored", server, directory, OUTPUT / f"{name}.log",
            {"nats": {"sync_interval": 60}, "calls": {"timeout": 60}, "log": {"slow_turn": 1}})
        atexit.register(cls.daemon.kill)
        cls.start_daemon()
        cls.daemon.connect().close()
        cls.path = cls.daemon.socket_path

    @classmethod
    def tearDownClass(cls):
        """Stop it, and look at its log."""
        cls.stop_daemon()
        log = cls.daemon.log_path.read_text(errors="replace")
        for fault in ("AddressSanitizer", "LeakSanitizer", "runtime error:", "internal error", "slow turn:"):
            assert fault not in log, log[log.index(fault):][:3000]
        shutil.rmtree(cls.daemon.directory)

    @classmethod
    def start_daemon(cls):
        """Start it. It ends with the thread that has started it."""
        cls.daemon.start({"LSAN_OPTIONS": "suppressions=tests/support/lsan.suppressions:print_suppressions=0"})

    @classmethod
    def stop_daemon(cls):
        """End it in an orderly way. A signal that comes before it listens would end it at once."""
        cls.daemon.connect().close()
        cls.daemon.stop()

    def new_client(self, **options):
        """Return a client with this daemon, whose calls may take long on a busy machine."""
        return kvstored.Client(self.path, timeout=daemon_process.PATIENCE_S, **options)

    def end_daemon(self, kill):
        """End it in an orderly way, or at once."""
        if kill:
            self.daemon.kill()
        else:
            self.stop_daemon()

    def restart(self, kill=False):
        """End it, and start it again."""
        self.end_daemon(kill)
        self.start_daemon()
