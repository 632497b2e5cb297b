"""The queue of background delivery, and the thread that empties it."""

from __future__ import annotations

import atexit
import functools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence

from ..marks import Settled, SettledMark, singles

#: How many marks may wait for the background thread before callers must help.
_LIMIT = 100_000
_BATCH = 5_000
_PAUSE = 0.1  # seconds between two checks of the queue
_IDLE = 50  # checks of an empty queue before the thread ends


class Queue:
    """A bounded queue whose thread lives while there is work, in the process that has the work."""

    def __init__(self, deliver: Callable[[Sequence[Settled]], None]) -> None:
        self._deliver = deliver
        self._ends = False
        self._after_fork()
        atexit.register(self._end)
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=functools.partial(_forked, reference))

    def _after_fork(self) -> None:
        # The parent delivers what it queued; here, its locks may stay held for ever.
        self._marks: deque[SettledMark] = deque()
        self._draining = threading.RLock()  # a signal handler may run while its thread drains
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, marks: Sequence[Settled]) -> Sequence[Settled]:
        """Queue `marks`; returns those for which there is no room, or no time left."""
        room = 0 if self._ends else max(0, _LIMIT - len(self._marks))
        each = [*singles(marks)]
        self._marks.extend(each[:room])
        if self._marks and self._thread is None:
            self._start()
        return each[room:]

    def drain(self) -> None:
        """Deliver everything that is queued now, in order."""
        with self._draining:
            while self._marks:
                batch = [self._marks.popleft() for _ in range(min(_BATCH, len(self._marks)))]
                self._deliver(batch)

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            thread = threading.Thread(
                target=self._run, name="flask-bitmapist-delivery", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # too many threads: the caller delivers
                self.drain()
            else:
                self._thread = thread

    def _end(self) -> None:
        """The process is ending: deliver what is queued, and accept nothing more."""
        self._ends = True
        self.drain()

    def _run(self) -> None:
        idle = 0
        while idle < _IDLE:
            time.sleep(_PAUSE)
            idle = 0 if self._marks else idle + 1
            self.drain()
        self._thread = None
        if self._marks:  # queued between the last check and the line above
            self._start()


def _forked(reference: weakref.ref[Queue]) -> None:
    queue = reference()
    if queue is not None:
        queue._after_fork()
