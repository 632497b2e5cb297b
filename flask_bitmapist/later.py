"""Does outside of requests what takes long: a thread, which ends when nothing is left to do."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from itertools import islice

from .faults import contained_faults
from .locks import Lock
from .refusals import SERVER_ERRORS

logger = logging.getLogger("flask_bitmapist")

#: Seconds between two attempts while the server does not answer; the last one stays.
PAUSES = (0.1, 1.0, 5.0)
#: Tasks that wait, at most.
_MOST = 1_000
#: Seconds that a process waits which is ending.
_PATIENCE = 10.0
#: Seconds between two looks whether nothing is left.
_LOOK = 0.005


class Later:
    """The tasks of one kind that one process has been asked for."""

    def __init__(self, do: Callable[..., object], task: str) -> None:
        """
        :param do: does one task; raises if the server does not answer.
        :param task: what it does, as in "promote a visitor".
        """
        self._do = do
        self._task = task
        self._lock = Lock()
        self._begin_anew()
        _all.add(self)

    def _begin_anew(self) -> None:
        self._process = os.getpid()
        self._waiting: deque[tuple[object, ...]] = deque()
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()
        #: How many attempts have failed.
        self._failed = 0

    def submit(self, *task: object) -> None:
        """Do the `task` soon, unless the same one waits already."""
        if self._process != os.getpid():  # a child's parent sees to its own
            self._begin_anew()
        with self._lock:
            if task in islice(self._waiting, 1, None):  # the first one may have begun
                return
            if len(self._waiting) >= _MOST:
                logger.error("%d tasks wait for the server: it cannot %s", _MOST, self._task)
                return
            self._waiting.append(task)
            self._starts()

    def _starts(self) -> bool:
        """Whether a thread is at it, or can be now. The lock is held."""
        if self._thread is None:
            self._hurry.clear()
            thread = threading.Thread(target=self._work, name="flask-bitmapist-later", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # too many threads, or the process is ending
                logger.warning("cannot %s yet: %s", self._task, error)
                return False
            self._thread = thread
        return True

    def pause(self, seconds: float) -> None:
        """Called by what is being done: let others work for so long, unless somebody waits."""
        self._hurry.wait(seconds)

    def wait(self, timeout: float | None) -> bool:
        """Wait until nothing is left or nothing can be done, at most `timeout` seconds.

        :returns: whether nothing is left.
        """
        end = None if timeout is None else time.monotonic() + timeout
        failed = self._failed + 1  # the attempt at hand may have begun long ago
        while self._waiting and self._process == os.getpid():
            with self._lock:
                can_start = self._starts()
            if (
                not can_start
                or self._failed > failed
                or (end is not None and time.monotonic() >= end)
            ):
                return False
            self._hurry.set()
            time.sleep(_LOOK)
        return True

    def end(self) -> None:
        """Wait a while until nothing is left, as the process or the application is ending."""
        if not self.wait(_PATIENCE):
            logger.error("the process ends, and could not %s", self._task)

    def _work(self) -> None:
        failures = 0
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
            if self._is_done(*self._waiting[0], told=failures > 0):
                failures = 0
                with self._lock:
                    self._waiting.popleft()
                continue
            with self._lock:
                self._waiting.rotate(-1)  # it may be the only one that fails
            self._hurry.clear()
            self._failed += 1
            self._hurry.wait(PAUSES[min(failures, len(PAUSES) - 1)])
            failures += 1

    def _is_done(self, *task: object, told: bool) -> bool:
        with contained_faults(self._task):
            try:
                self._do(*task)
            except SERVER_ERRORS as error:
                if not told:
                    logger.warning("cannot %s until the server answers: %s", self._task, error)
                return False
        return True


_all: weakref.WeakSet[Later] = weakref.WeakSet()


def _end_all() -> None:
    for later in [*_all]:
        later.end()


atexit.register(_end_all)
