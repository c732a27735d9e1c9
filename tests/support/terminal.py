#!/usr/bin/env python3
"""Run a command on a terminal of its own, and copy what it prints.

    tests/support/terminal.py COLUMNS PROGRAM [ARGUMENT]...

The exit status is the program's.
"""
import fcntl
import os
import pty
import struct
import sys
import termios


def main():
    columns, command = int(sys.argv[1]), sys.argv[2:]
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(sys.stdout.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.execvp(command[0], command)
    while True:
        try:
            output = os.read(terminal, 65536)
        except OSError:  # Linux reports the end of the other side in this way
            break
        if not output:
            break
        sys.stdout.buffer.write(output.replace(b"\r\n", b"\n"))
    sys.stdout.buffer.flush()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
