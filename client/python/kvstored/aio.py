"""The asyncio client.

    import kvstored.aio

    async with kvstored.aio.Client() as client:
        await client.put("settings", "color", "blue")
        entry = await client.get("settings", "color")
        print(entry.text)

One client has one connection, which any number of tasks can use at the same time. It belongs to one event loop. A
forked process needs a client of its own.
"""
from __future__ import annotations

import random
import time
from typing import (Any, AsyncIterator, Awaitable, Callable, Dict, Generic, Iterable, List, Mapping, Optional, Sequence,
                    Tuple, Type, TypeVar, Union, overload)

from ._aio_channel import Channel
from ._aio_lock import Lock
from ._core import Request
from ._core import Watch as CoreWatch
from ._paths import AnyPath
from ._text import required_filter, sent_text
from .daemon import (Config, DaemonInfo, DumpList, Health, Sessions, Stats, config_of, dump_of, health_of,
                     info_of_daemon, sessions_of, stats_of)
from .entries import (BYTES, BucketInfo, Codec, Counted, Duration, Entry, Value, decoded, entries_of, entry_or_none,
                      info_of, infos_of, integer_of, key_list, mapping_answer, mapping_of, names_of, seconds_of,
                      settings_of, text_answer, ttl_of, value_map, value_of)
from .errors import AlreadyExists, Conflict, InvalidArgument, KvstoredError, TooLarge, error_of

__all__ = ["Bucket", "Client", "Lock", "Transaction", "Watch"]

T = TypeVar("T")
V = TypeVar("V")

_NOTHING: Any = object()

#: Their size is far below the default of limits.frame_bytes.
KEYS_PER_PAGE = 1024

#: The longest pause before a transaction is tried again: this many times what the commit took, which grows with the
#: number of clients that change the same keys, and at most so many seconds.
PAUSE_COMMITS, PAUSE_S = 4, 2.0


def _same(result: Any) -> Any:
    return result


def _integer_or_none(result: Any) -> Optional[int]:
    return None if result is None else integer_of(result)


def _results_of(result: Dict[str, Dict[str, Any]]) -> Dict[str, Union[int, KvstoredError]]:
    return {key: one["revision"] if "revision" in one else error_of(one["error"]) for key, one in result.items()}


class Client:
    """A connection to kvstored.

    path       of the socket; by default $KVSTORED_SOCKET, or /run/kvstored/kvstored.sock
    timeout    of calls that name none
    reconnect  True: if the connection is lost, connect again. Calls in flight wait until their timeouts. Those that
               only read, those that the daemon has not begun, and writes of values are sent again, and done at most
               once. Watches continue after their last entry.
               False: once the connection is lost, every call fails with Unavailable.

    The first call connects. Methods that make a call take its `timeout`, in seconds or as a timedelta, and raise a
    KvstoredError if it fails. A watch has no timeout.
    """

    def __init__(self, path: Optional[AnyPath] = None, *, timeout: Duration = 5.0, reconnect: bool = True) -> None:
        timeout_s = seconds_of(timeout)
        if timeout_s is None:
            raise TypeError("timeout: seconds or a timedelta, not None")
        self._channel = Channel(path, reconnect=reconnect, timeout_s=timeout_s)

    async def __aenter__(self) -> Client:
        await self._channel.connect()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Connect now, and not with the first call."""
        await self._channel.connect()

    async def close(self) -> None:
        """Close the connection. Calls in flight and watches fail with Unavailable."""
        await self._channel.close()

    def on_reconnected(self, function: Callable[[], None]) -> None:
        """Call the function each time that the client has connected again. The daemon has deleted the ephemeral keys
        of the lost session: write them again. The function must not block: let it create a task."""
        self._channel.on_reconnected.append(function)

    def on_ephemeral_lost(self, function: Callable[[str, str, KvstoredError], None]) -> None:
        """Call the function with bucket, key and reason if an ephemeral key is lost while the connection lasts."""
        self._channel.on_ephemeral_lost = function

    async def _call(self, request: Request[T], timeout: Optional[Duration]) -> T:
        return await self._channel.call(request, seconds_of(timeout))

    async def call(self, method: str, *arguments: Any, timeout: Optional[Duration] = None, **options: Any) -> Any:
        """Make any call of the protocol, and return its result as MessagePack gives it."""
        return await self._call(Request(method, list(arguments), options, _same), timeout)

    # --- Reading -----------------------------------------------------------------------------------

    async def get(self, bucket: str, key: str, *, revision: Optional[int] = None, wait_above: Optional[int] = None,
                  consistency: Optional[str] = None, timeout: Optional[Duration] = None) -> Optional[Entry]:
        """Return the entry of a key; None if the key does not exist.

        revision     the entry at this revision, if the bucket's history still has it
        wait_above   wait until the key has a higher revision, or until the timeout. A deletion is returned as an entry
        consistency  "direct" (the default), "leader" or "cached"
        """
        return await self._call(Request("kv.get", [bucket, key], {
            "revision": revision, "wait_above": wait_above, "consistency": consistency},
            lambda fields: entry_or_none(fields, bucket)), timeout)

    async def get_json(self, bucket: str, key: str, *, revision: Optional[int] = None,
                       consistency: Optional[str] = None, timeout: Optional[Duration] = None) -> Any:
        """Return the value of a key, parsed as JSON; None if the key does not exist. Raises NotJson.

        revision  the value at this revision, if the bucket's history still has it
        """
        entry = await self.get(bucket, key, revision=revision, consistency=consistency, timeout=timeout)
        return None if entry is None else entry.json()

    async def history(self, bucket: str, key: str, *, timeout: Optional[Duration] = None) -> List[Entry]:
        """Return the entries of a key that the bucket still has, the oldest first. Markers are among them."""
        return await self._call(Request(
            "kv.history", [bucket, key], {}, lambda maps: entries_of(maps, bucket)), timeout)

    async def keys(self, bucket: str, filter: Optional[str] = None, *, limit: Optional[int] = None,
                   after: Optional[str] = None, consistency: Optional[str] = None,
                   timeout: Optional[Duration] = None) -> List[str]:
        """Return the keys that match the filter, in byte order: at most `limit`, and only those after `after`."""
        return await self._call(Request("kv.keys", [bucket], {
            "filter": filter, "limit": limit, "after": sent_text(after), "consistency": consistency},
            names_of), timeout)

    async def entries(self, bucket: str, filter: Optional[str] = None, *, limit: Optional[int] = None,
                      after: Optional[str] = None, consistency: Optional[str] = None,
                      timeout: Optional[Duration] = None) -> List[Entry]:
        """Return a page of entries in the byte order of their keys, of one point in time.

        Only an empty page means that there are no more. `iterate` reads all pages.
        """
        return await self._call(Request("kv.entries", [bucket], {
            "filter": filter, "limit": limit, "after": sent_text(after), "consistency": consistency},
            lambda maps: entries_of(maps, bucket)), timeout)

    async def iterate(self, bucket: str, filter: Optional[str] = None, *, consistency: Optional[str] = None,
                      timeout: Optional[Duration] = None) -> AsyncIterator[Entry]:
        """Iterate over all entries that match the filter, page by page."""
        after: Optional[str] = None
        while True:
            page = await self.entries(bucket, filter, after=after, consistency=consistency, timeout=timeout)
            if not page:
                return
            for entry in page:
                yield entry
            after = page[-1].key

    # --- Writing -----------------------------------------------------------------------------------

    async def put(self, bucket: str, key: str, value: Value, *, ttl: Optional[Duration] = None, keep_ttl: bool = False,
                  headers: Optional[Mapping[str, str]] = None, ephemeral: bool = False,
                  timeout: Optional[Duration] = None) -> int:
        """Write a value, and return its revision.

        ttl        the value expires after this time, in whole seconds
        keep_ttl   keep the expiry that the key has
        headers    texts that are stored with the value
        ephemeral  the daemon deletes the key when the connection ends: see on_reconnected
        """
        return await self._call(Request("kv.put", [bucket, key, value_of(value)], {
            "ttl": ttl_of(ttl), "keep_ttl": keep_ttl or None, "headers": headers or None,
            "ephemeral": ephemeral or None}, integer_of), timeout)

    async def create(self, bucket: str, key: str, value: Value, *, ttl: Optional[Duration] = None,
                     headers: Optional[Mapping[str, str]] = None, ephemeral: bool = False,
                     timeout: Optional[Duration] = None) -> int:
        """Write a value if the key does not exist, and return its revision. Otherwise raise AlreadyExists."""
        return await self._call(Request("kv.create", [bucket, key, value_of(value)], {
            "ttl": ttl_of(ttl), "headers": headers or None, "ephemeral": ephemeral or None}, integer_of), timeout)

    async def update(self, bucket: str, key: str, value: Value, revision: int, *, ttl: Optional[Duration] = None,
                     keep_ttl: bool = False, headers: Optional[Mapping[str, str]] = None,
                     timeout: Optional[Duration] = None) -> int:
        """Write a value if the key is at this revision, and return the new one. Otherwise raise Conflict."""
        return await self._call(Request("kv.update", [bucket, key, value_of(value), revision], {
            "ttl": ttl_of(ttl), "keep_ttl": keep_ttl or None, "headers": headers or None}, integer_of), timeout)

    async def delete(self, bucket: str, key: str, *, revision: Optional[int] = None, if_exists: bool = False,
                     timeout: Optional[Duration] = None) -> Optional[int]:
        """Delete a key, and return the revision of the marker that hides it.

        revision   raise Conflict if the key is at another revision
        if_exists  write no marker, and return None, if the key does not exist
        """
        return await self._call(Request("kv.delete", [bucket, key], {
            "revision": revision, "if_exists": if_exists or None}, _integer_or_none), timeout)

    async def purge(self, bucket: str, key: str, *, revision: Optional[int] = None, ttl: Optional[Duration] = None,
                    timeout: Optional[Duration] = None) -> int:
        """Delete a key and its history, and return the revision of the marker. ttl: the marker expires after it."""
        return await self._call(Request("kv.purge", [bucket, key], {
            "revision": revision, "ttl": ttl_of(ttl)}, integer_of), timeout)

    async def touch(self, bucket: str, key: str, ttl: Duration, *, revision: Optional[int] = None,
                    timeout: Optional[Duration] = None) -> Optional[int]:
        """Let the value of a key expire after ttl; 0: never. Return its new revision; None: the key does not exist."""
        return await self._call(Request("kv.touch", [bucket, key, ttl_of(ttl)], {
            "revision": revision}, _integer_or_none), timeout)

    async def increment(self, bucket: str, key: str, delta: int = 1, *, initial: Optional[int] = None,
                        ttl: Optional[Duration] = None, keep_ttl: bool = False,
                        timeout: Optional[Duration] = None) -> Counted:
        """Add delta to the number of a key, and return the new number and its revision.

        initial  what a key that does not exist counts as; 0 by default
        ttl      the number expires after this time. With keep_ttl, only if the key does not exist or has no TTL
        """
        return await self._call(Request("kv.increment", [bucket, key, delta], {
            "initial": initial, "ttl": ttl_of(ttl), "keep_ttl": keep_ttl or None},
            lambda result: Counted(integer_of(result[0]), integer_of(result[1]))), timeout)

    # --- Many keys ---------------------------------------------------------------------------------

    async def bulk_get(self, bucket: str, keys: Iterable[str], *, consistency: Optional[str] = None,
                       timeout: Optional[Duration] = None) -> Dict[str, Optional[Entry]]:
        """Return the entries of up to 16,384 keys, with None for those that do not exist.

        Up to 1,024 keys are read at one point in time.
        """
        return await self._call(Request("bulk.get", [bucket, key_list(keys)], {
            "consistency": consistency}, lambda result: {
                key: entry_or_none(fields, bucket) for key, fields in result.items()}), timeout)

    async def bulk_put(self, bucket: str, values: Mapping[str, Value], *, ttl: Optional[Duration] = None,
                       timeout: Optional[Duration] = None) -> Dict[str, Union[int, KvstoredError]]:
        """Write up to 16,384 values. The result has, for each key, its revision or its error: nothing is raised for
        one key."""
        return await self._call(Request("bulk.put", [bucket, value_map(values)], {"ttl": ttl_of(ttl)}, _results_of),
                                timeout)

    async def bulk_delete(self, bucket: str, keys: Iterable[str], *,
                          timeout: Optional[Duration] = None) -> Dict[str, Union[int, KvstoredError]]:
        """Delete up to 16,384 keys. The result has, for each key, the revision of its marker or its error."""
        return await self._call(Request("bulk.delete", [bucket, key_list(keys)], {}, _results_of), timeout)

    async def delete_matching(self, bucket: str, filter: str, *, timeout: Optional[Duration] = None) -> int:
        """Delete each key that matches the filter, and return their number. This is not atomic."""
        return await self._call(Request("bulk.delete", [bucket], {"filter": required_filter(filter)}, integer_of),
                                timeout)

    # --- Buckets -----------------------------------------------------------------------------------

    async def bucket_create(self, bucket: str, *, update: bool = False, force: bool = False,
                            timeout: Optional[Duration] = None, **settings: Any) -> BucketInfo:
        """Create a bucket. Settings are those of the protocol: history, ttl, max_bytes, storage, …

        If the bucket exists with the same settings, return its info; with others, raise AlreadyExists. With update,
        change the given settings of an existing bucket.
        """
        return await self._call(Request("bucket.create", [bucket], {
            **settings_of(settings), "update": update or None, "force": force or None}, info_of), timeout)

    async def bucket_update(self, bucket: str, *, force: bool = False, timeout: Optional[Duration] = None,
                            **settings: Any) -> BucketInfo:
        """Change the given settings. force: also if that removes stored values at once."""
        return await self._call(Request("bucket.update", [bucket], {
            **settings_of(settings), "force": force or None}, info_of), timeout)

    async def bucket_delete(self, bucket: str, *, timeout: Optional[Duration] = None) -> None:
        """Delete a bucket with all its values."""
        await self._call(Request("bucket.delete", [bucket], {}, _same), timeout)

    async def bucket_purge(self, bucket: str, *, timeout: Optional[Duration] = None) -> None:
        """Remove all values of a bucket. Watches on other hosts learn of it later."""
        await self._call(Request("bucket.purge", [bucket], {}, _same), timeout)

    async def purge_matching(self, bucket: str, filter: str, *, timeout: Optional[Duration] = None) -> int:
        """Purge each key that matches the filter, and return their number. This is not atomic."""
        return await self._call(Request("bucket.purge", [bucket], {"filter": required_filter(filter)}, integer_of),
                                timeout)

    async def bucket_compact(self, bucket: str, *, older_than: Optional[Duration] = None,
                             timeout: Optional[Duration] = None) -> int:
        """Remove delete markers that are older than this, and return their number."""
        return await self._call(Request("bucket.compact", [bucket], {
            "older_than": seconds_of(older_than, "older_than")}, integer_of), timeout)

    async def bucket_info(self, bucket: str, *, timeout: Optional[Duration] = None) -> BucketInfo:
        """Return the settings of a bucket and what is in it."""
        return await self._call(Request("bucket.info", [bucket], {}, info_of), timeout)

    async def bucket_list(self, filter: Optional[str] = None, *, limit: Optional[int] = None,
                          after: Optional[str] = None, timeout: Optional[Duration] = None) -> List[str]:
        """Return the names of the buckets that match the filter, in byte order."""
        return await self._call(Request("bucket.list", [], {
            "filter": filter, "limit": limit, "after": after}, names_of), timeout)

    async def bucket_infos(self, filter: Optional[str] = None, *, limit: Optional[int] = None,
                           after: Optional[str] = None,
                           timeout: Optional[Duration] = None) -> Dict[str, Union[BucketInfo, KvstoredError]]:
        """Return a page of the infos of the buckets that match the filter, by their names in byte order.

        A bucket whose info cannot be read has its error instead. A page has at most `limit` buckets (1 to 1,000, the
        default). Pass the last name as `after` to get the next page, until one is empty.
        """
        return await self._call(Request("bucket.list", [], {
            "filter": filter, "limit": limit, "after": after, "infos": True}, infos_of), timeout)

    # --- The daemon --------------------------------------------------------------------------------

    async def health(self, bucket: Optional[str] = None, *, timeout: Optional[Duration] = None) -> Health:
        """Return whether the daemon, or a bucket, can do its work."""
        return await self._call(Request("health.check", [] if bucket is None else [bucket], {}, health_of), timeout)

    async def info(self, *, timeout: Optional[Duration] = None) -> DaemonInfo:
        """Return version, limits and features of the daemon."""
        return await self._call(Request("daemon.info", [], {}, info_of_daemon), timeout)

    async def stats(self, *, timeout: Optional[Duration] = None) -> Stats:
        """Return the statistics of the daemon."""
        return await self._call(Request("daemon.stats", [], {}, stats_of), timeout)

    async def metrics(self, *, timeout: Optional[Duration] = None) -> str:
        """Return the metrics of the daemon, as a text in the format of OpenMetrics 1.0."""
        return await self._call(Request("daemon.metrics", [], {}, text_answer), timeout)

    async def dump(self, *, limit: Optional[int] = None, timeout: Optional[Duration] = None) -> Dict[str, DumpList]:
        """Return what the daemon is doing now: lists of sessions, calls, requests to NATS, and more.

        limit  items of each list, 1 to 1,000; 100 by default
        """
        return await self._call(Request("daemon.dump", [], {"limit": limit}, dump_of), timeout)

    async def config(self, *, timeout: Optional[Duration] = None) -> Config:
        """Return the configuration in effect, and the origin of each value."""
        return await self._call(Request("daemon.config", [], {}, config_of), timeout)

    async def sessions(self, *, sort: Optional[str] = None, limit: Optional[int] = None,
                       timeout: Optional[Duration] = None) -> Sessions:
        """Return the sessions of the daemon: all, or those of the same user.

        sort   the largest first by "rate" (the default), "calls", "in_flight", "bytes", "traffic", "watches" or "age"
        limit  1 to 1,000; 100 by default
        """
        return await self._call(Request("daemon.sessions", [], {"sort": sort, "limit": limit}, sessions_of), timeout)

    async def kill_session(self, session_id: int, *, timeout: Optional[Duration] = None) -> None:
        """End the session of another client. A client with `reconnect` connects again."""
        await self._call(Request("daemon.kill_session", [session_id], {}, _same), timeout)

    async def session_configure(self, *, errors: Optional[str] = None,
                                timeout: Optional[Duration] = None) -> Dict[str, Any]:
        """Change settings of this session, and return all of them. They end with the connection.

        errors  "map" (the default) or "text": then exceptions have no bucket, key, revision and value
        """
        return await self._call(Request("session.configure", [], {"errors": errors}, mapping_answer), timeout)

    # --- More ----------------------------------------------------------------------------------------

    @overload
    def bucket(self, name: str) -> Bucket[bytes]: ...

    @overload
    def bucket(self, name: str, codec: Codec[V]) -> Bucket[V]: ...

    def bucket(self, name: str, codec: Codec[Any] = BYTES) -> Bucket[Any]:
        """Return a view of a bucket whose values are bytes, or what the codec makes of them: kvstored.TEXT, JSON."""
        if not isinstance(codec, Codec):
            raise TypeError(f"codec: kvstored.TEXT, kvstored.JSON or another kvstored.Codec, not {codec!r:.100}")
        return Bucket(self, name, codec)

    def watch(self, bucket: str, filter: Union[str, Sequence[str], None] = None, *, include_history: bool = False,
              updates_only: bool = False, from_revision: Optional[int] = None, ignore_deletes: bool = False,
              meta_only: bool = False, snapshot: bool = False, previous: bool = False) -> Watch:
        """Return a watch: iterate over it to get the entries that the bucket has, and then each change.

        filter           only keys that match it, or one of several
        include_history  begin with all entries that the bucket still has
        updates_only     begin with the first change after now
        from_revision    begin with this revision
        ignore_deletes   leave out markers
        meta_only        entries have size instead of value
        snapshot         the initial entries are the state at one revision: ready_revision
        previous         changes have the value before them, if the daemon has it in memory
        """
        return Watch(self._channel, bucket, {
            "filter": filter if filter is None or isinstance(filter, str) else list(filter),
            "include_history": include_history or None, "updates_only": updates_only or None,
            "from_revision": from_revision, "ignore_deletes": ignore_deletes or None, "meta_only": meta_only or None,
            "snapshot": snapshot or None, "previous": previous or None})

    def transaction(self, bucket: str, *, timeout: Optional[Duration] = None) -> Transaction:
        """Return a transaction. `async with` commits it at the end, unless the body raises an exception."""
        return Transaction(self, bucket, timeout)

    async def run_transaction(self, bucket: str, function: Callable[[Transaction], Awaitable[T]], *,
                              attempts: Optional[int] = None, timeout: Optional[Duration] = None) -> T:
        """Call the function with a transaction and commit it. If another client has changed what it has read, begin
        again after a short random pause. Return what the function returns.

        attempts  at most so many; by default as many as the timeout allows
        timeout   of each call, and for all attempts together: no attempt begins after it. Then raise the Conflict or
                  AlreadyExists of the last one
        """
        timeout_s = seconds_of(timeout)
        end = time.monotonic() + (self._channel.core.timeout_s if timeout_s is None else timeout_s)
        while True:
            transaction = Transaction(self, bucket, timeout)
            began = time.monotonic()
            try:
                result = await self._channel.call_function(function, transaction)
                began = time.monotonic()
                await transaction.commit()
                return result
            except (Conflict, AlreadyExists):
                now = time.monotonic()
                pause_s = random.uniform(0.0, min(PAUSE_COMMITS * (now - began), PAUSE_S))
                if attempts is not None:
                    attempts -= 1
                if attempts is not None and attempts <= 0 or not transaction.has_conflict or now + pause_s >= end:
                    raise
            await self._channel.pause(pause_s)

    def lock(self, bucket: str, name: str, *, wait: Optional[Duration] = None, value: Optional[Value] = None,
             owner: Optional[str] = None, timeout: Optional[Duration] = None) -> Lock:
        """Return a lock, which `async with` acquires and releases.

        wait   for at most this time until it is free; by default as long as it takes; 0: not at all. If the call is
               cancelled or interrupted meanwhile, the client leaves the line
        value  says who holds it, in at most 1,024 bytes
        owner  an id of 8 to 36 letters, digits, "-" and "_" that nobody else uses. If the session ends, the daemon
               keeps the lock for `locks.lease_ttl`, and an acquire with the same owner continues it: also of another
               process. By default, a Lock of a client with `reconnect` has a random one
        """
        wait_s = seconds_of(wait, "wait")
        if wait_s is not None and wait_s < 0:
            raise ValueError("wait: a time of 0 or more; None waits as long as it takes")
        if value is not None:
            value_of(value)
        return Lock(self._channel, bucket, name, wait_s, value, owner, seconds_of(timeout))


class Bucket(Generic[V]):
    """A view of one bucket, with values of one type."""

    def __init__(self, client: Client, name: str, codec: Codec[V]) -> None:
        self.client = client
        self.name = name
        self.codec = codec

    async def get(self, key: str, default: Optional[V] = None) -> Optional[V]:
        """Return the value of a key, or the default if it does not exist."""
        entry = await self.client.get(self.name, key)
        return default if entry is None else decoded(self.codec, entry)

    async def put(self, key: str, value: V, *, ttl: Optional[Duration] = None) -> int:
        """Write a value, and return its revision."""
        return await self.client.put(self.name, key, self.codec.encode(value), ttl=ttl)

    async def setdefault(self, key: str, default: V) -> V:
        """Return the value of a key. If it does not exist, write the default, and return that."""
        while True:
            entry = await self.client.get(self.name, key)
            if entry is not None:
                return decoded(self.codec, entry)
            try:
                await self.client.create(self.name, key, self.codec.encode(default))
                return default
            except AlreadyExists:
                pass  # another client was faster

    @overload
    async def pop(self, key: str) -> V: ...

    @overload
    async def pop(self, key: str, default: T) -> Union[V, T]: ...

    async def pop(self, key: str, default: Any = _NOTHING) -> Any:
        """Delete a key, and return its value. If it does not exist, return the default; without one, raise KeyError."""
        while True:
            entry = await self.client.get(self.name, key)
            if entry is None and default is _NOTHING:
                raise KeyError(key)
            if entry is None:
                return default
            value = decoded(self.codec, entry)
            try:
                await self.client.delete(self.name, key, revision=entry.revision)
                return value
            except Conflict:
                pass  # another client has written it

    async def delete(self, key: str) -> bool:
        """Delete a key. Return whether it existed."""
        return await self.client.delete(self.name, key, if_exists=True) is not None

    async def contains(self, key: str) -> bool:
        """Return whether the key exists. A text that is no valid key does not."""
        try:
            return await self.client.get(self.name, key) is not None
        except InvalidArgument as error:
            if error.bucket is None:  # its name is wrong
                raise
            return False

    async def keys(self, filter: Optional[str] = None) -> List[str]:
        """Return the keys, in byte order. If they are too many for one answer of the daemon, they are read in pages,
        which are not of one point in time."""
        keys: List[str] = []
        limit: Optional[int] = None
        while True:
            try:
                page = await self.client.keys(self.name, filter, limit=limit, after=keys[-1] if keys else None)
            except TooLarge:
                if limit == 1:
                    raise
                limit = KEYS_PER_PAGE if limit is None else limit // 2
                continue
            keys += page
            if limit is None or not page:
                return keys

    async def items(self, filter: Optional[str] = None) -> AsyncIterator[Tuple[str, V]]:
        """Iterate over keys and values, in the byte order of the keys."""
        async for entry in self.client.iterate(self.name, filter):
            yield entry.key, decoded(self.codec, entry)

    async def update(self, values: Optional[Mapping[str, V]] = None, *, ttl: Optional[Duration] = None,
                     **more: V) -> None:
        """Write all values. If one cannot be written, raise its error after the others were.

        more  further keys and values. A key `ttl` can only be among the values
        """
        given = {**mapping_of({} if values is None else values), **more}
        encoded = {key: self.codec.encode(value) for key, value in given.items()}
        results = await self.client.bulk_put(self.name, encoded, ttl=ttl)
        for result in results.values():
            if isinstance(result, KvstoredError):
                raise result

    def watch(self, filter: Union[str, Sequence[str], None] = None, **options: Any) -> Watch:
        """Return a watch of the bucket: see Client.watch."""
        return self.client.watch(self.name, filter, **options)

    def lock(self, name: str, **options: Any) -> Lock:
        """Return a lock of the bucket: see Client.lock."""
        return self.client.lock(self.name, name, **options)

    def transaction(self, **options: Any) -> Transaction:
        """Return a transaction of the bucket: see Client.transaction."""
        return self.client.transaction(self.name, **options)


class Watch:
    """The entries of a bucket and their changes, in the order of their revisions.

    It continues after a lost connection, without a gap. If that is impossible, iteration raises RevisionGone: begin a
    new watch. If the bucket was recreated meanwhile, or restored from a backup, and has fewer revisions than before,
    all its entries follow. Keys that it no longer has are not reported.

    The client keeps the entries that existed at the start until the program takes them. Of later changes it keeps 8 MB,
    and fetches further ones when it needs them. A watch ends when it is closed, at the end of `async with`, and when
    the program drops it: after a `break`, `async for entry in client.watch(...)` leaves nothing behind.
    """

    def __init__(self, channel: Channel, bucket: str, options: Dict[str, Any]) -> None:
        self._channel = channel
        given = {name: value for name, value in options.items() if value is not None}
        self._watch = CoreWatch(channel.core, bucket, given)
        self._is_ready = False

    def __del__(self) -> None:
        self._channel.drop_watch(self._watch)

    @property
    def is_ready(self) -> bool:
        """True when all entries that existed at the start were returned."""
        return self._is_ready

    @property
    def ready_revision(self) -> Optional[int]:
        """With snapshot: the revision of the initial entries."""
        return self._watch.ready_revision

    async def __aenter__(self) -> Watch:
        try:
            await self._channel.start_watch(self._watch)
        except KvstoredError:
            raise
        except BaseException:  # such as CancelledError, KeyboardInterrupt: __aexit__ is not called
            await self.close()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Entry:
        while True:
            event = await self._next_event()
            if event is None:
                raise StopAsyncIteration
            if event is not CoreWatch.READY:
                return event  # type: ignore[no-any-return]

    async def initial(self) -> AsyncIterator[Entry]:
        """Iterate over the entries that existed at the start. Afterwards, iterate over the watch for the changes."""
        while not self._is_ready:
            event = await self._next_event()
            if event is None:
                return
            if event is not CoreWatch.READY:
                yield event

    async def close(self) -> None:
        """End the watch. Iteration over it ends."""
        await self._channel.close_watch(self._watch)

    async def _next_event(self) -> Any:
        """Return an entry or READY. None: the watch is closed."""
        if not self._watch.is_stopped and not self._watch.was_started:
            await self._channel.start_watch(self._watch)
        event = await self._channel.next_event(self._watch)
        if event is CoreWatch.READY:
            self._is_ready = True
        return event


class Transaction:
    """Operations that are done together or not at all.

    What `get` has read becomes a condition of the operations: if another client has changed it, commit raises Conflict
    or AlreadyExists. A transaction without operations checks nothing, and what several `get` return may be of different
    moments. Use `get_many` to read keys at one point in time. After a commit, also one that has failed, only the same
    commit can be tried again: everything else raises RuntimeError.
    """

    def __init__(self, client: Client, bucket: str, timeout: Optional[Duration]) -> None:
        self._client = client
        self._bucket = bucket
        self._timeout = timeout
        self._checks: Dict[str, int] = {}
        self._operations: List[List[Any]] = []
        self._was_tried = False
        self.is_committed = False
        self.has_conflict = False  # another client has changed what was read or written
        self.revisions: List[int] = []

    async def __aenter__(self) -> Transaction:
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], *exception: object) -> None:
        if kind is None and not self._was_tried:
            await self.commit()

    async def get(self, key: str) -> Optional[Entry]:
        """Return the entry of a key. If the transaction has operations, it must not change until the commit."""
        entries = await self.get_many([key])
        return entries[key]

    async def get_many(self, keys: Iterable[str]) -> Dict[str, Optional[Entry]]:
        """Return the entries of several keys, of one point in time if they are at most 1,024. If the transaction has
        operations, they must not change until the commit."""
        self._expect_open()
        entries = await self._client.bulk_get(self._bucket, keys, timeout=self._timeout)
        for key, entry in entries.items():
            self.check(key, 0 if entry is None else entry.revision)
        return entries

    def check(self, key: str, revision: int) -> None:
        """The key must be at this revision; 0: it must not exist. A lock's token is such a revision."""
        self._expect_open()
        if self._checks.setdefault(key, revision) != revision:
            self.has_conflict = True
            raise Conflict("the key has changed since the transaction has read it", bucket=self._bucket, key=key,
                           outcome="none")

    def put(self, key: str, value: Value, *, ttl: Optional[Duration] = None,
            headers: Optional[Mapping[str, str]] = None) -> None:
        """Write a value."""
        self._add(["put", key, value_of(value)], ttl, headers)

    def create(self, key: str, value: Value, *, ttl: Optional[Duration] = None,
               headers: Optional[Mapping[str, str]] = None) -> None:
        """Write a value of a key that must not exist."""
        self._add(["create", key, value_of(value)], ttl, headers)

    def update(self, key: str, value: Value, revision: int, *, ttl: Optional[Duration] = None,
               headers: Optional[Mapping[str, str]] = None) -> None:
        """Write a value of a key that must be at this revision."""
        self._add(["update", key, value_of(value), revision], ttl, headers)

    def delete(self, key: str) -> None:
        """Delete a key."""
        self._add(["delete", key])

    def purge(self, key: str) -> None:
        """Delete a key and its history."""
        self._add(["purge", key])

    def _expect_open(self) -> None:
        if self._was_tried:
            raise RuntimeError("the commit was tried already: begin a new transaction")

    def _add(self, operation: List[Any], ttl: Optional[Duration] = None,
             headers: Optional[Mapping[str, str]] = None) -> None:
        self._expect_open()
        given = (("ttl", ttl_of(ttl)), ("headers", headers or None))
        options = {name: value for name, value in given if value is not None}
        self._operations.append(operation + [options] if options else operation)

    async def commit(self) -> List[int]:
        """Do all operations, and return their revisions. Without operations, nothing is sent and nothing is checked."""
        if self.is_committed:
            raise RuntimeError("the transaction is committed already")
        self._was_tried = True
        if self._operations:
            checks = [[key, revision] for key, revision in self._checks.items()]
            try:
                self.revisions = await self._client.call("txn.commit", self._bucket, checks, self._operations,
                                                         timeout=self._timeout)
            except (Conflict, AlreadyExists):
                self.has_conflict = True
                raise
        self.is_committed = True
        return self.revisions
