#!/usr/bin/env python3
"""Check that a function's name is a breakpoint: no two functions of one program have the same name.

Run by tests/lint.
"""
import collections
import re
import subprocess
import sys

# The folders whose files are linked into one program or library.
PROGRAMS = {
    "kvstored": ["daemon", "proto", "conf"],
    "libkvstore": ["client/lib", "proto"],
    "kvctl": ["client/kvctl", "proto"],
}

# A definition begins in the first column, has its name before the first parenthesis, and its brace on a line of its own.
DEFINITION = re.compile(r"^[a-z][\w\s*]*?\b(\w+)\((?:[^;{}]*?)\)\n\{", re.M)


def main():
    failed = 0
    for program, folders in PROGRAMS.items():
        listed = subprocess.run(["git", "ls-files", *folders], check=True, capture_output=True, text=True).stdout.split()
        places = collections.defaultdict(set)
        for path in listed:
            if path.endswith(".c"):
                with open(path, encoding="utf-8") as file:
                    for name in DEFINITION.findall(file.read()):
                        places[name].add(path)
        for name, paths in sorted(places.items()):
            if len(paths) > 1:
                failed = 1
                print(f"{program}: {name} is defined in {' and '.join(sorted(paths))}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
