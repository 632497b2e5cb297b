"""How many did each of several things, period by period, beside the periods before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..periods import Grain, Period
from ..questions import AsOf, TrendsFigure, TrendsQuestion
from ..reading.bitmap import Bitmap, UnionSoFar, union
from ..reading.bitmaps import Bitmaps, sliding_unions
from ..reading.segments import Expression
from ._breakdown import Breakdown, Divided, Values, counted
from ._report import Scope, Users, check_length, label, scope, scope_at
from ._sets import Crowd, Sets, only
from ._trend import rolling_sets

if TYPE_CHECKING:
    from ..tracker import Tracker


@dataclass(frozen=True, slots=True)
class TrendsPoint:
    """Unique users in one period, or in the window that ends with it.

    :ivar complete: whether the period is over: an open one's figure may grow.
    :ivar previous: the users of the period that is as many before as the report has; None unless
        they were asked for.
    :ivar share: which share of the period's active users did it; None unless it was asked for, or
        if nobody was active.
    :ivar previous_share: that of the previous period.
    """

    period_start: date | datetime
    users: int
    complete: bool
    previous: int | None = None
    share: float | None = None
    previous_share: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """The points of one event, in time order.

    :ivar event: the event or segment, as text.
    :ivar total: the users of the whole range, each counted once, as a point. It is complete when
        the last period is over; what is beside it is that of all the periods before.
    """

    event: str
    points: list[TrendsPoint]
    total: TrendsPoint


@dataclass(frozen=True, slots=True)
class Trends(Divided):
    """Unique users of each event in each period; the events are in the order asked for.

    The CSV table has the points alone: users of the whole range are no sum of theirs.
    """

    series: list[Series]

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """One row a point, with its event."""
        header = ["event", "period_start", "users", "complete", "previous", "share"]
        return [*header, "previous_share"], [
            [
                one.event,
                point.period_start,
                point.users,
                point.complete,
                point.previous,
                point.share,
                point.previous_share,
            ]
            for one in self.series
            for point in one.points
        ]


def trends(
    events: Iterable[str | Expression],
    by: Grain = "day",
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    where: str | Expression | None = None,
    *,
    over: str | None = None,
    breakdown: Breakdown = None,
    as_of: AsOf = "now",
    rolling: int = 1,
    previous: bool = False,
    active: str | Expression | None = None,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Trends:
    """How many unique users did each of `events` in each period: `trend` of several at once.

    :param events: events' names, or segments.
    :param previous: also count the periods right before these, as many as there are.
    :param active: also tell the share of the users of this event, in each period, who did each of
        `events`: n(e[p] & a[p] & S[p]) / n(a[p] & S[p]).

    The other arguments and errors are those of `trend`.
    """
    question = TrendsQuestion.of(
        events=events,
        by=by,
        start=start,
        end=end,
        over=over,
        where=where,
        breakdown=breakdown,
        as_of=as_of,
        rolling=rolling,
        previous=previous,
        active=active,
        strict=strict,
        now=now,
    )
    return answer(question, tracker)


def answer(question: TrendsQuestion, tracker: Tracker | None) -> Trends:
    """The answer to `question`."""
    asked, rolling = scope(question, tracker), question.rolling
    values = Values.of(question, asked.known)
    listed = [*question.events, *([] if question.active is None else [question.active])]
    pairs = [*((one, question.where) for one in listed), *values.pairs()]
    users = Users.each(*pairs, asked=asked, strict=question.strict)
    events, having = users[: len(listed)], users[len(listed) :]
    size = len(asked.periods)
    first = asked.periods[0].shift(-size if question.previous else 0)
    periods = list(first.shift(1 - rolling).until(asked.periods[-1]))
    length = len(periods) + 1 - rolling
    moments = [(label(period), asked.is_complete(period)) for period in asked.periods]
    moments.append((moments[0][0], moments[-1][1]))  # of the whole range

    def seen(users: Users, bitmaps: Bitmaps) -> Iterator[Bitmap]:
        """The users of each point and then of the whole range, of the one before first."""
        alone = [users.in_period(bitmaps, period) for period in periods]
        rolled = sliding_unions(alone, rolling)
        for begin in range(0, length, size):
            yield from rolled[begin : begin + size]
            yield union(alone[begin + rolling - 1 :][:size])

    def sets(where: Expression | None) -> Sets:
        each = [Users(one.what, where) for one in events]
        if question.active is None and rolling == 1:
            blocks = [periods[begin : begin + size] for begin in range(0, length, size)]
            return _one_by_one(asked, each, blocks)

        def make(bitmaps: Bitmaps) -> Iterator[Bitmap]:
            *doing, last = ([*seen(one, bitmaps)] for one in each)
            if question.active is None:
                doing, last = [*doing, last], []
            for did in doing:
                yield from did
                yield from (here & active for here, active in zip(did, last, strict=False))
            yield from last

        return Sets(asked.tracker, [key for one in each for key in one.keys(periods)], make)

    def report(counts: list[int]) -> Trends:
        figures = len(moments) * (2 if question.previous else 1)
        lists = [counts[at : at + figures] for at in range(0, len(counts), figures)]
        whole = lists.pop() if question.active is not None else None
        both = [None] * len(lists) if whole is None else lists[1::2]
        did = lists if whole is None else lists[::2]
        return Trends(
            [
                _series(question, str(event), moments, here, common, whole)
                for event, here, common in zip(question.events, did, both, strict=True)
            ]
        )

    return counted(asked, values.told(having), events[0].where, sets, report)


def _one_by_one(asked: Scope, each: Sequence[Users], blocks: Sequence[Sequence[Period]]) -> Sets:
    """The users of each period and then of the whole block: one period is read at a time."""

    def make(bitmaps: Bitmaps) -> Iterator[Bitmap]:
        for users in each:
            for block in blocks:
                whole = UnionSoFar()
                for period in block:
                    here = users.in_period(bitmaps, period)
                    yield here
                    whole.add(here)
                yield whole.bitmap()

    lasting = dict.fromkeys(key for users in each for key in users.lasting_keys(blocks[0]))
    steps = [
        # What one of them reads for several periods may be what another reads for one.
        [key for key in keys if key not in lasting]
        for users in each
        for block in blocks
        for keys in (*users.passing_keys(block), [])
    ]
    return Sets(asked.tracker, [*lasting, *chain.from_iterable(steps)], make, steps)


def behind(question: TrendsQuestion, figure: TrendsFigure, tracker: Tracker | None) -> Crowd:
    """The people behind `figure`."""
    check_length("number", figure.number, least=0, most=len(question.events) - 1)
    rolling, at = question.rolling, figure.at
    if figure.whole:
        whole = scope(question, tracker).periods
        rolling, at = len(whole), whole[-1].start
    asked = scope_at(question, at, tracker)
    (users,), kind = Users.mapped(
        (question.events[figure.number], question.where), asked=asked, strict=question.strict
    )
    return Crowd(rolling_sets(asked, users, rolling), only, kind)


def _series(
    question: TrendsQuestion,
    event: str,
    moments: Sequence[tuple[date | datetime, bool]],
    did: list[int],
    common: list[int] | None,
    active: list[int] | None,
) -> Series:
    """The series of `event`.

    :param moments: the beginning of each figure's period, and whether that is over.
    :param did: the figures, after those of the range before, if it is asked for.
    :param common: how many of them were active.
    :param active: how many were active.
    """
    size = len(moments)
    starts, complete = zip(*moments, strict=True)
    shares = _shares(common, active, len(did))
    nothing = [None] * size
    before, share_before = (did, shares) if question.previous else (nothing, nothing)
    *points, total = map(
        TrendsPoint, starts, did[-size:], complete, before, shares[-size:], share_before
    )
    return Series(event, points, total)


def _shares(common: list[int] | None, active: list[int] | None, number: int) -> list[float | None]:
    """Which share of the active each of a `number` of figures is."""
    if common is None or active is None:
        return [None] * number
    return [n / whole if whole else None for n, whole in zip(common, active, strict=True)]
