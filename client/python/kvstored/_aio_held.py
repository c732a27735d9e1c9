"""What both kinds of locks do: acquire, check and release."""
from __future__ import annotations

import os
import time
import uuid
from typing import Any, Optional

from ._aio_channel import Channel
from ._core import Request
from .entries import Value, grant_of
from .errors import Conflict, KvstoredError, LockLost, NotHeld, Unavailable, fresh

#: A wait without an end: the longest one that the daemon takes, 31 years.
LONGEST_WAIT_S = 1e9

#: The pause before a lock is asked for again after a failure that heals.
RETRY_S = 0.05


def now_s() -> float:
    """Return the time of the clock that also counts while the machine is suspended, as the daemon's does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class HeldLock:
    """A lock that was acquired, or will be."""

    def __init__(self, channel: Channel, bucket: str, name: str, wait_s: Optional[float], value: Optional[Value],
                 owner: Optional[str], timeout_s: Optional[float]) -> None:
        self._channel = channel
        self.bucket = bucket
        self.name = name
        self.token = 0  # the revision of its key; 0: not held
        self._wait_s = wait_s
        self._value = value
        self._timeout_s = timeout_s
        self._given_owner = owner
        self._owner: Optional[str] = None
        self._pid = 0  # of the process that has acquired it last
        self._valid_until = 0.0
        self._loss: Optional[KvstoredError] = None
        self._renewing: Any = None  # guards _acquire_again
        self._acquisitions = 0  # of this lock so far

    def valid_for(self) -> float:
        """Return for how many seconds the daemon vouches for the lock, as far as the last check tells; 0: this process
        does not hold it."""
        return max(self._valid_until - now_s(), 0.0) if self._is_held() else 0.0

    async def acquire(self) -> int:
        """Acquire the lock, and return its token.

        Raises Locked if another client holds it until the wait is over, and Conflict if this client itself does. A
        lock that was lost can be acquired again.
        """
        if self._is_held():
            raise RuntimeError("the lock is acquired already")
        if self._is_of_parent():  # which may still hold it
            # With an owner, the daemon keeps the lock for some time after a lost connection.
            self._owner = self._given_owner or (uuid.uuid4().hex if self._channel.core.reconnects else None)
        self.token, self._loss, self._pid = 0, None, os.getpid()
        self._renewing = self._channel.new_mutex()
        try:
            await self._acquire()
            self._watch_loss()
            if self.valid_for() == 0:  # it has waited for long
                await self.check()
        except BaseException:
            if self.token:
                self._drop()
            raise
        return self.token

    async def _acquire(self) -> None:
        """Wait in one call: a second one would begin at the end of the line."""
        end = None if self._wait_s is None else now_s() + self._wait_s
        while True:
            left_s = LONGEST_WAIT_S if end is None else max(end - now_s(), 0.0)
            try:
                await self._ask(min(left_s, LONGEST_WAIT_S))
                return
            except (Conflict, Unavailable) as error:
                heals = self._lets_go() if isinstance(error, Conflict) else self._channel.core.reconnects
                if not heals or (end is not None and now_s() >= end):
                    raise
                await self._channel.pause(RETRY_S)

    async def check(self) -> float:
        """Ask the daemon whether the lock is held, and return for how many seconds from now. Raises LockLost."""
        self._raise_if_lost()
        sent, acquisitions = now_s(), self._acquisitions
        try:
            _, valid_for = await self._channel.call(
                Request("lock.check", [self.bucket, self.name, self.token], {}, grant_of),
                self._timeout_s)
        except NotHeld as error:
            await self._acquire_again(error, acquisitions)
        else:
            self._valid_until = sent + valid_for
        self._raise_if_lost()
        return self.valid_for()

    async def release(self) -> None:
        """Release the lock. Raises LockLost if it is no longer held. After another error it can be released again."""
        self._raise_if_lost()
        try:
            await self._release()
        except KvstoredError:
            raise
        except BaseException:  # such as CancelledError, KeyboardInterrupt
            self._drop()
            raise
        self._channel.use(lambda core: core.forget_lock(self.bucket, self.name, self.token))
        self.token = 0

    async def _release(self) -> None:
        while True:
            acquisitions = self._acquisitions
            try:
                await self._channel.call(
                    Request("lock.release", [self.bucket, self.name, self.token], {}, lambda result: result),
                    self._timeout_s)
                return
            except NotHeld as error:
                await self._acquire_again(error, acquisitions)
                self._raise_if_lost()
                if self.valid_for() == 0:
                    raise

    def _lets_go(self) -> bool:
        return self._channel.use(lambda core: core.lets_go(self.bucket, self.name))

    def _watch_loss(self) -> None:
        self._channel.use(lambda core: core.watch_lock(self.bucket, self.name, self.token, self._on_lost))

    def _drop(self) -> None:
        """Nobody is interested in the lock that was acquired: release it without waiting for that."""
        self._channel.use(lambda core: core.release_lock(self.bucket, self.name, self.token))
        self.token = 0

    async def _ask(self, wait_s: float) -> None:
        sent = now_s()
        self.token, valid_for = await self._channel.call(
            Request("lock.acquire", [self.bucket, self.name],
                    {"wait": wait_s or None, "value": self._value, "owner": self._owner}, grant_of),
            self._timeout_s, wait_s)
        self._valid_until = sent + valid_for
        self._acquisitions += 1

    async def _acquire_again(self, reason: KvstoredError, acquisitions: int) -> None:
        """The session is a new one. The daemon keeps the lock for its owner for some time.

        Several may find out at once: then the first acquires it. `acquisitions` is their number before that.
        """
        async with self._renewing:
            if self._loss is None and self._acquisitions == acquisitions:
                await self._acquire_for_session(reason)

    async def _acquire_for_session(self, reason: KvstoredError) -> None:
        before, until = self.token, self._valid_until
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
        if self.token == before:
            self._watch_loss()
            return
        self._drop()
        self.token, self._valid_until = before, until
        self._on_lost(reason)

    def _on_lost(self, reason: KvstoredError) -> None:
        if self._loss is None and self.token:
            self._loss = reason
            self._channel.core.forget_lock(self.bucket, self.name, self.token)  # maybe from within the core

    def _is_held(self) -> bool:
        return self.token != 0 and self._loss is None and not self._is_of_parent()

    def _is_of_parent(self) -> bool:
        return self._pid != os.getpid()

    def _raise_if_lost(self) -> None:
        if self._loss is not None:
            raise LockLost(f"the lock was lost: {self._loss.message}", bucket=self.bucket,
                           key=self.name) from fresh(self._loss)
        if not self.token or self._is_of_parent():
            raise NotHeld("this process does not hold the lock", bucket=self.bucket, key=self.name)
