"""The interface of the asyncio service for key-value stores on NATS that kvstored has grown from.

Code that was written for it runs with kvstored: only the import changes.

    from kvstored.service import ServiceManager

    async with ServiceManager() as manager:
        store = manager.kv_store
        await store.create_bucket("jobs", history=5)
        await store.put("jobs", "job.1", {"state": "new"}, ttl=3600, owner="worker-1")
        job = await store.get_json("jobs", "job.1")
"""
from __future__ import annotations

import asyncio
import random
from types import TracebackType
from typing import Any, Dict, Generator, Iterable, List, Mapping, Optional, Tuple, Type, Union

from .aio import Bucket, Client, Transaction
from .entries import Entry, Value, value_of
from .errors import AlreadyExists, BucketNotFound, KvstoredError

__all__ = ["ConnectionService", "KVStoreService", "KVTransaction", "ServiceError", "ServiceManager"]

#: The value of a header. Numbers are stored as texts.
Header = Union[str, int, float]

#: The pause before the first retry of put_with_retry; it doubles with each.
FIRST_RETRY_S = 0.1


class ServiceError(Exception):
    """A call has failed. `code`, `retryable` and `outcome` are those of the KvstoredError in __cause__."""

    def __init__(self, message: str, *, code: str = "internal", retryable: bool = False,
                 outcome: Optional[str] = None) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.outcome = outcome


def _invalid(message: str) -> ServiceError:
    return ServiceError(message, code="invalid_argument", outcome="none")


def _advice(message: str) -> str:
    """Return a message with the names of the methods of this module."""
    return message.replace("bucket_create", "create_bucket")


def _texts(headers: Mapping[str, Any]) -> Dict[str, Any]:
    """Return headers whose numbers are texts."""
    return {name: str(value) if isinstance(value, (int, float)) else value for name, value in headers.items()}


class _Added:
    """The result of add_operation. It may be awaited, which does nothing."""

    def __await__(self) -> Generator[None, None, None]:
        return iter(())  # type: ignore[return-value]


class _Errors:
    """A `with` statement that turns the error of a call, or of its arguments, into a ServiceError."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None:
        if isinstance(error, KvstoredError):
            raise ServiceError(f"{self._what} failed: {_advice(str(error))}", code=error.code,
                               retryable=error.retryable, outcome=error.outcome) from error
        if isinstance(error, (TypeError, ValueError, OverflowError, RuntimeError)):  # nothing was sent
            raise _invalid(f"{self._what} failed: {error}") from error


class ConnectionService:
    """The connection that the services share. After close, it can connect again, with another client."""

    def __init__(self, path: Optional[str] = None, **options: Any) -> None:
        self._path = path
        self._options = options
        self._is_closed = False
        self.client = Client(path, **options)

    async def connect(self) -> Client:
        """Connect, and return the client."""
        if self._is_closed:
            self.client = Client(self._path, **self._options)
            self._is_closed = False
        with _Errors("connecting"):
            await self.client.connect()
        return self.client

    async def close(self) -> None:
        """Close the connection."""
        self._is_closed = True
        await self.client.close()

    async def is_healthy(self) -> bool:
        """Return whether the daemon can do its work."""
        try:
            return (await self.client.health()).healthy
        except KvstoredError:
            return False


class KVTransaction:
    """Operations of one bucket that are done together or not at all."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._was_tried = False

    def add_operation(self, operation: str, key: str, value: Optional[Value] = None, *,
                      revision: Optional[int] = None, ttl: Optional[int] = None, **headers: Header) -> _Added:
        """Add an operation: "put", "create", "update" (which takes a revision), "delete" or "purge".

        Nothing is sent until the commit. The result need not be awaited, and may be.
        """
        transaction = self._transaction
        if operation not in ("put", "create", "update", "delete", "purge"):
            raise _invalid(f"the operation {operation} is unknown")
        if operation == "update" and revision is None:
            raise _invalid("the operation update needs a revision")
        with _Errors(f"the operation {operation} of {key}"):
            texts, stored = _texts(headers), value_of(value) if operation not in ("delete", "purge") else None
            if operation == "delete":
                transaction.delete(key)
            elif operation == "purge":
                transaction.purge(key)
            elif operation == "put":
                transaction.put(key, stored, ttl=ttl, headers=texts)
            elif operation == "create":
                transaction.create(key, stored, ttl=ttl, headers=texts)
            elif revision is not None:
                transaction.update(key, stored, revision, ttl=ttl, headers=texts)
        return _Added()

    async def get(self, key: str) -> Optional[Entry]:
        """Return the entry of a key. If the transaction has operations, it must not change until the commit."""
        with _Errors("the read"):
            return await self._transaction.get(key)

    async def commit(self) -> List[int]:
        """Do all operations, and return their revisions."""
        self._was_tried = True
        with _Errors("the transaction"):
            return await self._transaction.commit()

    async def __aenter__(self) -> KVTransaction:
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], *exception: object) -> None:
        if kind is None and not self._was_tried:
            await self.commit()


class KVStoreService:
    """Key-value stores, by bucket."""

    def __init__(self, connection: ConnectionService) -> None:
        self._connection = connection

    @property
    def _client(self) -> Client:
        return self._connection.client

    # --- Buckets -----------------------------------------------------------------------------------

    async def get_kv_store(self, bucket: str, **config: Any) -> Bucket[bytes]:
        """Return a view of a bucket. If it does not exist, create it with these settings.

        The methods of the view are those of kvstored: they raise KvstoredError, and not ServiceError.
        """
        with _Errors(f"opening the bucket {bucket}"):
            try:
                await self._client.bucket_info(bucket)
            except BucketNotFound:
                try:
                    await self._client.bucket_create(bucket, **config)
                except AlreadyExists:
                    pass  # another process was faster, with other settings
        return self._client.bucket(bucket)

    async def create_bucket(self, bucket: str, **config: Any) -> Bucket[bytes]:
        """Create a bucket with these settings, and return a view of it, whose methods raise KvstoredError."""
        with _Errors(f"creating the bucket {bucket}"):
            await self._client.bucket_create(bucket, **config)
        return self._client.bucket(bucket)

    async def delete_bucket(self, bucket: str) -> bool:
        """Delete a bucket. Return whether it existed."""
        with _Errors(f"deleting the bucket {bucket}"):
            try:
                await self._client.bucket_delete(bucket)
            except BucketNotFound:
                return False
        return True

    async def purge(self, bucket: str) -> None:
        """Remove all values of a bucket."""
        with _Errors(f"purging the bucket {bucket}"):
            await self._client.bucket_purge(bucket)

    async def health_check(self, bucket: str) -> Dict[str, Any]:
        """Return a dict of bucket, values, history, ttl, max_value_size, replicas and healthy, and error if it is not
        healthy. What the daemon cannot say, as of a bucket that does not exist, is None."""
        with _Errors(f"the health check of {bucket}"):
            health = await self._client.health(bucket)
        members = ("values", "history", "ttl", "max_value_size", "replicas")
        result = {"bucket": bucket, **{name: health.details.get(name) for name in members}, "healthy": health.healthy}
        return result if health.error is None else {**result, "error": _advice(health.error)}

    # --- Values ------------------------------------------------------------------------------------

    async def put(self, bucket: str, key: str, value: Value, ttl: Optional[int] = None, **headers: Header) -> int:
        """Write a value with headers, and return its revision."""
        with _Errors(f"writing {key}"):
            return await self._client.put(bucket, key, value, ttl=ttl, headers=_texts(headers))

    async def put_with_retry(self, bucket: str, key: str, value: Value, ttl: Optional[int] = None,
                             max_retries: int = 3, **headers: Header) -> int:
        """Write a value. If that fails for a time, try again up to max_retries times."""
        if not isinstance(max_retries, int) or max_retries < 0:
            raise _invalid(f"max_retries: a number of 0 or more, not {max_retries!r:.100}")
        pause_s = FIRST_RETRY_S
        while True:
            try:
                return await self.put(bucket, key, value, ttl, **headers)
            except ServiceError as error:
                if max_retries == 0 or not error.retryable:
                    raise
            max_retries -= 1
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.0))
            pause_s *= 2

    async def get(self, bucket: str, key: str) -> Optional[bytes]:
        """Return the value of a key; None if the key does not exist."""
        with _Errors(f"reading {key}"):
            entry = await self._client.get(bucket, key)
        return None if entry is None else entry.value

    async def get_json(self, bucket: str, key: str) -> Any:
        """Return the value of a key, parsed as JSON; None if the key does not exist."""
        with _Errors(f"reading {key}"):
            entry = await self._client.get(bucket, key)
        try:
            return None if entry is None else entry.json()
        except ValueError as error:
            raise ServiceError(f"the value of {key} is not JSON: {error}", code="invalid_argument") from error

    async def delete(self, bucket: str, key: str) -> bool:
        """Delete a key. Return whether it existed."""
        with _Errors(f"deleting {key}"):
            return await self._client.delete(bucket, key, if_exists=True) is not None

    async def update(self, bucket: str, key: str, value: Value, revision: int, **headers: Header) -> int:
        """Write a value if the key is at this revision, and return the new one."""
        with _Errors(f"updating {key}"):
            return await self._client.update(bucket, key, value, revision, headers=_texts(headers))

    async def history(self, bucket: str, key: str) -> List[Entry]:
        """Return the entries of a key that the bucket still has, the oldest first."""
        with _Errors(f"reading the history of {key}"):
            return await self._client.history(bucket, key)

    # --- Many values -------------------------------------------------------------------------------

    def kv_transaction(self, bucket: str) -> KVTransaction:
        """Return a transaction. `async with` commits it at the end if it was not committed."""
        return KVTransaction(self._client.transaction(bucket))

    async def bulk_put(self, bucket: str, items: Union[Mapping[str, Value], Iterable[Tuple[str, Value]]],
                       ttl: Optional[int] = None) -> Dict[str, int]:
        """Write values, and return their revisions. If one cannot be written, raise after the others were."""
        with _Errors("writing the values"):
            results = await self._client.bulk_put(bucket, dict(items), ttl=ttl)
            for result in results.values():
                if isinstance(result, KvstoredError):
                    raise result
        return {key: result for key, result in results.items() if isinstance(result, int)}

    async def bulk_get(self, bucket: str, keys: Iterable[str]) -> Dict[str, Optional[bytes]]:
        """Return the values of keys, with None for those that do not exist."""
        with _Errors("reading the values"):
            entries = await self._client.bulk_get(bucket, keys)
        return {key: None if entry is None else entry.value for key, entry in entries.items()}


class ServiceManager:
    """Makes the services and ends them: use it with `async with`, or call start and stop."""

    def __init__(self, path: Optional[str] = None, **options: Any) -> None:
        self.connection = ConnectionService(path, **options)
        self.kv_store = KVStoreService(self.connection)

    async def start(self) -> ServiceManager:
        """Connect."""
        await self.connection.connect()
        return self

    async def stop(self) -> None:
        """Close the connection."""
        await self.connection.close()

    async def __aenter__(self) -> ServiceManager:
        return await self.start()

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()
