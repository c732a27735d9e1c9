#!/usr/bin/env python3
"""Check that no include goes up: a lower room never includes a header of a higher one.

    tests/rooms.py           print each include that goes up, and each file that is too long; exit status 1 if any
    tests/rooms.py --graph   print which room includes which

A room is a folder. MAY_USE lists for each room the rooms that it may include; a room may always include itself. The
order is explained in docs/architecture.md. Run by tests/lint.
"""
import os
import re
import subprocess
import sys

MAX_LINES = 600

GROUND = ["proto", "conf", "daemon/base"]
NATS = GROUND + ["daemon/nats"]
BUCKET = NATS + ["daemon/store", "daemon/store/bucket"]
READ = BUCKET + ["daemon/store/read"]

MAY_USE = {
    "proto": [],
    "conf": [],
    "daemon/base": ["proto", "conf"],
    "daemon/nats": GROUND,
    "daemon/embedded": GROUND + ["daemon/nats"],
    # store.c, the facade, may include every room of the store: see FACADES.
    "daemon/store": NATS,
    "daemon/store/bucket": BUCKET,
    "daemon/store/read": READ,
    "daemon/store/write": READ + ["daemon/store/write"],
    "daemon/store/follow": READ + ["daemon/store/follow"],
    "daemon/store/compact": READ + ["daemon/store/write", "daemon/store/follow", "daemon/store/compact"],
    "daemon/store/lease": READ + ["daemon/store/write", "daemon/store/follow", "daemon/store/lease"],
    "daemon/transport": GROUND,
    "daemon/monitor": NATS
    + ["daemon/embedded", "daemon/transport", "daemon/store", "daemon/store/bucket", "daemon/store/read"]
    + ["daemon/store/write", "daemon/store/follow", "daemon/store/lease"],
    "daemon/rpc": GROUND + ["daemon/transport"],
    "daemon/handlers": NATS
    + ["daemon/monitor", "daemon/transport", "daemon/rpc", "daemon/store", "daemon/store/bucket", "daemon/store/read"]
    + ["daemon/store/write", "daemon/store/follow", "daemon/store/compact", "daemon/store/lease"],
    "client/lib": ["proto"],
    "client/adapters": ["client/lib"],
    "client/kvctl": ["proto", "client/lib"],
    "client/examples": ["client/lib", "client/adapters"],
}

# Files that put rooms together, and so may include any room of their tree.
FACADES = {
    "daemon/main.c": "daemon/",
    "daemon/core.c": "daemon/",
    "daemon/core.h": "daemon/",
    "daemon/reload.c": "daemon/",
    "daemon/reload.h": "daemon/",
    "daemon/store/store.c": "daemon/store",
}

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def room_of(path):
    return os.path.dirname(path)


def may_include(path, included):
    room = room_of(path)
    target = room_of(included) or room  # the headers that are installed include each other without a folder
    if target == room or target in MAY_USE.get(room, []):
        return True
    if path in FACADES:
        return target.startswith(FACADES[path]) or target in GROUND + ["daemon/nats"]
    return False


def find_circles(graph):
    """Return the circles of at least two rooms, each once, as lists of rooms."""
    circles, done = [], set()

    def visit(room, path):
        if room in path:
            circles.append(path[path.index(room):] + [room])
            return
        if room in done:
            return
        for target in sorted(graph.get(room, ())):
            visit(target, path + [room])
        done.add(room)

    for room in sorted(graph):
        visit(room, [])
    return circles


def main():
    listed = subprocess.run(["git", "ls-files", "proto", "conf", "daemon", "client"], check=True, capture_output=True,
                            text=True).stdout.split()
    sources = [path for path in listed if path.endswith((".c", ".h")) and os.path.exists(path)]
    graph, findings = {}, []
    for path in sources:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        lines = text.count("\n")
        if lines > MAX_LINES:
            findings.append(f"{path}: {lines} lines, at most {MAX_LINES}: find its second subject")
        if room_of(path) not in MAY_USE and path not in FACADES:
            findings.append(f"{path}: the room {room_of(path)} is not in MAY_USE of tests/rooms.py")
        for included in INCLUDE.findall(text):
            if "/" in included and path not in FACADES and room_of(included) != room_of(path):
                graph.setdefault(room_of(path), set()).add(room_of(included))
            if not may_include(path, included):
                findings.append(f"{path}: includes {included}: {room_of(path)} may not use {room_of(included)}")
    if "--graph" in sys.argv[1:]:
        for room in sorted(graph):
            print(f"{room}: {' '.join(sorted(graph[room]))}")
        return 0
    findings += ["circle of rooms: " + " -> ".join(circle) for circle in find_circles(graph)]
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
