"""How many did something, period by period."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

from ..periods import Grain
from ..questions import AsOf, TrendFigure, TrendQuestion
from ..reading.bitmap import Bitmap
from ..reading.bitmaps import Bitmaps, sliding_unions
from ..reading.segments import Expression
from ._breakdown import Breakdown, Divided, Values, counted
from ._report import Scope, Users, label, scope, scope_at
from ._sets import Crowd, Sets, only

if TYPE_CHECKING:
    from ..tracker import Tracker


@dataclass(frozen=True, slots=True)
class Point:
    """Unique users in one period, or in the window that ends with it."""

    period_start: date | datetime
    users: int
    #: Whether the period is over: an open one's figure may grow.
    complete: bool


@dataclass(frozen=True, slots=True)
class Trend(Divided):
    """Unique users in each period, in time order."""

    points: list[Point]


def trend(
    event: str | Expression,
    by: Grain = "day",
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    where: str | Expression | None = None,
    *,
    over: str | None = None,
    breakdown: Breakdown = None,
    as_of: AsOf = "now",
    rolling: int = 1,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Trend:
    """How many unique users did `event` in each period: n(e[p] & S[p]).

    :param event: an event's name, or a segment.
    :param by: ``hour``, ``day``, ``week``, ``month`` or ``year``.
    :param start: a moment of the first period; by default 30 days, 12 weeks, 12 months... ago.
    :param end: a moment of the last period; by default now.
    :param over: the range in words instead, such as ``last 28 days`` or ``last month``.
    :param where: only those in this segment, evaluated in each period.
    :param breakdown: also give the report for the people of each value: the name of a dimension,
        or flags and segments. See `Trend.parts`.
    :param as_of: ``then``: people count in each period under the value that they had at the end of
        its month, if the dimension is dated; ``now``: under the one that they have now.
    :param rolling: a point counts the union of this many periods, the last of which is its own.
    :param strict: an event that was never marked is an error, rather than 0.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: saying which argument is wrong, and what is allowed.
    :raises redis.RedisError: if the server does not answer.
    """
    question = TrendQuestion.of(
        event=event,
        by=by,
        start=start,
        end=end,
        over=over,
        where=where,
        breakdown=breakdown,
        as_of=as_of,
        rolling=rolling,
        strict=strict,
        now=now,
    )
    return answer(question, tracker)


def answer(question: TrendQuestion, tracker: Tracker | None) -> Trend:
    """The answer to `question`."""
    asked = scope(question, tracker)
    values = Values.of(question, asked.known)
    pairs = ((question.event, question.where), *values.pairs())
    users, *having = Users.each(*pairs, asked=asked, strict=question.strict)

    def sets(where: Expression | None) -> Sets:
        return rolling_sets(asked, Users(users.what, where), question.rolling)

    def report(counts: list[int]) -> Trend:
        return Trend(
            [
                Point(label(period), n, asked.is_complete(period))
                for period, n in zip(asked.periods, counts, strict=True)
            ]
        )

    return counted(asked, values.told(having), users.where, sets, report)


def behind(question: TrendQuestion, figure: TrendFigure, tracker: Tracker | None) -> Crowd:
    """The people behind `figure`."""
    asked = scope_at(question, figure.at, tracker)
    (users,), kind = Users.mapped(
        (question.event, question.where), asked=asked, strict=question.strict
    )
    return Crowd(rolling_sets(asked, users, question.rolling), only, kind)


def rolling_sets(asked: Scope, users: Users, rolling: int) -> Sets:
    """For each period of a scope the union of the `rolling` ones that end with it."""
    if rolling == 1:
        return Sets(
            asked.tracker,
            [*users.keys(asked.periods)],
            lambda bitmaps: (users.in_period(bitmaps, period) for period in asked.periods),
            steps=[*users.passing_keys(asked.periods)],
        )
    first, last = asked.periods[0], asked.periods[-1]
    periods = list(first.shift(1 - rolling).until(last))

    def make(bitmaps: Bitmaps) -> list[Bitmap]:
        sets = [users.in_period(bitmaps, period) for period in periods]
        return sliding_unions(sets, rolling)[: len(asked.periods)]

    return Sets(asked.tracker, [*users.keys(periods)], make)
