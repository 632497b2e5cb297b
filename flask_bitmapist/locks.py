"""Locks that do not stay locked in a forked child, whose other threads are gone."""

from __future__ import annotations

import os
import threading
import weakref

_locks: weakref.WeakSet[threading.Lock] = weakref.WeakSet()


def new_lock() -> threading.Lock:
    """A lock that nobody holds in a child, whichever thread of the parent held it."""
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def forked() -> None:
    """This process is a child, and has but one thread."""
    for lock in _locks:
        # The forking thread holds none: code under the lock never calls the application.
        if lock.locked():
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forked)
