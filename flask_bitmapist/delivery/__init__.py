"""How marks reach Redis: at once or from a background thread, with a breaker and a spool.

Nothing here raises: the rows are committed and the response is on its way. So a fault is logged
once per outage, and marks that Redis did not take wait in the spool. Marks that the server refuses
are kept apart there, and hold up nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..clients import is_pool_exhausted
from ..deadline import within
from ..marks import Settled, SettledMark, count, singles
from ..refusals import SERVER_ERRORS, need_of, refusal
from ..server import Server
from .apart import Apart, Held, to_keep_apart
from .breaker import Breaker
from .notices import Notices
from .queue import Queue
from .sifting import sift
from .spool import Spool, SpoolError, server_of
from .stats import Outcome, Outcomes, Stats
from .writer import Writer

__all__ = ["Delivery", "Notices", "Spool", "Stats", "Writer", "server_of"]

logger = logging.getLogger("flask_bitmapist")

#: How many batches of the spool one delivery sends: a request should not wait for more.
_SPOOL_TRIPS = 5
#: How many marks kept apart are tried in one trip: few enough to find each refused one.
_APART_PER_TRIP = 30
#: Seconds after which marks that are kept apart are tried again, where some were refused.
_APART_PAUSE = 30.0


class _Trip(NamedTuple):
    """What became of marks that were kept apart."""

    #: 0: there are no more, or another process is trying them.
    tried: int = 0
    refused: int = 0


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
        self._writer = writer
        self._spool = spool
        self._apart = Apart(spool) if spool else None
        self._apart_due = time.monotonic() + _APART_PAUSE
        self._apart_row = 0  # the last one tried
        self._complaints: set[str] = set()
        self._breaker = Breaker()
        self._outcomes = Outcomes()
        #: #: Marks lost since the spool became unusable; None while it works.
        self._lost: int | None = None
        self._queue = Queue(self._deliver) if background else None

    def submit(self, marks: Sequence[Settled]) -> None:
        """Deliver `marks`, or queue them when delivery is in the background."""
        if self._queue is None:
            self._deliver(marks)
        elif overflow := self._queue.put(marks):
            self._queue.drain()  # they were made earlier
            self._deliver(overflow)
        self._notices.send()

    def flush(self) -> bool:
        """Deliver what is queued, spooled and kept apart, whatever happened before.

        :returns: True when nothing is left.
        """
        if self._queue is not None:
            self._queue.drain()
        flushed = self._flushed()
        self._notices.send()
        return flushed

    def _flushed(self) -> bool:
        if self._spool is None or self._apart is None:
            return True
        try:
            while self._spool.holds_marks():
                if not self._spool.drain(self._write, _SPOOL_TRIPS):
                    return False
                self._mended()
            self._apart_row = 0
            while self._apart.events() and self._try_apart().tried:
                self._mended()
            return not self._apart.events()
        except SpoolError as error:
            self._lose(0, error)
        except Exception as error:
            self._broke(error)
        return False

    def stats(self) -> Stats:
        """What became of the marks of this process so far."""
        count = self._outcomes
        return Stats(
            sent=count["sent"],
            spooled=count["spooled"],
            replayed=count["replayed"],
            refused=count["refused"] + self._writer.refused,
            dropped=count["dropped"] + (0 if self._spool is None else self._spool.lost),
            waiting=self._waiting(),
            breaker="open" if self._breaker.is_open else "closed",
            backlog=self._backlog(),
            set_aside=0 if self._spool is None else len(self._spool.file.set_aside()),
        )

    def _backlog(self) -> int:
        try:
            return 0 if self._spool is None else self._spool.backlog()
        except SpoolError as error:
            self._lose(0, error)
            return 0

    def _waiting(self) -> Mapping[str, int]:
        try:
            if self._apart is not None and self._apart.events():
                return self._apart.reasons()
        except SpoolError as error:
            self._lose(0, error)
        return {}

    def _deliver(self, marks: Sequence[Settled]) -> None:
        if not self._breaker.lets_pass():
            self._keep(marks)
            return
        # Nothing overtakes waiting marks: of a mark and an unmark of one bit, the last one decides.
        behind = self._something_waits() and self._keep(marks)
        try:
            if self._spool is not None and behind:
                self._spool.drain(self._write, _SPOOL_TRIPS)
            else:
                with within(self._server.timeout):
                    self._write(marks, "sent")
            self._mended()
            self._try_apart_now_and_then()
        except SpoolError as error:
            self._lose(0, error)
        except Exception as error:
            self._broke(error)
            if not behind:
                self._keep(marks)

    def _write(self, marks: Sequence[Settled], outcome: Outcome = "replayed") -> None:
        """Write the `marks` that the server takes, and keep the others apart.

        :raises redis.RedisError: as `Writer.write`; any other fault is raised too.
        """
        held = self._held(marks)
        behind = {mark for mark, _ in to_keep_apart(marks, held, {})} if held else set()
        writable = [mark for mark in singles(marks) if mark not in behind] if behind else marks
        refused = self._written(writable, outcome)
        if refused or behind:
            self._keep_apart(to_keep_apart(marks, held, refused))

    def _written(self, marks: Sequence[Settled], outcome: Outcome) -> dict[SettledMark, str]:
        """Write `marks`; returns those that the server refuses, each with the reason."""
        refused: dict[SettledMark, str] = {}
        left_out = sift(self._writer.write, marks)
        for mark, error in left_out.items():
            if need_of(error) is None:
                told = (mark[0].event, mark[0].kind)  # not the id, which may be an e-mail address
                logger.error("a mark cannot be delivered: %r (%s ids)", *told, exc_info=error)
                logger.debug("it cannot be delivered: %r", mark)
                self._outcomes.add("refused", 1)
            else:
                refused[mark] = self._why(error)
        missed = sum(mark in left_out for mark in singles(marks)) if left_out else 0
        self._outcomes.add(outcome, count(marks) - missed)
        return refused

    def _why(self, error: Exception) -> str:
        reason = refusal(error, self._server.name) or str(error)
        if reason not in self._complaints:
            self._complaints.add(reason)
            fate = "are lost (BITMAPIST_SPOOL is False)" if self._spool is None else "wait apart"
            logger.error("%s. Until then the marks that need it %s", reason, fate)
        return reason

    def _held(self, marks: Sequence[Settled]) -> Held:
        try:
            return {} if self._apart is None else self._apart.held(marks)
        except SpoolError as error:
            self._lose(0, error)
            return {}

    def _keep_apart(self, marks: Sequence[tuple[SettledMark, str]]) -> None:
        if self._apart is None:
            self._outcomes.add("dropped", len(marks))
            return
        try:
            self._apart.append(marks)
        except SpoolError as error:
            self._lose(len(marks), error)

    def _try_apart_now_and_then(self) -> None:
        now = time.monotonic()
        if now < self._apart_due:
            return
        self._apart_due = now + _APART_PAUSE
        if not self._some_wait_apart():
            return
        for _ in range(_SPOOL_TRIPS):
            trip = self._try_apart()
            # To find out which are refused takes many trips, and a request waits for them.
            if not trip.tried or trip.refused:
                return
        self._apart_due = now  # the server takes them: the next mark brings on more

    def _try_apart(self) -> _Trip:
        """Try the next marks kept apart, and write those that the server now takes."""
        if self._spool is None or self._apart is None:
            return _Trip()
        with self._spool.alone() as alone:
            kept = self._apart.after(self._apart_row, _APART_PER_TRIP) if alone else []
            marks = [one.mark for one in kept if one.mark is not None]
            held = self._apart.held(marks, up_to=self._apart_row)
            behind = {mark for mark, _ in to_keep_apart(marks, held, {})}
            refused = self._written([mark for mark in marks if mark not in behind], "replayed")
            stay = {mark for mark, _ in to_keep_apart(marks, held, refused)}
            self._apart.remove([one.row for one in kept if one.mark not in stay])
        if alone:
            self._apart_row = kept[-1].row if kept else 0
        if not self._apart.events():
            self._complaints.clear()  # if they are refused again, log it again
        return _Trip(len(kept), len(refused))

    def _some_wait_apart(self) -> bool:
        try:
            return self._apart is not None and bool(self._apart.events())
        except SpoolError as error:
            self._lose(0, error)
            return False

    def _something_waits(self) -> bool:
        try:
            return self._spool is not None and self._spool.holds_marks()
        except SpoolError as error:
            self._lose(0, error)
            return False

    def _broke(self, error: Exception) -> None:
        if is_pool_exhausted(error):
            # The congestion is our own: the server is fine, and the next mark may get a connection.
            logger.warning(
                "all connections to Redis are in use (%s): marks are %s", error, self._fate
            )
            return
        self._writer.forget_known()
        if self._breaker.trip():
            reason = refusal(error, self._server.name) or str(error) or type(error).__name__
            logger.warning(
                "Redis does not take marks (%s); until it does they are %s",
                reason,
                self._fate,
                exc_info=None if isinstance(error, SERVER_ERRORS) else error,
            )
            self._notices.degraded("server", reason)

    @property
    def _fate(self) -> str:
        return "lost (BITMAPIST_SPOOL is False)" if self._spool is None else "spooled"

    def _mended(self) -> None:
        if self._breaker.reset():
            logger.warning("Redis takes marks again")
            self._notices.recovered("server")

    def _keep(self, marks: Sequence[Settled]) -> bool:
        """Whether `marks` are spooled now."""
        if self._spool is None or not marks:
            self._outcomes.add("dropped", count(marks))
            return False
        try:
            self._spool.append(marks)
        except SpoolError as error:
            self._lose(count(marks), error)
            return False
        self._outcomes.add("spooled", count(marks))
        if self._lost is not None:
            lost, self._lost = self._lost, None
            logger.warning("the spool works again; %d marks were lost meanwhile", lost)
            self._notices.recovered("spool")
        return True

    def _lose(self, count: int, error: SpoolError) -> None:
        """The spool is unusable: say so once, and once it works again, how many marks were lost."""
        if self._lost is None:
            logger.error("%s; until it can, marks of an outage are lost", error)
            self._notices.degraded("spool", str(error))
        self._lost = (self._lost or 0) + count
        self._outcomes.add("dropped", count)
