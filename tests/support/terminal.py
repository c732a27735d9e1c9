#!/usr/bin/env python3
"""A program on a terminal of its own, for the tests.

    tests/support/terminal.py COLUMNS PROGRAM [ARGUMENT]...

runs it and copies what it prints. The exit status is the program's.
"""
import codecs
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

PATIENCE_S = 60


class Terminal:
    """A program on a terminal. What it prints is collected in output."""

    def __init__(self, arguments, directory, environment, rows=24, columns=80):
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.chdir(directory)
            os.execvpe(arguments[0], arguments, {**os.environ, **environment})
        self.output = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def resize(self, rows, columns):
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text):
        """Type a text. Output from before is forgotten."""
        self.output = ""
        os.write(self.descriptor, text.encode())

    def read(self, patience_s):
        """Read what comes. Return False if nothing does, or if the program has ended."""
        if not select.select([self.descriptor], [], [], patience_s)[0]:
            return False
        try:
            part = os.read(self.descriptor, 65536)
        except OSError:
            return False
        self.output += self.decoder.decode(part)
        return bool(part)

    def wait_until(self, is_done, patience_s=PATIENCE_S):
        """Read until is_done(output). Return whether that has come."""
        end = time.monotonic() + patience_s
        while not is_done(self.output):
            if not self.read(0.1) and (time.monotonic() > end or not self.is_running()):
                return is_done(self.output)
        return True

    def wait_for(self, wanted, patience_s=PATIENCE_S):
        return self.wait_until(lambda output: wanted in output, patience_s)

    def is_running(self):
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait_end(self):
        """Read to the end. Return the exit status, negative for a signal; None: the program goes on."""
        end = time.monotonic() + PATIENCE_S
        while self.is_running():
            if not self.read(0.1) and time.monotonic() > end:
                return None
        while self.read(0):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self):
        """Kill the program if it still runs."""
        try:
            if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass
        os.close(self.descriptor)


def main():
    terminal = Terminal(sys.argv[2:], ".", {}, columns=int(sys.argv[1]))
    status = terminal.wait_end()
    sys.stdout.write(terminal.output.replace("\r\n", "\n"))
    terminal.close()
    return 1 if status is None else status


if __name__ == "__main__":
    sys.exit(main())
