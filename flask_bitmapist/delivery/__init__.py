"""How marks reach Redis: at once or from a background thread, with a breaker and a spool.

Nothing here raises: the rows are committed and the response is on its way. So a fault is logged
once per outage, and marks that Redis did not take wait in the spool. Marks that the server refuses
are kept apart there, and hold up nothing else. Whatever takes time is the flusher's: it delivers
the queue, probes a server that failed, and drains the spool when it is back.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..deadline import within
from ..marks import Deed, Id, Settled, count
from ..server import Server
from .courier import Courier
from .ending import end_with, end_with_next, has_ended
from .flusher import Flusher, Next
from .notices import Notices
from .outage import Outage
from .people import People
from .queue import BATCH, Queue
from .sender import Sender
from .shelter import Shelter
from .spool import Spool, server_of
from .stats import Outcomes, Stats
from .writer import BULK, Writer, Written

__all__ = ["Delivery", "Notices", "People", "Spool", "Stats", "Writer", "Written", "server_of"]

#: How many batches of the spool are sent before the queue is looked at again.
_SPOOL_TRIPS = 5
#: Seconds that a pass of the flusher may wait for the server: one that sends a byte now and then
#: would keep it for ever.
_PATIENCE = 10.0
#: Seconds that a caller waits for the flusher, if the queue is full.
_GRACE = 0.05
#: Seconds between two looks for what dead processes have left.
_ADOPTION_PAUSE = 1.0


class Delivery:
    """How one application's marks get to its server."""

    def __init__(
        self,
        server: Server,
        writer: Writer,
        spool: Spool | None,
        notices: Notices,
        owner: object,
        *,
        background: bool,
    ) -> None:
        """:param owner: whoever makes marks with it: without it there will be no more."""
        self._server = server
        self._notices = notices
        self._outcomes = Outcomes()
        self._shelter = Shelter(spool, self._outcomes, notices)
        self._outage = Outage(server, self._shelter.fate, notices)
        self._sender = Sender(server, writer, self._shelter, self._outage, self._outcomes)
        self._courier = Courier(self._sender, self._shelter, self._outage)
        self._queue = Queue(spool) if background else None
        self._flusher = Flusher(self._take_up, self._work, self._hurry, self._leave, self._finish)
        #: When journals of dead processes are looked for next.
        self._adopts_at = 0.0
        end_with(owner, self)

    def add(self, what: Deed, id_: Id) -> None:
        """Deliver or queue one mark, as `submit`; the fastest way into the queue."""
        queue, flusher = self._queue, self._flusher
        if queue is None or not flusher.runs or not queue.add(what, id_):
            self.submit([(what, id_)])
        elif not flusher.runs:  # its thread has ended in between
            flusher.attend()
        elif len(queue.marks) == BATCH:
            flusher.wake()

    def submit(self, marks: Sequence[Settled]) -> None:
        """Deliver `marks`, or queue them when delivery is in the background."""
        self._flusher.enter()
        queue = self._queue  # another thread may end it
        if queue is None:
            with within(self._server.timeout):
                work_to_do = self._courier.deliver(marks, time.time())
            if work_to_do:
                self._flusher.attend()
        else:
            if left := queue.put(marks):
                self._spill(queue, left)
            if len(queue.marks) >= BATCH:
                self._flusher.wake()
            self._flusher.attend()
        self._notices.send()

    def write(self, marks: Sequence[Settled], made: float | None = None) -> Written:
        """Write `marks` now, all of them or it raises; nothing is queued or spooled.

        :param made: when they were made, at the earliest, in seconds since the epoch; None: now.
        :returns: whether the server has lost what was written before.
        :raises redis.RedisError: if the server does not take them.
        """
        self._flusher.enter()
        try:
            self._sender.write_all(marks, made)
        finally:
            self._notices.send()
        return self._sender.writer.written()

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
                self._shelter.adopt()
                flushed = self._courier.empty(end)
        self._notices.send()
        return flushed

    def catch_up(self) -> None:
        """Deliver what is queued, in the time that a mark may take, unless the server failed."""
        if self._queue is None or self._outage.is_on:
            return
        timeout = self._server.timeout
        with self._flusher.alone(timeout) as alone, within(timeout):
            if alone:
                self._deliver_queue()

    def end(self) -> None:
        """Deliver what is queued, and let go of the thread and the files.

        What is marked afterwards is delivered at once.
        """
        with self._flusher.alone(None), within(_PATIENCE):
            queue, self._queue = self._queue, None
            if queue is not None:
                if self._drain(queue):
                    self._drain(queue)  # what other threads have queued meanwhile
                queue.end()
            self._shelter.close()
        self._flusher.end()
        has_ended(self)
        self._notices.send()

    def _finish(self) -> None:
        """As `end`, when nobody uses the server any more.

        The collector may come to a connection's socket before it comes to the connection, which
        closes it: then it warns.
        """
        self.end()
        self._server.close()

    def end_soon(self) -> None:
        """As `end`, but not here: nobody makes marks any more, and the garbage collector says so.

        It may have interrupted anything: whoever holds a lock, or is changing context variables,
        which Python 3.11 does not survive. So the thread does it, or whoever makes the next one.
        Where no thread runs, what is queued waits for the end of the process.
        """
        if self._flusher.end_soon():
            return
        if self._queue is None:
            has_ended(self)  # what is left of it closes its files
        elif not self._queue:
            end_with_next(self)

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

    def _take_up(self) -> Next:
        """What the flusher does first: go on with what others have left."""
        with self._flusher.alone(None), within(_PATIENCE):
            self._adopt_now_and_then()
            goes_on = self._courier.work(_SPOOL_TRIPS)
        self._notices.send()
        return Next.NOW if goes_on else Next.SOON

    def _work(self) -> Next:
        """What it does in each further pass."""
        with self._flusher.alone(None), within(_PATIENCE):
            worked = self._deliver_queue()
            self._adopt_now_and_then()
            goes_on = self._courier.work(_SPOOL_TRIPS)
        self._notices.send()
        if goes_on:
            return Next.NOW
        if worked or self._courier.has_work:
            return Next.SOON
        return Next.WATCHES if self._courier.watches else Next.NEVER

    def _leave(self) -> None:
        """This process is a child."""
        self._shelter.begin_anew()
        self._notices.begin_anew()
        if self._queue is not None:
            self._queue.begin_anew()

    def _hurry(self) -> None:
        """A pass of a caller, in the time that a call may take."""
        with self._flusher.alone() as alone, within(self._server.timeout):
            if alone:
                self._deliver_queue()
                self._courier.work(trips=1)

    def _deliver_queue(self) -> bool:
        """Deliver what is queued, oldest first; whether there was anything."""
        queue = self._queue
        return queue is not None and self._drain(queue)

    def _drain(self, queue: Queue) -> bool:
        return queue.drain(lambda marks: self._courier.deliver(marks, queue.since_in_hand))

    def _adopt_now_and_then(self) -> None:
        """Take over what processes that were killed had queued."""
        if self._queue is not None and time.monotonic() >= self._adopts_at:
            self._shelter.adopt()
            self._adopts_at = time.monotonic() + _ADOPTION_PAUSE

    def _spill(self, queue: Queue, marks: Sequence[Settled]) -> None:
        """See to `marks`, for which the queue has no room; they do not overtake what is in it.

        They go to the spool, and the queue with them. Where there is none they go to the server, as
        do so many that their caller expects to wait.
        """
        is_bulk, made = count(marks) > BULK, time.time()
        if not is_bulk and queue.move(
            lambda moved: self._shelter.keep([(queue.since, moved)]), marks
        ):
            return
        waits = self._flusher.alone(None if is_bulk else _GRACE)
        with waits as alone, within(self._server.timeout):
            if alone:
                self._deliver_queue()
                self._courier.deliver(marks, made)
                return
        # The flusher waits for a server that neither answers nor fails.
        self._shelter.lose(count(marks))
