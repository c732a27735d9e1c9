"""kvstored: a transactional, cached key-value store for the processes of a host.

    import kvstored

    client = kvstored.Client()
    client.put("settings", "color", "blue")
    print(client.get("settings", "color").text)

`Client` blocks, and any number of threads can use one. `kvstored.aio.Client` is the same for asyncio. A KvstoredError
is raised if a call fails; its classes are the codes of the protocol.
"""
from .blocking import Bucket, Client, Lock, Transaction, Watch
from .daemon import Config, DaemonInfo, DumpList, Health, Sessions, Stats
from .entries import BYTES, JSON, TEXT, BucketInfo, Codec, Counted, Duration, Entry, Value
from .errors import (AlreadyExists, BucketNotFound, Conflict, DeadlineExceeded, Internal, InvalidArgument,
                     KvstoredError, Locked, LockLost, NotAnInteger, NotHeld, NotJson, OutOfRange,
                     PermissionDenied, ResourceExhausted, RevisionGone, TooLarge, Unavailable, Unsupported)

__version__ = "0.1.0"

__all__ = [
    "BYTES", "JSON", "TEXT", "AlreadyExists", "Bucket", "BucketInfo", "BucketNotFound", "Client", "Codec", "Config",
    "Conflict", "Counted", "DaemonInfo", "DeadlineExceeded", "DumpList", "Duration", "Entry", "Health", "Internal",
    "InvalidArgument", "KvstoredError", "Lock", "LockLost", "Locked", "NotAnInteger", "NotHeld", "NotJson",
    "OutOfRange", "PermissionDenied", "ResourceExhausted", "RevisionGone", "Sessions", "Stats", "TooLarge",
    "Transaction", "Unavailable", "Unsupported", "Value", "Watch",
]
