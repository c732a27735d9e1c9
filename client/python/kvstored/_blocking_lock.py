"""Locks of the blocking client."""
from __future__ import annotations

import time
from typing import Optional, Type

from ._blocking_channel import Channel
from ._core import Request
from ._lock import LONGEST_WAIT_S, RELEASE_RETRY_S, new_owner
from .entries import Value
from .errors import KvstoredError, LockLost, NotHeld, Unavailable


class Lock:
    """A lock. `with` acquires it, and releases it at the end.

    Nothing interrupts the body if the lock is lost. Call `check` in time before each piece of work that needs it, and
    put the token into the transactions that change the data, with `transaction.check(lock.name, lock.token)`. If the
    lock was lost, the end of the `with` statement raises LockLost.
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

    def valid_for(self) -> float:
        """Return for how many seconds the daemon vouches for the lock, as far as the last check tells; 0: not held."""
        return max(self._valid_until - time.monotonic(), 0.0) if self.token and self._loss is None else 0.0

    def acquire(self) -> int:
        """Acquire the lock, and return its token. Raises Locked if another client holds it until the wait is over."""
        if self.token:
            raise RuntimeError("the lock is acquired already")
        wait_s = LONGEST_WAIT_S if self._wait_s is None else self._wait_s
        self._loss = None
        end = time.monotonic() + wait_s
        while True:
            try:
                self._ask(max(end - time.monotonic(), 0.0))
                break
            except Unavailable:
                if not self._channel.core.reconnects or time.monotonic() >= end:
                    raise
                time.sleep(RELEASE_RETRY_S)
        self._channel.core.watch_lock(self.bucket, self.name, self._on_lost)
        if self.valid_for() == 0:  # it has waited for long
            self.check()
        return self.token

    def check(self) -> float:
        """Ask the daemon whether the lock is held, and return for how many seconds from now. Raises LockLost."""
        self._raise_if_lost()
        sent = time.monotonic()
        try:
            result = self._channel.call(
                Request("lock.check", [self.bucket, self.name, self.token], {}, lambda result: result),
                self._timeout_s)
        except NotHeld as error:
            self._acquire_again(error)
        else:
            self._valid_until = sent + result["valid_for"]
        self._raise_if_lost()
        return self.valid_for()

    def release(self) -> None:
        """Release the lock. Raises LockLost if it is no longer held."""
        self._raise_if_lost()
        try:
            self._send_release()
        except NotHeld as error:
            self._acquire_again(error)
            self._raise_if_lost()
            self._send_release()
        self._channel.core.forget_lock(self.bucket, self.name)
        self.token = 0

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], *exception: object) -> None:
        try:
            self.release()
        except KvstoredError:
            if kind is None:
                raise  # otherwise the exception of the body is the one that counts

    def _ask(self, wait_s: float) -> None:
        sent = time.monotonic()
        result = self._channel.call(
            Request("lock.acquire", [self.bucket, self.name],
                    {"wait": wait_s or None, "value": self._value, "owner": self._owner}, lambda result: result),
            self._timeout_s, wait_s)
        self.token = result["token"]
        self._valid_until = sent + result["valid_for"]

    def _send_release(self) -> None:
        self._channel.call(Request("lock.release", [self.bucket, self.name, self.token], {}, lambda result: result),
                           self._timeout_s)

    def _acquire_again(self, reason: KvstoredError) -> None:
        """The session is a new one. The daemon keeps the lock for its owner for some time."""
        before = self.token
        if self._owner is None:
            self._on_lost(reason)
            return
        try:
            self._ask(0.0)
        except Unavailable:
            return  # it is vouched for as before
        except KvstoredError as error:
            self._on_lost(error)
            return
        if self.token != before:
            self._send_release()
            self._on_lost(reason)

    def _on_lost(self, reason: KvstoredError) -> None:
        if self._loss is None and self.token:
            self._loss = reason
            self._channel.core.forget_lock(self.bucket, self.name)

    def _raise_if_lost(self) -> None:
        if self._loss is not None:
            raise LockLost(f"the lock was lost: {self._loss.message}", bucket=self.bucket,
                           key=self.name) from self._loss
        if not self.token:
            raise NotHeld("the lock is not held", bucket=self.bucket, key=self.name)
