"""Locks of the asyncio client."""
from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Optional, Type

from ._aio_held import HeldLock
from .errors import KvstoredError, Unavailable

#: The loop was blocked until the lock was no longer vouched for: the daemon gets this long to vouch for it again.
LATE_CHECK_S = 1.0


class Lock(HeldLock):
    """A lock. `async with` acquires it, and releases it at the end.

    If the lock is lost meanwhile, the body is cancelled, and the statement raises LockLost. If the program has cancelled
    its task as well, the statement raises CancelledError (only since Python 3.11: earlier tasks do not count that).

    A body that has been suspended for long may still run for a moment: put the token into the transactions that change
    the data, with `transaction.check(lock.name, lock.token)`.

    Of one client, only one Lock of a name can be held or wait at a time.
    """

    _keeping: Optional[asyncio.Task[None]] = None
    _body: Optional[asyncio.Task[Any]] = None
    _cancellations = 0  # of the body when it began, which it has not handled
    _was_cancelled = False  # the body, because of the loss

    async def acquire(self) -> int:
        """Acquire the lock, and return its token.

        Raises Locked if another client holds it until the wait is over, and Conflict if this client itself does. A
        lock that was lost can be acquired again.
        """
        token = await super().acquire()
        self._keeping = self._channel.spawn(self._keep())
        return token

    async def release(self) -> None:
        """Release the lock. Raises LockLost if it is no longer held. After another error it can be released again."""
        self._stop_keeping()
        await super().release()

    async def __aenter__(self) -> Lock:
        await self.acquire()
        self._was_cancelled = False
        self._body = body = asyncio.current_task()
        self._cancellations = _call_if_there(body, "cancelling")
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], *exception: object) -> None:
        self._body = None
        is_cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        if self._was_cancelled:
            cancellations = _call_if_there(asyncio.current_task(), "uncancel")
            if is_cancelled and cancellations > self._cancellations:
                return  # the program has cancelled it as well
        if self._loss is not None:
            if kind is None or is_cancelled and self._was_cancelled:
                self._raise_if_lost()
            return  # the body has ended with an exception of its own
        try:
            await self.release()
        except KvstoredError:
            if kind is None:
                raise  # otherwise the exception of the body is the one that counts

    # --- Keeping it --------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Ask in time whether the lock is held, until it is released or lost: both cancel this task."""
        while True:
            await asyncio.sleep(self.valid_for() / 3)
            # Not wait_for: that of Python 3.11 and before can swallow the cancellation.
            check = self._channel.spawn(self._check_quietly())
            try:
                await asyncio.wait({check}, timeout=self.valid_for() or LATE_CHECK_S)
            finally:
                check.cancel()
            if self.valid_for() == 0:
                self._on_lost(Unavailable("the daemon did not confirm the lock in time", retryable=True))
                # The daemon renews it as long as the session lives, and nobody else would get it.
                self._channel.use(lambda core: core.release_lock(self.bucket, self.name, self.token))
                return

    async def _check_quietly(self) -> None:
        with contextlib.suppress(KvstoredError):
            await self.check()

    def _stop_keeping(self) -> None:
        if self._keeping is not None and self._keeping is not _current_task():
            self._keeping.cancel()
        self._keeping = None

    def _on_lost(self, reason: KvstoredError) -> None:
        was_held = self._loss is None and self.token
        super()._on_lost(reason)
        if not was_held:
            return
        self._stop_keeping()  # the lock can be acquired again, and is kept by another task then
        if self._body is not None and self._body is not _current_task():  # that one finds out by itself
            self._was_cancelled = True
            self._body.cancel()


def _call_if_there(task: Any, method: str) -> int:
    """Call a method that tasks have since Python 3.11, and return its number; 0: it is not there."""
    return getattr(task, method, int)()


def _current_task() -> Optional[asyncio.Task[Any]]:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None  # not in a task
