"""The sender: writes the marks that the server takes, and keeps apart those that it refuses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import redis

from ..marks import Settled, SettledMark, count, singles
from ..refusals import need_of, refusal
from ..server import Server
from .apart import Apart, Held, KeptApart, to_keep_apart
from .erasures import Since, Waited
from .outage import Outage
from .shelter import Shelter
from .sifting import sift
from .stats import Outcome, Outcomes
from .writer import Writer

logger = logging.getLogger("flask_bitmapist")

#: How many marks kept apart are tried in one trip: few enough to find each refused one.
_APART_PER_TRIP = 30

#: Marks that the server refuses, each with the reason.
Refused = dict[SettledMark, str]


class Trip(NamedTuple):
    """What became of marks that were kept apart."""

    #: 0: there are no more, or another process is trying them.
    tried: int = 0
    refused: int = 0


class Sender:
    """Writes to one server, and knows what it refuses."""

    def __init__(
        self,
        server: Server,
        writer: Writer,
        shelter: Shelter,
        outage: Outage,
        outcomes: Outcomes,
    ) -> None:
        self._server = server
        self.writer = writer
        self._shelter = shelter
        self._outage = outage
        self._outcomes = outcomes
        self._complaints: set[str] = set()
        self._apart_row = 0  # the last one tried

    @property
    def refused(self) -> int:
        """How many marks were refused for good."""
        return self._outcomes["refused"] + self.writer.refused

    def forget_known(self) -> None:
        """The server may have come back with other data."""
        self.writer.forget_known()

    def write(
        self,
        marks: Sequence[Settled],
        outcome: Outcome = "replayed",
        since: Since | None = None,
        *,
        none_apart: bool = False,
    ) -> None:
        """Write the `marks` that the server takes, and keep the others apart.

        :param since: as `Writer.write`.
        :param none_apart: nothing is kept apart, so that none of them waits behind it.
        :raises redis.RedisError: as `Writer.write`; any other fault is raised too.
        """
        held = {} if none_apart else self._shelter.held(marks)
        self._write_or_keep(
            marks, held, since, lambda writable: self._written(writable, outcome, since)
        )

    def _write_or_keep(
        self,
        marks: Sequence[Settled],
        held: Held,
        since: Since | None,
        written: Callable[[Sequence[Settled]], Refused],
    ) -> None:
        """Have `marks` `written`, and keep those apart that the server refuses, now or before.

        :param held: as `Shelter.held`.
        """
        behind = {mark for mark, _ in to_keep_apart(marks, held, {})} if held else set()
        writable = [mark for mark in singles(marks) if mark not in behind] if behind else marks
        refused = written(writable)
        if refused or behind:
            made = None if since is None else since.made
            self._shelter.keep_apart(to_keep_apart(marks, held, refused), made)

    def write_all(self, marks: Sequence[Settled], made: float | None = None) -> None:
        """Write `marks`: all of them, or it raises.

        :param made: when they were made, at the earliest, in seconds since the epoch; None: now.
        :raises redis.RedisError: if the server does not take them.
        """
        self._send_lost_again(at_once=True)  # they are older
        try:
            self.writer.write(*self.writer.living([(time.time() if made is None else made, marks)]))
        except Exception:
            self.forget_known()
            raise
        self._outage.end()
        self._outcomes.add("sent", count(marks))
        self._send_lost_again(at_once=True)

    def probe(self) -> None:
        """Find out whether the server takes marks again.

        :raises redis.RedisError: if it does not.
        """
        self._ask(self.writer.probe)
        self._outage.end()

    def look_back(self) -> None:
        """See to it that what the server took last is looked for once more, if nobody marks now.

        :raises redis.RedisError: as `probe`.
        """
        self._ask(self.writer.look_back)

    def _ask(self, question: Callable[[], None]) -> None:
        try:
            question()
        except redis.ResponseError as error:
            if need_of(error) is None:
                raise
        self._send_lost_again(at_once=False)

    def try_apart_anew(self) -> None:
        """Let `try_apart` begin with the oldest again."""
        self._apart_row = 0

    def try_apart(self) -> Trip:
        """Try the next marks kept apart, and write those that the server now takes.

        :raises redis.RedisError: as `write`.
        :raises SpoolError: if the spool's file cannot be used.
        """
        spool, apart = self._shelter.spool, self._shelter.apart
        if spool is None or apart is None:
            return Trip()
        with spool.alone() as alone:
            kept = apart.after(self._apart_row, _APART_PER_TRIP) if alone else []
            refused = self._try(apart, kept) if kept else {}
        if alone:
            self._apart_row = kept[-1].row if kept else 0
        if not apart.events():
            self._complaints.clear()  # if they are refused again, log it again
        return Trip(len(kept), len(refused))

    def _try(self, apart: Apart, kept: Sequence[KeptApart]) -> Refused:
        """Write those of `kept` that the server takes, which are forgotten; returns the others."""
        readable = [(one.made, [one.mark]) for one in kept if one.mark is not None]
        living, since = self.writer.living(readable)
        marks = [*singles(living)]
        held = apart.held(marks, up_to=self._apart_row)
        behind = {mark for mark, _ in to_keep_apart(marks, held, {})}
        writable = [mark for mark in marks if mark not in behind]
        refused = self._written(writable, "replayed", since)
        stay = {mark for mark, _ in to_keep_apart(marks, held, refused)}
        apart.remove([one.row for one in kept if one.mark not in stay])
        return refused

    def _written(self, marks: Sequence[Settled], outcome: Outcome, since: Since | None) -> Refused:
        """Write `marks`; returns those that the server refuses, each with the reason."""
        self._send_lost_again(at_once=True)  # they are older
        left_out = sift(partial(self.writer.write, since=since), marks)
        if marks:  # else the server has not been asked
            self._outage.end()
        refused = self._refused(left_out)
        missed = sum(mark in left_out for mark in singles(marks)) if left_out else 0
        self._outcomes.add(outcome, count(marks) - missed)
        # What waits in the spool is later than what the server has lost.
        self._send_lost_again(at_once=outcome == "replayed")
        return refused

    def _refused(self, left_out: Mapping[SettledMark, Exception]) -> Refused:
        """Those that `sift` has left out and the server may take later, each with the reason."""
        refused: Refused = {}
        for mark, error in left_out.items():
            if need_of(error) is None:
                told = (mark[0].event, mark[0].kind)  # not the id, which may be an e-mail address
                logger.error("a mark cannot be delivered: %r (%s ids)", *told, exc_info=error)
                logger.debug("it cannot be delivered: %r", mark)
                self._outcomes.add("refused", 1)
            else:
                refused[mark] = self._why(error)
        return refused

    def _send_lost_again(self, *, at_once: bool) -> None:
        """Send marks again that were written, but by a server that has gone.

        :param at_once: False: they may wait in the spool, if there is one.
        """
        lost = self.writer.take_lost()
        if not lost:
            return
        try:
            waited = [self._shelter.still_last(of_span) for of_span in lost]
            if at_once or not self._shelter.keep(waited):
                self._write_anew(waited)
        except BaseException:
            self.writer.give_back(lost)
            raise
        self._note_resent(sum(count(marks) for _, marks in waited))

    def _write_anew(self, waited: Sequence[Waited]) -> None:
        """Write marks again that the server had. Errors are those of `write`."""
        living, since = self.writer.living(waited)
        write = partial(self.writer.write, since=since)
        held = self._shelter.held(living)
        self._write_or_keep(living, held, since, lambda marks: self._refused(sift(write, marks)))

    def recall(self) -> None:
        """Have marks wait again that left the spool lately, if the server has lost them since.

        :raises redis.RedisError: if it does not answer.
        :raises SpoolError: if the spool's file cannot be used.
        """
        spool = self._shelter.spool
        if spool is None:
            return
        with spool.alone() as alone:
            if not alone or not (sent := spool.sent()):
                return
            lost, done = self.writer.sorted_out(sent)
            recalled = spool.settle(lost=lost, done=done) if lost or done else 0
        if recalled:
            self._note_resent(recalled)

    def _note_resent(self, marks: int) -> None:
        self._outcomes.add("resent", marks)
        logger.warning(
            "the server may have fallen back to an older state, as after a failover: %d marks of "
            "the last seconds are sent again",
            marks,
        )

    def _why(self, error: Exception) -> str:
        reason = refusal(error, self._server.name) or str(error)
        if reason not in self._complaints:
            self._complaints.add(reason)
            spool = self._shelter.spool
            fate = "are lost (BITMAPIST_SPOOL is False)" if spool is None else "wait apart"
            logger.error("%s. Until then the marks that need it %s", reason, fate)
        return reason
