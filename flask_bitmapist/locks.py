"""Locks that do not stay locked in a forked child, whose other threads are gone."""

from __future__ import annotations

import os
import threading
import weakref


class Lock:
    """A lock that nobody holds in a child, whichever thread of the parent held it.

    It is reentrant: a signal handler may mark while its thread holds it.
    """

    def __init__(self) -> None:
        self.renew()
        _locks.add(self)

    def renew(self) -> None:
        """Nobody holds it any more."""
        self._lock = threading.RLock()
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *raised: object) -> None:
        self.release()


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def forked() -> None:
    """This process is a child, and has but one thread."""
    for lock in _locks:
        # The forking thread holds none: code under the lock never calls the application.
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forked)
