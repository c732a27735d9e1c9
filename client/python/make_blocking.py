#!/usr/bin/env python3
"""Write the blocking client from the one for asyncio: the same code without async and await.

    client/python/make_blocking.py          write blocking.py from aio.py, and _blocking_held.py from _aio_held.py
    client/python/make_blocking.py --check  only say whether they are up to date
"""
import pathlib
import re
import sys

PACKAGE = pathlib.Path(__file__).resolve().parent / "kvstored"
NOTICE = "# Written by make_blocking.py from {}: change that file.\n"

REPLACEMENTS = (
    (r"async def ", "def "),
    (r"async (with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"__aiter__", "__iter__"),
    (r"__anext__", "__next__"),
    (r"StopAsyncIteration", "StopIteration"),
    (r"AsyncIterator", "Iterator"),
    (r"Awaitable\[T\]", "T"),
    (r"Awaitable, ", ""),
    (r"_aio_channel", "_blocking_channel"),
    (r"_aio_lock", "_blocking_lock"),
    (r"_aio_held", "_blocking_held"),
    (r"class Bucket\(Generic\[V\]\)", "class Bucket(MappingView[V])"),
    (r"(from \._core import Watch as CoreWatch\n)", r"\1from ._mapping import MappingView\n"),
    (r", Generic, Iterable, List", ", Iterable, Iterator, List"),
    (r"import \(Any, Iterator, ", "import (Any, "),
    (r"(  +)of the lost session: write them again\. The function must not block: let it create a task\.",
     r"\1of the lost session: write them again. The function runs in a thread of its own.\n\n"
     r"\1The client notices the loss of its connection with its next call, or while one waits."),
)

DOCSTRING = '''"""The blocking client.

    import kvstored

    with kvstored.Client() as client:
        client.put("settings", "color", "blue")
        print(client.get("settings", "color").text)

One client has one connection, which any number of threads can use at the same time. After a fork, the child gets a
connection of its own with its first call.
"""
'''


def blocking_source(name, docstring):
    """Return the blocking form of a file. docstring: instead of its own; None: its own."""
    source = (PACKAGE / name).read_text()
    end = source.index("\nfrom __future__") + 1
    head, body = source[:end], source[end:]
    for pattern, replacement in REPLACEMENTS:
        body = re.sub(pattern, replacement, body)
    return (docstring or head) + NOTICE.format(name) + body


def main():
    """Write the files, or check them."""
    for name, target, docstring in (("aio.py", "blocking.py", DOCSTRING), ("_aio_held.py", "_blocking_held.py", None)):
        path = PACKAGE / target
        source = blocking_source(name, docstring)
        if sys.argv[1:] != ["--check"]:
            path.write_text(source)
        elif not path.exists() or path.read_text() != source:
            sys.exit(f"client/python/kvstored/{target} is out of date: run client/python/make_blocking.py")


if __name__ == "__main__":
    main()
