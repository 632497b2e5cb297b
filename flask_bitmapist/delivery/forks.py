"""What must be at rest while this process forks."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

from .. import locks


class Forked(Protocol):
    """Something that a child has to do with, and that is its parent's."""

    def begin_anew(self) -> None: ...


class Stopped(Protocol):
    """Something that threads use, and that a fork in the middle of it would spoil."""

    def before_fork(self) -> None: ...
    def after_fork_in_parent(self) -> None: ...
    def after_fork_in_child(self) -> None: ...


_all: weakref.WeakSet[Stopped] = weakref.WeakSet()
_anew: weakref.WeakSet[Forked] = weakref.WeakSet()
#: Those that the fork at hand has stopped.
_stopped: list[Stopped] = []
_forking = threading.Lock()
#: The process that has begun anew last, or imported this.
_process = os.getpid()
#: A lock for each child of which Python was not told.
_children: dict[int, threading.RLock] = {}


def stop_for_forks(stopped: Stopped) -> None:
    """Have `stopped` told before each fork, and afterwards, as long as it lives."""
    _all.add(stopped)


def begin_anew_in_children(forked: Forked) -> None:
    """Have `forked` told in each child that begins, as long as it lives."""
    _anew.add(forked)


def _before_fork() -> None:
    _forking.acquire()
    _stopped[:] = sorted(_all, key=id)
    for stopped in _stopped:
        stopped.before_fork()


def _after_fork_in_parent() -> None:
    while _stopped:
        _stopped.pop().after_fork_in_parent()
    _forking.release()


def _after_fork_in_child() -> None:
    while _stopped:
        _stopped.pop().after_fork_in_child()
    _forking.release()
    _begin_anew()


def notice_fork() -> None:
    """Begin anew if this process is a child of which Python was not told, as under uWSGI."""
    process = os.getpid()
    if process == _process:
        return
    # Threads of its parent may hold any lock that was there before.
    with _children.setdefault(process, threading.RLock()):
        if process != _process:
            locks.forked()
            _begin_anew()


def _begin_anew() -> None:
    global _process
    for forked in [*_anew]:
        forked.begin_anew()
    _process = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
