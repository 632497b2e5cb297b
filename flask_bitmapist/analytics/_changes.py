"""What people do more and what they do less: every event in a range, and before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..periods import Grain
from ..questions import ChangesFigure, ChangesQuestion
from ..reading.bitmap import Bitmap
from ..reading.bitmaps import Bitmaps
from ..reading.segments import AsOf, Did, Event, Expression
from ._report import Report, Scope, Users, label, scope
from ._sets import Crowd, Sets, only

if TYPE_CHECKING:
    from ..tracker import Tracker


@dataclass(frozen=True, slots=True)
class Change:
    """Unique users of one event, each counted once.

    :ivar users: in the range.
    :ivar before: in as many periods right before.
    """

    event: str
    users: int
    before: int

    @property
    def change(self) -> int:
        """How many more there are; fewer if it is negative."""
        return self.users - self.before

    @property
    def rate(self) -> float | None:
        """The change as a share of those before; None if there were none."""
        return self.change / self.before if self.before else None

    def to_dict(self) -> dict[str, Any]:
        names = ("event", "users", "before", "change", "rate")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Changes(Report):
    """Every event, the largest changes first, whether up or down.

    :ivar start: the first period of the range.
    :ivar end: its last one.
    :ivar before_start: the first one of those before, which end where the range begins.
    :ivar complete: whether the last period is over: else figures may grow.
    """

    start: date | datetime
    end: date | datetime
    before_start: date | datetime
    complete: bool
    events: list[Change]

    @property
    def rising(self) -> int:
        """How many events have more users than before."""
        return sum(one.change > 0 for one in self.events)

    @property
    def falling(self) -> int:
        """How many events have fewer."""
        return sum(one.change < 0 for one in self.events)

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """One row an event."""
        header = ["event", "users", "before", "change", "rate"]
        return header, [[*one.to_dict().values()] for one in self.events]


def changes(
    by: Grain = "day",
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    where: str | Expression | None = None,
    *,
    over: str | None = None,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Changes:
    """How many more or fewer did each event in a range than in as many periods right before.

    What has changed since a release: ``changes(start=day_of_the_release)``. Each of an event's two
    figures counts different people, once each.

    :param by: the length of a period: ``hour``, ``day``, ``week``, ``month`` or ``year``. A range
        of one month is beside the month before, one of 31 days beside 31 days.
    :param start: a moment of the first period; by default 30 days, 12 weeks, 12 months... ago.
    :param end: a moment of the last period; by default now.
    :param over: the range in words instead, such as ``since 2026-10-19`` or ``last month``.
    :param where: count only people in this segment in the period. Events whose ids are of another
        kind than its own are left out.
    :param strict: a name in `where` that was never marked is an error, rather than nobody.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: saying which argument is wrong, and what is allowed.
    :raises redis.RedisError: if the server does not answer.
    """
    question = ChangesQuestion.of(
        by=by, start=start, end=end, over=over, where=where, strict=strict, now=now
    )
    return answer(question, tracker)


def answer(question: ChangesQuestion, tracker: Tracker | None) -> Changes:
    """The answer to `question`."""
    asked = scope(question, tracker)
    events = asked.everything.events
    where, kind = _where(question, asked)
    names = sorted(name for name, since in events.items() if kind is None or since.kind == kind)
    ranges = (asked, asked.before)
    did = [_Doing(name, range_, where) for name in names for range_ in ranges]
    counted = iter(_sets(asked, did).counts())
    changes = [
        Change(name, n, before) for name, n, before in zip(names, counted, counted, strict=True)
    ]
    first, last = asked.periods[0], asked.periods[-1]
    return Changes(
        label(first),
        label(last),
        label(ranges[1].periods[0]),
        asked.is_complete(last),
        sorted(changes, key=lambda one: (-abs(one.change), one.event)),
    )


def behind(question: ChangesQuestion, figure: ChangesFigure, tracker: Tracker | None) -> Crowd:
    """The people behind `figure`."""
    asked = scope(question, tracker)
    event = Event(figure.event)
    (users,), kind = Users.mapped((event, question.where), asked=asked, strict=question.strict)
    did = _Doing(figure.event, asked.before if figure.before else asked, users.where)
    return Crowd(_sets(asked, [did]), only, kind)


def _where(question: ChangesQuestion, asked: Scope) -> tuple[Expression | None, str | None]:
    """The segment as it can be evaluated, and the kind of its ids; None: any."""
    if question.where is None:
        return None, None
    (among,), kind = Users.mapped((question.where, None), asked=asked, strict=question.strict)
    is_marked = not question.where.names().isdisjoint(asked.everything.kinds)
    return among.what, kind if is_marked else None


class _Doing:
    """Those who did an event in the periods of a scope, while in a segment."""

    def __init__(self, event: str, asked: Scope, where: Expression | None) -> None:
        """:param where: as `Users.each` returns it."""
        first, last = asked.periods[0].start.date(), asked.periods[-1].end.date()
        if asked.by == "hour" or (where is not None and where.dated()):
            # Who is in it may change from period to period: longer ones do not tell.
            self._users, self._periods = Users(Event(event), where), asked.periods
        else:
            over = f"{first} to {last - timedelta(days=1)}"
            when = AsOf(asked.now, asked.tracker.settings, {})
            self._users, self._periods = (
                Users(Did(event, over).as_of(when), where),
                asked.periods[:1],
            )

    def keys(self) -> Iterator[str]:
        return self._users.keys(self._periods)

    def passing_keys(self) -> list[str]:
        """Those of the keys that no other event and no other range needs."""
        what, where = self._users.what, self._users.where
        kept = set() if where is None else {k for p in self._periods for k in where.keys(p)}
        return [k for period in self._periods for k in what.keys(period) if k not in kept]

    def made(self, bitmaps: Bitmaps) -> Bitmap:
        return self._users.in_any(bitmaps, self._periods)


def _sets(asked: Scope, did: Sequence[_Doing]) -> Sets:
    keys = dict.fromkeys(chain.from_iterable(one.keys() for one in did))
    return Sets(
        asked.tracker,
        [*keys],
        lambda bitmaps: (one.made(bitmaps) for one in did),
        steps=[one.passing_keys() for one in did],
    )
