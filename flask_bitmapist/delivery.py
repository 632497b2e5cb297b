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
#: What is raised before anything is sent, now and always, because of a mark itself.
_UNSENDABLE = (redis.DataError, TypeError, ValueError)
#: Trips of the spool that one delivery makes: a request does not wait for more.
_SPOOL_TRIPS = 5
#: Marks that wait for the background thread before whoever makes more has to help.
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
        #: Marks lost since the spool cannot be used; None while it can.
        self._lost: int | None = None
        self._queue = _Queue(self._deliver) if background else None

    def submit(self, marks: Sequence[SettledMark]) -> None:
        """Deliver `marks`, or queue them when delivery is in the background."""
        if self._queue is None:
            self._deliver(marks)
        elif overflow := self._queue.put(marks):
            self._queue.drain()  # they were made earlier
            self._deliver(overflow)

    def flush(self) -> bool:
        """Deliver what is queued and spooled, whatever happened before.

        :returns: True when nothing is left.
        """
        if self._queue is not None:
            self._queue.drain()
        if self._spool is None:
            return True
        try:
            while self._spool.holds_marks():
                if not self._spool.drain(self._write, _SPOOL_TRIPS):
                    return False
                self._mended()
        except SpoolError as error:
            self._lose(0, error)
            return False
        except Exception as error:
            self._broke(error)
            return False
        return True

    def _deliver(self, marks: Sequence[SettledMark]) -> None:
        if not self._breaker.lets_pass():
            self._keep(marks)
            return
        # Nothing overtakes what waits: the last of a mark and an unmark of one bit decides.
        behind = self._something_waits() and self._keep(marks)
        try:
            if self._spool is not None and behind:
                self._spool.drain(self._write, _SPOOL_TRIPS)
            else:
                self._write(marks)
            self._mended()
        except SpoolError as error:
            self._lose(0, error)
        except Exception as error:
            self._broke(error)
            if not behind:
                self._keep(marks)

    def _write(self, marks: Sequence[SettledMark]) -> None:
        """Write `marks`; of those that cannot be sent together all that can be sent alone.

        :raises redis.RedisError: as `Writer.write`; whatever else goes wrong is raised too.
        """
        try:
            self._writer.write(marks)
        except _UNSENDABLE:
            if len(marks) == 1:
                logger.exception("a mark cannot be delivered: %r", marks[0])
                return
            self._write(marks[: len(marks) // 2])
            self._write(marks[len(marks) // 2 :])

    def _something_waits(self) -> bool:
        try:
            return self._spool is not None and self._spool.holds_marks()
        except SpoolError as error:
            self._lose(0, error)
            return False

    def _broke(self, error: Exception) -> None:
        self._writer.forget_known()
        if self._breaker.trip():
            fate = "lost (BITMAPIST_SPOOL is False)" if self._spool is None else "spooled"
            logger.warning(
                "Redis does not take marks (%s); until it does they are %s",
                error or type(error).__name__,
                fate,
                exc_info=None if isinstance(error, redis.RedisError) else error,
            )

    def _mended(self) -> None:
        if self._breaker.reset():
            logger.warning("Redis takes marks again")

    def _keep(self, marks: Sequence[SettledMark]) -> bool:
        """Whether `marks` are spooled now."""
        if self._spool is None or not marks:
            return False
        try:
            self._spool.append(marks)
        except SpoolError as error:
            self._lose(len(marks), error)
            return False
        if self._lost is not None:
            lost, self._lost = self._lost, None
            logger.warning("the spool works again; %d marks were lost meanwhile", lost)
        return True

    def _lose(self, count: int, error: SpoolError) -> None:
        """The spool cannot be used: say so once, and when it is over how many marks that cost."""
        if self._lost is None:
            logger.error("%s; until it can, marks of an outage are lost", error)
        self._lost = (self._lost or 0) + count


class _Breaker:
    """Keeps callers from waiting for a server that just failed; lets one through to probe it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._break = 0.0  # seconds; 0 while all is well
        self._until = 0.0

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
        self._ends = False
        self._after_fork()
        atexit.register(self._end)
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=functools.partial(_forked, reference))

    def _after_fork(self) -> None:
        # What the parent queued is the parent's to deliver; its locks may be held for ever here.
        self._marks: deque[SettledMark] = deque()
        self._draining = threading.RLock()  # a signal's handler may come while its thread drains
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, marks: Sequence[SettledMark]) -> Sequence[SettledMark]:
        """Queue `marks`; returns those for which there was no room, or no time any more."""
        room = 0 if self._ends else max(0, _QUEUE_LIMIT - len(self._marks))
        self._marks.extend(marks[:room])
        if self._marks and self._thread is None:
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
            if self._thread is not None:
                return
            thread = threading.Thread(
                target=self._run, name="flask-bitmapist-delivery", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # there are too many threads: whoever marks delivers
                self.drain()
            else:
                self._thread = thread

    def _end(self) -> None:
        """The process ends: deliver what is queued, and let nothing be queued any more."""
        self._ends = True
        self.drain()

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
