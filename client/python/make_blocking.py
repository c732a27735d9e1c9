#!/usr/bin/env python3
"""Write kvstored/blocking.py, the blocking client, from kvstored/aio.py: the same code without async and await.

    client/python/make_blocking.py          write it
    client/python/make_blocking.py --check  only say whether it is up to date
"""
import pathlib
import re
import sys

PACKAGE = pathlib.Path(__file__).resolve().parent / "kvstored"
NOTICE = "# Written by make_blocking.py from aio.py: change that file.\n"

REPLACEMENTS = (
    (r"async def ", "def "),
    (r"async (with|for) ", r"\1 "),
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
    (r"class Bucket\(Generic\[V\]\)", "class Bucket(MappingView[V])"),
    (r"from \._blocking_channel import Channel\n", "from ._blocking_channel import Channel\n"),
    (r"(from \._core import Watch as CoreWatch\n)", r"\1from ._mapping import MappingView\n"),
    (r", Generic, Iterable, List", ", Iterable, Iterator, List"),
    (r"import \(Any, Iterator, ", "import (Any, "),
    (r"The function must not block: let it create a task\.", "The function runs in a thread of its own."),
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


def blocking_source():
    """Return the source of the blocking client."""
    source = (PACKAGE / "aio.py").read_text()
    source = source[source.index('"""\nfrom __future__') + 4:]
    for pattern, replacement in REPLACEMENTS:
        source = re.sub(pattern, replacement, source)
    return DOCSTRING + NOTICE + source


def main():
    """Write the file, or check it."""
    path = PACKAGE / "blocking.py"
    source = blocking_source()
    if sys.argv[1:] == ["--check"]:
        if not path.exists() or path.read_text() != source:
            sys.exit("client/python/kvstored/blocking.py is out of date: run client/python/make_blocking.py")
        return
    path.write_text(source)


if __name__ == "__main__":
    main()
