"""How marks reach Redis: at once or from a background thread, with a breaker and a spool.

Nothing here raises: the rows are committed and the response is on its way, so a fault is logged,
once an outage, and what Redis did not take waits in the spool.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence

import redis

from .spool import Spool, SpoolError
from .writer import SettledMark, Writer

logger = logging.getLogger("flask_bitmapist")

#: Seconds without an attempt after a fault; doubled by each further one, up to the longest.
_SHORTEST_BREAK, _LONGEST_BREAK = 1.0, 30.0
#: Trips of the spool that one delivery makes beside its own: a request does not wait for more.
_SPOOL_TRIPS = 5
#: Seconds between two looks into a spool that was empty.
_SPOOL_LOOK = 1.0
#: Marks that wait for the background thread before further ones go to the spool.
_QUEUE_LIMIT = 100_000
_QUEUE_BATCH = 5_000
_QUEUE_PAUSE = 0.1  # seconds between two looks into the queue
_QUEUE_IDLE = 50  # looks into an empty queue before the thread ends


class Delivery:
    """The way of one application's marks to its server."""

    def __init__(self, writer: Writer, spool: Spool | None, *, background: bool) -> None:
        self._writer = writer
        self._spool = spool
        self._breaker = _Breaker()
        self._next_look = 0.0
        self._queue = _Queue(self._deliver) if background else None

    def submit(self, marks: Sequence[SettledMark]) -> None:
        """Deliver `marks`, or queue them when delivery is in the background."""
        if self._queue is None:
            self._deliver(marks)
        elif overflow := self._queue.put(marks):
            self._keep(overflow)

    def flush(self) -> bool:
        """Deliver what is queued and spooled, whatever happened before.

        :returns: True when nothing is left.
        """
        if self._queue is not None:
            self._queue.drain()
        try:
            while self._spool is not None and self._spool.holds_marks():
                if not self._spool.drain(self._writer.write, _SPOOL_TRIPS):
                    return False
                self._mended()
        except (redis.RedisError, SpoolError) as error:
            self._broke(error)
        return not self._breaker.is_open

    def _deliver(self, marks: Sequence[SettledMark]) -> None:
        if not self._breaker.lets_pass():
            self._keep(marks)
            return
        try:
            if self._spool is not None and self._looks_into_spool(marks):
                self._deliver_behind(self._spool, marks)
            else:
                self._writer.write(marks)
            self._mended()
        except redis.RedisError as error:
            self._broke(error)
            self._keep(marks)
        except Exception:
            logger.exception("could not deliver %d marks", len(marks))

    def _looks_into_spool(self, marks: Sequence[SettledMark]) -> bool:
        """Whether something waits in the spool, asked now and then and before any unmark.

        What this process spooled it knows; what another one did can wait for a second.
        """
        now = time.monotonic()
        if now < self._next_look and all(mark.value for mark in marks):
            return False
        waits = self._spool is not None and self._spool.holds_marks()
        self._next_look = 0.0 if waits else now + _SPOOL_LOOK
        return waits

    def _deliver_behind(self, spool: Spool, marks: Sequence[SettledMark]) -> None:
        if all(mark.value for mark in marks):
            self._writer.write(marks)
        else:  # an unmark must not overtake the mark that it takes back
            self._keep(marks)
        spool.drain(self._writer.write, _SPOOL_TRIPS)

    def _broke(self, error: Exception) -> None:
        self._writer.forget_known()
        if self._breaker.trip():
            fate = "lost (BITMAPIST_SPOOL is False)" if self._spool is None else "spooled"
            logger.warning(
                "Redis does not take marks (%s); until it does they are %s",
                error or type(error).__name__,
                fate,
            )

    def _mended(self) -> None:
        if self._breaker.reset():
            logger.warning("Redis takes marks again")

    def _keep(self, marks: Sequence[SettledMark]) -> None:
        if self._spool is None or not marks:
            return
        try:
            self._next_look = 0.0
            self._spool.append(marks)
        except SpoolError as error:
            logger.error("%d marks are lost: %s", len(marks), error)


class _Breaker:
    """Keeps callers from waiting for a server that just failed; lets one through to probe it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._break = 0.0  # seconds; 0 while all is well
        self._until = 0.0

    @property
    def is_open(self) -> bool:
        return self._break > 0

    def lets_pass(self) -> bool:
        if not self._break:
            return True
        now = time.monotonic()
        if now < self._until or not self._lock.acquire(blocking=False):
            return False
        try:
            passes = now >= self._until
            self._until = now + self._break
            return passes
        finally:
            self._lock.release()

    def trip(self) -> bool:
        """Note a fault; True if it is the first of an outage."""
        with self._lock:
            first = not self._break
            self._break = min(max(_SHORTEST_BREAK, self._break * 2), _LONGEST_BREAK)
            self._until = time.monotonic() + self._break
            return first

    def reset(self) -> bool:
        """Note a success; True if it ends an outage."""
        ended, self._break = self._break > 0, 0.0
        return ended


class _Queue:
    """A bounded queue whose thread lives while there is work, in the process that has the work."""

    def __init__(self, deliver: Callable[[Sequence[SettledMark]], None]) -> None:
        self._deliver = deliver
        self._after_fork()
        atexit.register(self.drain)
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=functools.partial(_forked, reference))

    def _after_fork(self) -> None:
        # What the parent queued is the parent's to deliver; its locks may be held for ever here.
        self._marks: deque[SettledMark] = deque()
        self._draining = threading.Lock()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, marks: Sequence[SettledMark]) -> Sequence[SettledMark]:
        """Queue `marks`; returns those for which there was no room."""
        room = max(0, _QUEUE_LIMIT - len(self._marks))
        self._marks.extend(marks[:room])
        if self._thread is None:
            self._start()
        return marks[room:]

    def drain(self) -> None:
        """Deliver everything that is queued now, in order."""
        with self._draining:
            while self._marks:
                batch = [self._marks.popleft() for _ in range(min(_QUEUE_BATCH, len(self._marks)))]
                self._deliver(batch)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="flask-bitmapist-delivery", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        idle = 0
        while idle < _QUEUE_IDLE:
            time.sleep(_QUEUE_PAUSE)
            idle = 0 if self._marks else idle + 1
            self.drain()
        self._thread = None
        if self._marks:  # queued between the last look and the line above
            self._start()


def _forked(reference: weakref.ref[_Queue]) -> None:
    queue = reference()
    if queue is not None:
        queue._after_fork()
