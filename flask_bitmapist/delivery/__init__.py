"""How marks reach Redis: at once or from a background thread, with a breaker and a spool.

Nothing here raises: the rows are committed and the response is on its way. So a fault is logged
once per outage, and marks that Redis did not take wait in the spool. Marks that the server refuses
are kept apart there, and hold up nothing else. Whatever takes time is the flusher's: it delivers
the queue, probes a server that failed, and drains the spool when it is back.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Sequence

from ..deadline import within
from ..marks import Settled, count
from ..server import Server
from .courier import Courier
from .flusher import Flusher, Next
from .notices import Notices
from .outage import Outage
from .queue import Queue
from .sender import Sender
from .shelter import Shelter
from .spool import Spool, server_of
from .stats import Outcomes, Stats
from .writer import Writer

__all__ = ["Delivery", "Notices", "Spool", "Stats", "Writer", "server_of"]

#: How many batches of the spool are sent before the queue is looked at again.
_SPOOL_TRIPS = 5
#: Seconds that a pass of the flusher may wait for the server: one that sends a byte now and then
#: would keep it for ever.
_PATIENCE = 10.0
#: Seconds that a caller waits for the flusher, if the queue is full.
_GRACE = 0.05


class Delivery:
    """How one application's marks get to its server."""

    def __init__(
        self,
        server: Server,
        writer: Writer,
        spool: Spool | None,
        notices: Notices,
        *,
        background: bool,
    ) -> None:
        self._server = server
        self._notices = notices
        self._outcomes = Outcomes()
        self._shelter = Shelter(spool, self._outcomes, notices)
        self._outage = Outage(server, self._shelter.fate, notices)
        self._sender = Sender(server, writer, self._shelter, self._outage, self._outcomes)
        self._courier = Courier(self._sender, self._shelter, self._outage)
        self._flusher = Flusher(self._work, self._hurry)
        self._queue = Queue() if background else None
        if background:
            atexit.register(self._end)

    def submit(self, marks: Sequence[Settled]) -> None:
        """Deliver `marks`, or queue them when delivery is in the background."""
        if self._queue is None:
            with within(self._server.timeout):
                work_to_do = self._courier.deliver(marks)
            if work_to_do:
                self._flusher.attend()
        else:
            if left := self._queue.put(marks):
                self._spill(self._queue, left)
            if self._queue.is_long:
                self._flusher.wake()
            self._flusher.attend()
        self._notices.send()

    def flush(self, timeout: float | None = None) -> bool:
        """Deliver what is queued, spooled and kept apart, whatever happened before.

        :param timeout: seconds that it may take; None: as long as it takes.
        :returns: True when nothing is left.
        """
        end = None if timeout is None else time.monotonic() + timeout
        flushed = False
        with self._flusher.alone(timeout) as alone:
            if alone:
                self._deliver_queue()
                flushed = self._courier.empty(end)
        self._notices.send()
        return flushed

    def deliver_queued(self) -> None:
        """Deliver what is queued, unless the server failed a moment ago."""
        if self._queue and not self._outage.is_on:
            with self._flusher.alone(None):
                self._deliver_queue()

    def stats(self) -> Stats:
        """What became of the marks of this process so far."""
        counted = self._outcomes
        return Stats(
            sent=counted["sent"],
            spooled=counted["spooled"],
            replayed=counted["replayed"],
            refused=self._sender.refused,
            dropped=counted["dropped"] + self._shelter.lost,
            resent=counted["resent"],
            waiting=self._shelter.reasons(),
            breaker="open" if self._outage.is_on else "closed",
            backlog=self._shelter.backlog(),
            set_aside=self._shelter.set_aside(),
        )

    def _work(self) -> Next:
        """One pass of the flusher."""
        with self._flusher.alone(None), within(_PATIENCE):
            worked = self._deliver_queue()
            goes_on = self._courier.work(_SPOOL_TRIPS)
        self._notices.send()
        if goes_on:
            return Next.NOW
        return Next.SOON if worked or self._courier.has_work else Next.NEVER

    def _hurry(self) -> None:
        """A pass of a caller, in the time that a call may take."""
        with self._flusher.alone() as alone, within(self._server.timeout):
            if alone:
                self._deliver_queue()
                self._courier.work(trips=1)

    def _deliver_queue(self) -> bool:
        """Deliver what is queued, oldest first; whether there was anything."""
        worked = False
        while self._queue:
            self._courier.deliver(self._queue.take())
            worked = True
        return worked

    def _spill(self, queue: Queue, marks: Sequence[Settled]) -> None:
        """Make room in `queue` for `marks`: its oldest go to the spool, as nothing overtakes them.

        Where there is no spool, they go to the server.
        """
        with self._flusher.alone(_GRACE) as alone, within(self._server.timeout):
            while alone and marks:
                oldest = queue.take()
                if not self._shelter.keep(oldest):
                    self._courier.deliver(oldest)
                marks = queue.put(marks)
        if marks and not self._shelter.keep(marks):
            # The flusher waits for a server that neither answers nor fails.
            self._shelter.lose(count(marks))

    def _end(self) -> None:
        """The process is ending: deliver what is queued, and queue nothing more."""
        with self._flusher.alone(None), within(_PATIENCE):
            self._deliver_queue()
            self._queue = None
