"""Who did something before a period, and so who does it for the first time ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property, partial, reduce
from operator import or_
from typing import NamedTuple

from ..periods import Grain, Period
from ..reading.bitmap import Bitmap
from ..reading.bitmaps import Bitmaps
from ..reading.segments import Expression
from ..reading.time_limit import small_step
from ._report import Scope


class _Step(NamedTuple):
    """How the past of one period differs from that of the one before it."""

    #: The index of the longest grain of which more periods are over by now.
    changed: int
    #: The periods to add, from that grain on. Those of shorter grains are added afresh: what they
    #: told of before, a longer period tells of now.
    added: Sequence[Sequence[Period]]


@dataclass(frozen=True)
class Past:
    """Those who did `what` before each of `periods`, ever since it was first recorded.

    The longest stored period that is over tells of each past day: its month, else its week, else
    the day, and its hours if the day itself is not over. So the past of a period does not depend on
    where a report begins; bitmaps that ``BITMAPIST_TTL`` has removed are not needed where a longer
    one is kept; and five years of days are about 70 keys rather than 1,800.

    Users who are in `what` whatever happens, as because of a flag, have always been in it.

    :ivar periods: without a gap, in time order.
    :ivar first_day: a day before which nobody did it; None if nobody ever did.
    :ivar grains: of the periods that tell of the past, longest first.
    :ivar containing: makes the period of a grain that contains a moment.
    """

    what: Expression
    periods: Sequence[Period]
    first_day: date | None
    grains: Sequence[Grain]
    containing: Callable[[Grain, datetime], Period]

    @classmethod
    def of(cls, what: Expression, asked: Scope, first_day: date | None) -> Past:
        """The past of each period of a scope."""
        # What is true of a month need not be so of any of its days if `what` combines events: then
        # only periods of the report's own grain can tell.
        settings = asked.tracker.settings
        grains = _telling(asked.by, settings.ttl) if what.spreads else (asked.by,)
        return cls(what, asked.periods, first_day, grains, settings.period)

    def keys(self) -> Iterator[str]:
        yield from self.what.keys(None)
        for step in self._steps:
            for periods in step.added:
                for period in periods:
                    yield from self.what.keys(period)

    def before_each(self, bitmaps: Bitmaps) -> Iterator[Bitmap]:
        """For each of `periods`, those who did it before."""
        # By grain, those of whom its periods tell, and those of longer ones.
        told = [self.what.evaluate(bitmaps, None)] * len(self.grains)
        for changed, added in self._steps:
            small_step(1 + sum(map(len, added)))
            for index, periods in enumerate(added, start=changed):
                longer = told[index if index == changed else index - 1]
                over = (self.what.evaluate(bitmaps, period) for period in periods)
                told[index] = reduce(or_, over, longer)
            yield told[-1]

    def newcomers(self, bitmaps: Bitmaps) -> Iterator[Bitmap]:
        """For each of `periods`, those who did it for the first time ever: first(e)[p]."""
        for period, before in zip(self.periods, self.before_each(bitmaps), strict=True):
            yield self.what.evaluate(bitmaps, period) - before

    @cached_property
    def _steps(self) -> list[_Step]:
        if self.first_day is None:
            return [_Step(0, ())] * len(self.periods)
        since = datetime.combine(self.first_day, time())
        pending = [_Pending(partial(self.containing, grain), since) for grain in self.grains]
        return [_step(pending, since, period.start) for period in self.periods]


class _Pending:
    """Of a grain, the earliest period that is not over."""

    def __init__(self, containing: Callable[[datetime], Period], since: datetime) -> None:
        """
        :param containing: makes the period of the grain that contains a moment.
        :param since: a moment in it.
        """
        self._containing = containing
        self.begin(since)

    def begin(self, since: datetime) -> None:
        # A week may begin in a month that is already counted; it is past all the same.
        self.period = self._containing(since)
        self.end = self.period.end

    def until(self, now: datetime) -> list[Period]:
        """The periods that are over by `now`, which are left behind."""
        over = []
        while self.end <= now:
            over.append(self.period)
            self.period = self.period.shift(1)
            self.end = self.period.end
        return over


def _step(pending: Sequence[_Pending], since: datetime, now: datetime) -> _Step:
    """What is over by `now` of what was `pending`.

    :param since: when it was first recorded.
    """
    changed, added = 0, list[list[Period]]()
    for index, grain in enumerate(pending):
        if added:
            grain.begin(since)
        over = grain.until(now)
        if over and not added:
            changed = index
        if over or added:
            added.append(over)
        since = max(since, grain.period.start)
    return _Step(changed, added)


def _telling(by: Grain, ttl: Mapping[Grain, timedelta]) -> tuple[Grain, ...]:
    """The grains that tell of the past in a report, longest first: all that are kept long enough.

    A grain that a shorter one outlives tells of less than that.
    """
    telling: list[Grain] = []
    longest = timedelta()
    stored: tuple[Grain, ...] = ("day", "week", "month")
    for grain in stored:
        kept = ttl.get(grain, timedelta.max)
        if kept >= longest:
            telling.insert(0, grain)
            longest = kept
    # Hours are marked in part, if at all: nothing else is told by them.
    return (*telling, "hour") if by == "hour" else tuple(telling)
