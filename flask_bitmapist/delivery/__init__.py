"""How marks reach Redis: at once or from a background thread, with a breaker and a spool.

Nothing here raises: the rows are committed and the response is on its way, so a fault is logged,
once an outage, and what Redis did not take waits in the spool.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import redis

from ..marks import SettledMark
from .breaker import Breaker
from .queue import Queue
from .spool import Spool, SpoolError, server_of
from .writer import Writer

__all__ = ["Delivery", "Spool", "Writer", "server_of"]

logger = logging.getLogger("flask_bitmapist")

#: What is raised before anything is sent, now and always, because of a mark itself.
_UNSENDABLE = (redis.DataError, TypeError, ValueError)
#: Trips of the spool that one delivery makes: a request does not wait for more.
_SPOOL_TRIPS = 5


class Delivery:
    """The way of one application's marks to its server."""

    def __init__(self, writer: Writer, spool: Spool | None, *, background: bool) -> None:
        self._writer = writer
        self._spool = spool
        self._breaker = Breaker()
        #: Marks lost since the spool cannot be used; None while it can.
        self._lost: int | None = None
        self._queue = Queue(self._deliver) if background else None

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
