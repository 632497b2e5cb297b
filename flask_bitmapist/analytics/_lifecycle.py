"""Where the active users of a period come from, and how many of the last period's left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..periods import Grain
from ..questions import AsOf, LifecycleFigure, LifecycleQuestion
from ..questions.lifecycle import GROUPS, Group
from ..reading.bitmap import Bitmap
from ..reading.bitmaps import Bitmaps
from ..reading.segments import Expression
from ._breakdown import Breakdown, Divided, Values, counted
from ._past import Past
from ._report import Scope, Users, flat_table, label, scope, scope_at
from ._sets import Crowd, Page, People, Sets, nth

if TYPE_CHECKING:
    from ..tracker import Tracker


@dataclass(frozen=True, slots=True)
class LifecyclePoint:
    """The users of one period by their past; new, returning and resurrected add up to all.

    :ivar new: active for the first time ever.
    :ivar returning: also active in the period before.
    :ivar resurrected: not active in the period before, but earlier.
    :ivar dormant: active in the period before, and not in this one.
    :ivar complete: whether the period is over; else users may move from dormant to returning.
    """

    period_start: date | datetime
    new: int
    returning: int
    resurrected: int
    dormant: int
    complete: bool

    @property
    def active(self) -> int:
        """All who were active in the period."""
        return self.new + self.returning + self.resurrected


@dataclass(frozen=True, slots=True)
class Lifecycle(Divided):
    """New, returning, resurrected and dormant users in each period, in time order.

    :ivar previous: the points of as many periods right before; empty unless they were asked for.
    """

    points: list[LifecyclePoint]
    previous: list[LifecyclePoint] = field(default_factory=list, kw_only=True)

    @property
    def average(self) -> dict[Group, float]:
        """The mean of each group over the periods that are over; empty if none is."""
        return _average(self.points)

    @property
    def previous_average(self) -> dict[Group, float]:
        """The same of the periods before; empty if they were not asked for."""
        return _average(self.previous)

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """One row a period, beside the one of the periods before, if those were asked for."""
        header, rows = flat_table(self.points)
        if not self.previous:
            return header, rows
        return [*header, *(f"previous_{group}" for group in GROUPS)], [
            [*row, *(getattr(then, group) for group in GROUPS)]
            for row, then in zip(rows, self.previous, strict=True)
        ]


def _average(points: list[LifecyclePoint]) -> dict[Group, float]:
    over = [point for point in points if point.complete]
    return {group: fmean(getattr(point, group) for point in over) for group in GROUPS if over}


def lifecycle(
    event: str | Expression,
    by: Grain = "day",
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    where: str | Expression | None = None,
    *,
    over: str | None = None,
    breakdown: Breakdown = None,
    as_of: AsOf = "now",
    previous: bool = False,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Lifecycle:
    """How many of each period's users are new, returning or resurrected, and how many went dormant.

    With `where`, only those in the segment are active; new among them are those who did `event`
    for the first time ever, in the segment or not.

    :param event: an event's name, or a segment.
    :param by: ``hour``, ``day``, ``week``, ``month`` or ``year``.
    :param start: a moment of the first period; by default 30 days, 12 weeks, 12 months... ago.
    :param end: a moment of the last period; by default now.
    :param over: the range in words instead, such as ``last 28 days`` or ``last month``.
    :param where: only those in this segment, evaluated in each period.
    :param breakdown: also give the report for the people of each value: the name of a dimension,
        or flags and segments. See `Lifecycle.parts`.
    :param as_of: ``then``: people count in each period under the value that they had at the end of
        its month, if the dimension is dated; ``now``: under the one that they have now.
    :param previous: also count the periods right before these, as many as there are.
    :param strict: an event that was never marked is an error, rather than 0.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: saying which argument is wrong, and what is allowed.
    :raises redis.RedisError: if the server does not answer.
    """
    question = LifecycleQuestion.of(
        event=event,
        by=by,
        start=start,
        end=end,
        over=over,
        where=where,
        breakdown=breakdown,
        as_of=as_of,
        previous=previous,
        strict=strict,
        now=now,
    )
    return answer(question, tracker)


def answer(question: LifecycleQuestion, tracker: Tracker | None) -> Lifecycle:
    """The answer to `question`."""
    asked = scope(question, tracker)
    shown = len(asked.periods)
    if question.previous:
        asked = asked.with_before
    values = Values.of(question, asked.known)
    pairs = ((question.event, question.where), *values.pairs())
    (users, *having), _, first_day = Users.recorded(*pairs, asked=asked, strict=question.strict)

    def sets(where: Expression | None) -> Sets:
        return _sets(asked, Users(users.what, where), first_day)

    def report(counts: list[int]) -> Lifecycle:
        counted = iter(counts)
        figures = zip(asked.periods, counted, counted, counted, counted, strict=True)
        points = [
            LifecyclePoint(
                label(period), new, returning, resurrected, dormant, asked.is_complete(period)
            )
            for period, new, returning, resurrected, dormant in figures
        ]
        return Lifecycle(points[-shown:], previous=points[:-shown])

    return counted(asked, values.told(having), users.where, sets, report)


def lifecycle_people(
    event: str | Expression,
    group: Group,
    by: Grain = "day",
    at: date | datetime | None = None,
    where: str | Expression | None = None,
    *,
    first: int = 0,
    limit: int = 50,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> People:
    """Who is new, returning, resurrected or dormant in one period, page by page.

    :param group: ``new``, ``returning``, ``resurrected`` or ``dormant``.
    :param at: a moment of the period; by default now.
    :param first: the index, from 0, of the first of them to be listed, in the order of offsets.
    :param limit: how many are listed at most, 1 to 1000.

    The other arguments and errors are those of `lifecycle`.
    """
    page = Page(first, limit)
    question = LifecycleQuestion.of(event=event, by=by, where=where, strict=strict, now=now)
    figure = LifecycleFigure.of(group=group, at=at)
    return behind(question, figure, tracker).page(page)


def behind(question: LifecycleQuestion, figure: LifecycleFigure, tracker: Tracker | None) -> Crowd:
    """The people behind `figure`."""
    asked = scope_at(question, figure.at, tracker)
    (users,), kind, first_day = Users.recorded(
        (question.event, question.where), asked=asked, strict=question.strict
    )
    sets = _sets(asked, users, first_day)
    return Crowd(sets, nth(GROUPS.index(figure.group)), kind)


def _sets(asked: Scope, users: Users, first_day: date | None) -> Sets:
    """The `GROUPS` of each period of a scope."""
    past = Past.of(users.what, asked, first_day)
    periods = [asked.periods[0].shift(-1), *asked.periods]

    def make(bitmaps: Bitmaps) -> Iterator[Bitmap]:
        active = [users.in_period(bitmaps, period) for period in periods]
        first = past.newcomers(bitmaps)
        for (before, here), newcomers in zip(pairwise(active), first, strict=True):
            back = here - before
            # After unmarking, a month may show fewer users than its days do: those who were here in
            # the period before are not new.
            new = back & newcomers
            yield from (new, here & before, back - new, before - here)

    return Sets(asked.tracker, [*users.keys(periods), *past.keys()], make)
