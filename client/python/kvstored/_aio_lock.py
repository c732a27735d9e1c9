"""Locks of the asyncio client."""
from __future__ import annotations

import asyncio
import time
from typing import Any, Optional, Type

from ._aio_channel import Channel
from ._core import Request
from ._lock import LONGEST_WAIT_S, RELEASE_RETRY_S, new_owner
from .entries import Value
from .errors import KvstoredError, LockLost, NotHeld, Unavailable


class Lock:
    """A lock. `async with` acquires it, and releases it at the end.

    If the lock is lost meanwhile, the body is cancelled, and the statement raises LockLost. A body that has been
    suspended for long may still run for a moment: put the token into the transactions that change the data, with
    `transaction.check(lock.name, lock.token)`.
    """

    def __init__(self, channel: Channel, bucket: str, name: str, wait_s: Optional[float], value: Optional[Value],
                 timeout_s: Optional[float]) -> None:
        self._channel = channel
        self.bucket = bucket
        self.name = name
        self.token = 0  # the revision of its key; 0: not held
        self._wait_s = wait_s
        self._value = value
        self._timeout_s = timeout_s
        self._owner = new_owner() if channel.core.reconnects else None
        self._valid_until = 0.0
        self._loss: Optional[KvstoredError] = None
        self._watching: Optional[asyncio.Task[None]] = None
        self._body: Optional[asyncio.Task[Any]] = None
        self._was_cancelled = False  # the body, because of the loss

    def valid_for(self) -> float:
        """Return for how many seconds the daemon vouches for the lock; 0: it is not held."""
        return max(self._valid_until - time.monotonic(), 0.0) if self.token and self._loss is None else 0.0

    async def acquire(self) -> int:
        """Acquire the lock, and return its token. Raises Locked if another client holds it until the wait is over."""
        if self.token:
            raise RuntimeError("the lock is acquired already")
        wait_s = LONGEST_WAIT_S if self._wait_s is None else self._wait_s
        self._loss = None
        end = time.monotonic() + wait_s
        while True:
            try:
                await self._ask(max(end - time.monotonic(), 0.0))
                break
            except Unavailable:
                if not self._channel.core.reconnects or time.monotonic() >= end:
                    raise
                await asyncio.sleep(RELEASE_RETRY_S)
        self._channel.core.watch_lock(self.bucket, self.name, self._on_lost)
        if self.valid_for() == 0:  # it has waited for long
            await self.check()
        assert self._channel.loop is not None
        self._watching = self._channel.loop.create_task(self._keep())
        return self.token

    async def check(self) -> float:
        """Ask the daemon whether the lock is held, and return for how many seconds from now. Raises LockLost."""
        self._raise_if_lost()
        sent = time.monotonic()
        try:
            result = await self._channel.call(
                Request("lock.check", [self.bucket, self.name, self.token], {}, lambda result: result),
                self._timeout_s)
        except NotHeld as error:
            await self._acquire_again(error)
        else:
            self._valid_until = sent + result["valid_for"]
        self._raise_if_lost()
        return self.valid_for()

    async def release(self) -> None:
        """Release the lock. Raises LockLost if it is no longer held."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        self._raise_if_lost()
        token, self.token = self.token, 0
        self._channel.core.forget_lock(self.bucket, self.name)
        try:
            await self._channel.call(
                Request("lock.release", [self.bucket, self.name, token], {}, lambda result: result), self._timeout_s)
        except NotHeld as error:
            if self._owner is None:
                raise LockLost("the lock was lost before it was released", bucket=self.bucket,
                               key=self.name) from error
            # The connection was lost: the daemon keeps the lock for the owner. Take it over to release it.
            await self._ask(0.0)
            token, self.token = self.token, 0
            await self._channel.call(
                Request("lock.release", [self.bucket, self.name, token], {}, lambda result: result), self._timeout_s)

    async def __aenter__(self) -> Lock:
        await self.acquire()
        self._body = asyncio.current_task()
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], *exception: object) -> None:
        self._body = None
        if self._loss is not None:
            if self._was_cancelled and self._uncancel() and kind is not None and \
                    not issubclass(kind, asyncio.CancelledError):
                return  # the body has ended with an exception of its own
            self._raise_if_lost()
        try:
            await self.release()
        except KvstoredError:
            if kind is None:
                raise  # otherwise the exception of the body is the one that counts

    def _uncancel(self) -> bool:
        task: Any = asyncio.current_task()
        if hasattr(task, "uncancel"):  # Python 3.11
            task.uncancel()
        return True

    # --- Keeping it --------------------------------------------------------------------------------

    async def _ask(self, wait_s: float) -> None:
        sent = time.monotonic()
        result = await self._channel.call(
            Request("lock.acquire", [self.bucket, self.name],
                    {"wait": wait_s or None, "value": self._value, "owner": self._owner}, lambda result: result),
            self._timeout_s, wait_s)
        self.token = result["token"]
        self._valid_until = sent + result["valid_for"]

    async def _acquire_again(self, reason: KvstoredError) -> None:
        """The session is a new one. The daemon keeps the lock for its owner for some time."""
        before = self.token
        if self._owner is None:
            self._on_lost(reason)
            return
        try:
            await self._ask(0.0)
        except Unavailable:
            return  # it is vouched for as before
        except KvstoredError as error:
            self._on_lost(error)
            return
        if self.token != before:
            taken, self.token = self.token, before
            self._on_lost(reason)
            await self._channel.call(
                Request("lock.release", [self.bucket, self.name, taken], {}, lambda result: result), self._timeout_s)

    async def _keep(self) -> None:
        """Ask in time whether the lock is held, until it is released or lost."""
        while self._loss is None:
            await asyncio.sleep(self.valid_for() / 3)
            try:
                await asyncio.wait_for(self.check(), max(self.valid_for(), 0.001))
            except (KvstoredError, asyncio.TimeoutError):
                pass
            if self.valid_for() == 0 and self._loss is None:
                self._on_lost(Unavailable("the daemon did not confirm the lock in time", retryable=True))

    def _on_lost(self, reason: KvstoredError) -> None:
        if self._loss is not None or not self.token:
            return
        self._loss = reason
        self._channel.core.forget_lock(self.bucket, self.name)
        if self._body is not None:
            self._was_cancelled = True
            self._body.cancel()

    def _raise_if_lost(self) -> None:
        if self._loss is not None:
            raise LockLost(f"the lock was lost: {self._loss.message}", bucket=self.bucket,
                           key=self.name) from self._loss
        if not self.token:
            raise NotHeld("the lock is not held", bucket=self.bucket, key=self.name)
