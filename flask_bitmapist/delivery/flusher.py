"""The flusher: one daemon thread a process, which works while there is work and then ends.

No request drains, probes or waits for the server: the thread does. Where no thread runs, the next
mark does a little of its work.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .. import locks

_PAUSE = 0.1  # seconds between two passes, unless there is more to do or something wakes the thread
_IDLE = 5.0  # seconds without work after which the thread ends
#: Seconds for which a caller waits if another is at work.
_GRACE = 0.005


class Flusher:
    """Sees to it that `work` is done, in the process that has the work."""

    def __init__(self, work: Callable[[], float | None], hurry: Callable[[], None]) -> None:
        """
        :param work: one pass; returns the seconds after which it is due again, or None: there is
            nothing to do any more.
        :param hurry: a short pass, for the caller who does it where no thread runs.
        """
        self._work = work
        self._hurry = hurry
        self._entering = locks.new_lock()
        self._begin()
        if hasattr(os, "register_at_fork"):
            reference = weakref.ref(self)
            os.register_at_fork(after_in_child=functools.partial(_forked, reference))

    def _begin(self) -> None:
        # Made at the first use in a process: what gevent patches must not be made before it does.
        self._process = 0
        self._thread: threading.Thread | None = None
        #: When a caller does the work next.
        self._due = 0.0

    def _enter(self) -> None:
        process = os.getpid()
        if self._process == process:
            return
        if self._process:  # uWSGI forks without telling Python
            locks.forked()
        with self._entering:
            if self._process == process:
                return
            self._begin()
            self._starting = threading.Lock()
            # Reentrant: a signal handler may flush while its thread is at work.
            self._working = threading.RLock()
            self._awake = threading.Event()
            self._process = process

    def attend(self) -> None:
        """See to it that the work is done, soon and by the thread if there can be one."""
        self._enter()
        if self._thread is not None or time.monotonic() < self._due or self._start():
            return
        self._due = time.monotonic() + _PAUSE
        self._hurry()

    def wake(self) -> None:
        """Make the next pass begin now."""
        self._enter()
        self._awake.set()

    @contextmanager
    def alone(self, wait: float | None = _GRACE) -> Iterator[bool]:
        """Whether nobody else is at work, and nobody begins inside. All that work use it.

        :param wait: seconds to wait for who is; None: as long as it takes.
        """
        self._enter()
        working = self._working
        if not working.acquire(timeout=-1 if wait is None else max(0.0, wait)):
            yield False
            return
        try:
            yield True
        finally:
            working.release()

    def _start(self) -> bool:
        """Whether the thread runs now."""
        if not _threads_run():
            return False
        with self._starting:
            if self._thread is not None:
                return True
            thread = threading.Thread(
                target=_run,
                args=(weakref.ref(self),),
                name="flask-bitmapist-delivery",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError:  # too many threads, or the process is ending
                return False
            self._thread = thread
            return True

    def _ended(self) -> bool:
        """Whether there is still nothing to do, now that whoever has work starts another thread."""
        self._thread = None
        return self._work() is None


def _run(reference: weakref.ref[Flusher]) -> None:
    """The thread, which does not keep alive the flusher of an application that is gone."""
    last = time.monotonic()
    while (flusher := reference()) is not None:
        pause = flusher._work()
        if pause is not None:
            last = time.monotonic()
        elif time.monotonic() - last >= _IDLE:
            if not flusher._ended():
                flusher.attend()
            return
        awake = flusher._awake
        del flusher
        if awake.wait(_PAUSE if pause is None else pause):
            awake.clear()


def _threads_run() -> bool:
    """Whether threads run between requests. Under uWSGI without ``enable-threads`` they stand
    still, and the locks that they hold are held by nobody who moves."""
    uwsgi = sys.modules.get("uwsgi")
    options = getattr(uwsgi, "opt", None)
    if options is None:
        return True
    return any(options.get(name) for name in ("enable-threads", "threads"))


def _forked(reference: weakref.ref[Flusher]) -> None:
    flusher = reference()
    if flusher is not None:
        flusher._begin()
