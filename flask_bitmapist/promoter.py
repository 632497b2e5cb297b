"""Promotes visitors outside of requests: a thread, which ends when nobody is left to promote."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from datetime import date
from typing import Any

import redis

from .faults import contained_faults
from .locks import Lock

logger = logging.getLogger("flask_bitmapist")

#: Seconds between two attempts while the server does not answer; the last one stays.
PAUSES = (0.1, 1.0, 5.0)
#: Visitors who wait, at most.
_MOST = 1_000
#: Seconds that a process waits which is ending.
_PATIENCE = 10.0
#: Seconds between two looks whether nobody is left.
_LOOK = 0.005


class Promoter:
    """The promotions that one process has been asked for."""

    def __init__(self, promote: Callable[[str, object, date], object]) -> None:
        """:param promote: promotes a visitor; raises if the server does not answer."""
        self._promote = promote
        self._lock = Lock()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._process = os.getpid()
        self._waiting: deque[tuple[str, object, date]] = deque()
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()
        #: How many attempts have failed.
        self._failed = 0

    def submit(self, visitor: str, user: object, since: date) -> None:
        """Promote `visitor` soon: see `Tracker.promote`."""
        if self._process != os.getpid():  # a child's parent sees to its own
            self._begin_anew()
        with self._lock:
            if len(self._waiting) >= _MOST:
                logger.error("a visitor was not promoted: %d wait for the server", _MOST)
                return
            self._waiting.append((visitor, user, since))
            if self._thread is None:
                thread = threading.Thread(
                    target=self._work, name="flask-bitmapist-promoter", daemon=True
                )
                thread.start()
                self._thread = thread
                atexit.register(_end, weakref.ref(self))

    def wait(self, timeout: float | None) -> bool:
        """Wait until nobody is left or the server does not answer, at most `timeout` seconds.

        :returns: whether nobody is left.
        """
        end = None if timeout is None else time.monotonic() + timeout
        failed = self._failed + 1  # the attempt at hand may have begun long ago
        while self._waiting and self._process == os.getpid():
            if self._failed > failed or (end is not None and time.monotonic() >= end):
                return False
            self._hurry.set()
            time.sleep(_LOOK)
        return True

    def end(self) -> None:
        """Wait a while until nobody is left, as the process or the application is ending."""
        if not self.wait(_PATIENCE):
            logger.error("%d visitors were not promoted", len(self._waiting))

    def _work(self) -> None:
        failures = 0
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
            if self._is_done(*self._waiting[0], told=failures > 0):
                failures = 0
                self._waiting.popleft()
                continue
            self._waiting.rotate(-1)  # it may be the only one that fails
            self._hurry.clear()
            self._failed += 1
            self._hurry.wait(PAUSES[min(failures, len(PAUSES) - 1)])
            failures += 1

    def _is_done(self, *promotion: Any, told: bool) -> bool:
        with contained_faults("promote a visitor"):
            try:
                self._promote(*promotion)
            except redis.RedisError as error:
                if not told:
                    logger.warning("visitors are promoted once the server answers: %s", error)
                return False
        return True


def _end(reference: weakref.ref[Promoter]) -> None:
    promoter = reference()
    if promoter is not None:
        promoter.end()
