"""Locks that processes and threads hold on a file, and that die with their process."""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .own_files import ensure_own

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_PAUSE = 0.001  # seconds between two attempts


class FileLock:
    """A lock with an open file of its own, so that it excludes threads as well as processes."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._file: int | None = None
        self._inode = 0
        _locks.add(self)

    @contextmanager
    def held(self, *, shared: bool = False, wait: float = 0.0) -> Iterator[bool]:
        """Whether the lock could be had within `wait` seconds; it is released at the end.

        :param shared: others may share it.
        :raises OSError: if the lock's file cannot be used.
        """
        if not self._acquire(shared, time.monotonic() + wait if wait else 0.0):
            yield False
            return
        try:
            yield True
        finally:
            if self._file is not None:  # this may be a child of the process that has the lock
                _unlock(self._file)

    def _acquire(self, shared: bool, patience: float) -> bool:
        while not _lock(self._opened(), shared):
            if time.monotonic() >= patience:
                return False
            time.sleep(_PAUSE)
        return True

    def _opened(self) -> int:
        """The lock's file, opened anew if somebody has deleted it."""
        try:
            there = os.lstat(self._path).st_ino
        except FileNotFoundError:
            there = 0
        if self._file is None or there != self._inode:
            self.close()
            ensure_own(Path(self._path))
            self._file = os.open(self._path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            self._inode = os.fstat(self._file).st_ino
        return self._file

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()


_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _forked() -> None:
    # The child shares its parent's open files: it would keep a lock that its parent has let go of
    # by dying.
    for lock in _locks:
        lock.close()


if sys.platform == "win32":

    def _lock(file: int, shared: bool) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    os.register_at_fork(after_in_child=_forked)

    def _lock(file: int, shared: bool) -> bool:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
