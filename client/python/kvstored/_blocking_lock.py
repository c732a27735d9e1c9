"""Locks of the blocking client."""
from __future__ import annotations

from typing import Optional, Type

from ._blocking_held import HeldLock
from .errors import KvstoredError


class Lock(HeldLock):
    """A lock. `with` acquires it, and releases it at the end.

    Nothing interrupts the body if the lock is lost. Call `check` in time before each piece of work that needs it, and
    put the token into the transactions that change the data, with `transaction.check(lock.name, lock.token)`. If the
    lock was lost, the end of the `with` statement raises LockLost. A process that was forked meanwhile does not hold
    it.

    Of one client, only one Lock of a name can be held or wait at a time.
    """

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], *exception: object) -> None:
        if self._is_of_parent():
            return
        try:
            self.release()
        except KvstoredError:
            if kind is None:
                raise  # otherwise the exception of the body is the one that counts
