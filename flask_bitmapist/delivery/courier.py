"""The courier: brings marks to the server in order, or to the spool while it does not take them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..marks import Settled, count
from .erasures import Since, Waited
from .outage import Outage
from .sender import Sender
from .sent import Proof
from .shelter import Shelter
from .spool import SpoolError

#: Seconds after which marks that are kept apart are tried again, where some were refused.
_APART_PAUSE = 30.0
#: Seconds between two looks whether the server still has what left the spool.
_RECALL_PAUSE = 10.0
#: Seconds that `empty` waits while another process drains the spool, and between two looks.
_PATIENCE, _LOOK = 5.0, 0.01
#: What the spool may hold, if nobody looks.
_UNKNOWN = frozenset(("spooled", "apart"))


class Courier:
    """Brings marks to one server; nothing overtakes marks that wait."""

    def __init__(self, sender: Sender, shelter: Shelter, outage: Outage) -> None:
        self._sender = sender
        self._shelter = shelter
        self._outage = outage
        self._apart_due = time.monotonic() + _APART_PAUSE
        self._recall_due = 0.0
        self._era: object = None

    def deliver(self, marks: Sequence[Settled], made: float) -> bool:
        """Write `marks`, or see that they wait.

        :param made: a moment before which none of them was made, in seconds since the epoch.
        :returns: whether there is something to `work` at now.
        """
        # Of a mark and an unmark of one bit, the last one decides: so none overtakes those waiting.
        contents = _UNKNOWN if self._outage.is_on else self._shelter.contents()
        if "spooled" in contents and self._shelter.keep([(made, marks)]):
            return True
        # With a spool that fails each mark tries the server, as it would be lost otherwise.
        if self._shelter.spool is None and not self._outage.breaker.lets_pass():
            self._shelter.lose(count(marks))
            return True
        kept = self._shelter.kept
        try:
            none_apart = "apart" not in contents
            self._sender.write(marks, "sent", Since(made), none_apart=none_apart)
        except Exception as error:
            self._broke(error)
            if not self._shelter.keep([(made, marks)]):
                self._shelter.lose(count(marks))
            return True
        # What the server turned out to have lost may wait to be sent again.
        return self._shelter.kept != kept or (
            bool(contents) and (self._is_apart_due(contents) or self._is_recall_due(contents))
        )

    @property
    def has_work(self) -> bool:
        """Whether there is anything for `work`, now or later."""
        return self._outage.is_on or not {"spooled", "apart"}.isdisjoint(self._shelter.contents())

    @property
    def watches(self) -> bool:
        """Whether there will be something to `work` at, though nobody marks any more."""
        return self._sender.writer.watches or "sent" in self._shelter.contents()

    def work(self, trips: int) -> bool:
        """Send what waits, in at most `trips` trips, and find out if a server that failed is back.

        :returns: whether there is more to send at once.
        """
        if not self._outage.breaker.lets_pass():
            return False
        try:
            contents = self._shelter.contents()
            if self._is_recall_due(contents):
                self._recall()
                contents = self._shelter.contents()
            if "spooled" in contents:
                replay = _Replay(self._sender)
                drained = self._shelter.drain(replay.write, trips, replay.living)
                return drained and self._shelter.holds_marks()
            if self._outage.is_on:
                self._sender.probe()
            self._sender.look_back()
            return self._is_apart_due(contents) and self._try_apart(trips)
        except Exception as error:
            self._broke(error)
            return False

    def empty(self, end: float | None) -> bool:
        """Send all that waits, whatever happened before.

        :param end: when to stop, by `time.monotonic`.
        :returns: whether nothing is left.
        """
        try:
            if not self._shelter.keep_pending():
                return False
            self._recall()
            return self._drain(end) and self._empty_apart(end)
        except SpoolError as error:
            self._shelter.note(error)
        except Exception as error:
            self._broke(error)
        return False

    def _drain(self, end: float | None) -> bool:
        spool = self._shelter.spool
        patience = time.monotonic() + _PATIENCE
        while spool is not None and spool.holds_marks():
            if _is_over(end):
                return False
            replay = _Replay(self._sender)
            if not spool.drain(replay.write, 1, replay.living):
                if _is_over(patience):
                    return False
                time.sleep(_LOOK)
        return True

    def _empty_apart(self, end: float | None) -> bool:
        apart = self._shelter.apart
        self._sender.try_apart_anew()
        while apart is not None and apart.events():
            if _is_over(end) or not self._sender.try_apart().tried:
                return False
        return True

    def _is_recall_due(self, contents: frozenset[str]) -> bool:
        return "sent" in contents and (
            time.monotonic() >= self._recall_due or self._era is not self._sender.writer.era
        )

    def _recall(self) -> None:
        """Have marks wait again that left the spool lately, if the server has lost them."""
        self._recall_due = time.monotonic() + _RECALL_PAUSE
        self._era = self._sender.writer.era
        try:
            if "sent" in self._shelter.contents():
                self._sender.recall()
        except SpoolError as error:
            self._shelter.note(error)

    def _is_apart_due(self, contents: frozenset[str]) -> bool:
        return "apart" in contents and time.monotonic() >= self._apart_due

    def _try_apart(self, trips: int) -> bool:
        self._apart_due = time.monotonic() + _APART_PAUSE
        try:
            for _ in range(trips):
                trip = self._sender.try_apart()
                # To find out which are refused takes many trips.
                if not trip.tried or trip.refused:
                    return False
        except SpoolError as error:
            self._shelter.note(error)
            return False
        self._apart_due = time.monotonic()  # the server takes them: go on
        return True

    def _broke(self, error: Exception) -> None:
        if self._outage.begin(error):
            self._sender.forget_known()


class _Replay:
    """Sends marks of the spool: for each trip `living`, and then `write`."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._since: Since | None = None

    def living(self, waited: Sequence[Waited]) -> Sequence[Settled]:
        living, self._since = self._sender.writer.living(waited)
        return living

    def write(self, marks: Sequence[Settled]) -> Proof:
        self._sender.write(marks, "replayed", self._since)
        return self._sender.writer.proof()


def _is_over(end: float | None) -> bool:
    return end is not None and time.monotonic() >= end
