"""The shelter: where marks wait that the server does not take. A fault of its file ends here."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from ..marks import Settled, SettledMark, count
from .apart import Apart, Held
from .database import SpoolBusyError
from .erasures import Waited
from .journal import adopt
from .notices import Notices
from .sent import Lost, Proof
from .spool import Spool, SpoolError
from .stats import Outcomes

logger = logging.getLogger("flask_bitmapist")

#: How many entries wait in memory for others to let go of the spool's file, at most.
_PENDING = 10_000
#: What the spool holds: nothing, or marks that wait, and perhaps any others.
_NOTHING = frozenset[str]()
_WAITING = frozenset(("spooled", "apart", "sent"))


class Shelter:
    """The spool and the marks kept apart; or neither, where marks have nowhere to wait."""

    def __init__(self, spool: Spool | None, outcomes: Outcomes, notices: Notices) -> None:
        self.spool = spool
        self.apart = Apart(spool) if spool else None
        self._outcomes = outcomes
        #: How often something was kept.
        self.kept = 0
        self._notices = notices
        self.begin_anew()

    def begin_anew(self) -> None:
        """This process is a child, or the first: what its parent has lost is not its own."""
        #: What the spool is yet to take, in order: others have kept its file locked for longer than
        #: a call may wait.
        self._pending: deque[Waited] = deque()
        #: Marks lost since the spool became unusable; None while it works.
        self._lost: int | None = None

    @property
    def fate(self) -> str:
        """What becomes of marks that the server does not take."""
        return "lost (BITMAPIST_SPOOL is False)" if self.spool is None else "spooled"

    def keep(self, waited: Sequence[Waited]) -> bool:
        """Whether the marks of `waited` wait in the spool now, behind those that do already.

        They wait in memory, if others keep its file locked.
        """
        if self.spool is None:
            return False
        earlier = self._take_pending() if self._pending else ()
        try:
            waited = [*earlier, *waited] if earlier else waited
            self.spool.append_all(waited)
        except BaseException as error:
            self._pending.extendleft(reversed(earlier))
            if not isinstance(error, SpoolError):
                raise
            if isinstance(error, SpoolBusyError) and len(self._pending) < _PENDING:
                self._pending.extend(waited[len(earlier) :])
                return True
            self.note(error)
            return False
        self.kept += 1
        self._outcomes.add("spooled", sum(count(marks) for _, marks in waited))
        if self._lost is not None:
            lost, self._lost = self._lost, None
            logger.warning("the spool works again; %d marks were lost meanwhile", lost)
            self._notices.recovered("spool")
        return True

    def _take_pending(self) -> list[Waited]:
        taken: list[Waited] = []
        with suppress(IndexError):
            while True:
                taken.append(self._pending.popleft())
        return taken

    def keep_pending(self) -> bool:
        """Whether the spool has all that waited in memory for it."""
        return not self._pending or (self.keep(()) and not self._pending)

    def close(self) -> None:
        """Close the spool's files until they are needed again."""
        self.keep_pending()
        if self.spool is not None:
            self.spool.file.close()

    def adopt(self) -> None:
        """Take over what processes that are dead had queued."""
        try:
            if self.spool is not None:
                adopt(self.spool)
        except SpoolError as error:
            self.note(error)

    def lose(self, marks: int) -> None:
        """Count `marks` that neither the server nor the spool has taken."""
        if self._lost is not None:
            self._lost += marks
        self._outcomes.add("dropped", marks)

    def note(self, error: SpoolError) -> None:
        """The spool is unusable: say so once, and once it works again, how many marks were lost.

        One that others keep locked is not: what it is to hold waits in memory.
        """
        if isinstance(error, SpoolBusyError) and len(self._pending) < _PENDING:
            logger.debug("%s", error)
        elif self._lost is None:
            self._lost = 0
            logger.error("%s; until it can, marks of an outage are lost", error)
            self._notices.degraded("spool", str(error))

    def contents(self) -> frozenset[str]:
        """What the spool holds, as `Spool.contents`, and what waits for it in memory.

        If others keep it locked, something may well wait.
        """
        if self._pending:
            return _WAITING
        try:
            return _NOTHING if self.spool is None else self.spool.contents()
        except SpoolBusyError:
            return _WAITING
        except SpoolError as error:
            self.note(error)
            return _NOTHING

    def holds_marks(self) -> bool:
        """Whether any wait in the spool, or for it."""
        return "spooled" in self.contents()

    def drain(
        self,
        write: Callable[[Sequence[Settled]], Proof | None],
        trips: int,
        living: Callable[[Sequence[Waited]], Sequence[Settled]],
    ) -> bool:
        """Hand marks of the spool to `write`, as `Spool.drain`.

        :returns: False if this was impossible, or another process is doing it.
        """
        self.keep_pending()
        try:
            return self.spool is not None and self.spool.drain(write, trips, living)
        except SpoolError as error:
            self.note(error)
            return False

    def still_last(self, lost: Lost) -> Waited:
        """Those of `lost` that no mark contradicts which began to wait later, and has been sent."""
        try:
            return lost.made, lost.marks if self.spool is None else self.spool.still_last(lost)
        except SpoolError as error:
            self.note(error)
            return lost.made, lost.marks

    def held(self, marks: Sequence[Settled]) -> Held:
        """The marks kept apart that have the same events and ids as `marks`."""
        try:
            return {} if self.apart is None else self.apart.held(marks)
        except SpoolError as error:
            self.note(error)
            return {}

    def keep_apart(self, marks: Sequence[tuple[SettledMark, str]], made: float | None) -> None:
        """Keep `marks` apart, each with its reason; without a spool they are lost.

        If others keep the spool locked they wait in memory, to be refused again.
        """
        try:
            if self.apart is not None:
                self.apart.append(marks, made)
                return
        except SpoolBusyError:
            if self.keep([(time.time() if made is None else made, [mark for mark, _ in marks])]):
                return
        except SpoolError as error:
            self.note(error)
        self.lose(len(marks))

    def reasons(self) -> Mapping[str, int]:
        """How many marks are kept apart, by reason."""
        try:
            if self.apart is not None and self.apart.events():
                return self.apart.reasons()
        except SpoolError as error:
            self.note(error)
        return {}

    @property
    def lost(self) -> int:
        """How many marks the spool has lost: it had no more room, or was damaged."""
        return 0 if self.spool is None else self.spool.lost

    def backlog(self) -> int:
        """How many marks wait in the spool."""
        try:
            return 0 if self.spool is None else self.spool.backlog()
        except SpoolError as error:
            self.note(error)
            return 0

    def set_aside(self) -> int:
        """How many damaged files of the spool there are."""
        return 0 if self.spool is None else len(self.spool.file.set_aside())
