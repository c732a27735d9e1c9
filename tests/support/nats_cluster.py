#!/usr/bin/python3
"""Three nats-servers that know each other, for the tests.

    tests/support/nats_cluster.py NATS-SERVER DIRECTORY

starts them, with their data and logs in the directory, and writes DIRECTORY/urls when all of them listen. It ends them
when it is terminated. A line on standard input kills the first server.
"""
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

from daemon_process import die_with_parent

SERVERS = 3


def reserve_port():
    """Return a bound socket. While it is open the kernel gives its port only to a server that reuses addresses."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return bound


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main():
    program, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    reserved = [reserve_port() for _ in range(2 * SERVERS)]
    ports = [one.getsockname()[1] for one in reserved]
    routes = ",".join(f"nats://127.0.0.1:{port}" for port in ports[SERVERS:])
    processes = []
    for number in range(SERVERS):
        with open(directory / f"{number}.log", "wb") as log:
            processes.append(subprocess.Popen(
                [program, "-a", "127.0.0.1", "-p", str(ports[number]), "-js", "-sd", str(directory / str(number)),
                 "--server_name", f"n{number}", "--cluster_name", "tests", "--routes", routes,
                 "--cluster", f"nats://127.0.0.1:{ports[SERVERS + number]}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent))
    while not all(listens(port) for port in ports[:SERVERS]):
        time.sleep(0.02)
    fresh = directory / "urls.new"
    fresh.write_text(", ".join(f"nats://127.0.0.1:{port}" for port in ports[:SERVERS]) + "\n")
    fresh.rename(directory / "urls")
    if os.read(0, 1):
        processes[0].kill()
    signal.pause()


if __name__ == "__main__":
    main()
