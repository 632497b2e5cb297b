"""How many did something, period by period: trend, and the DAU, WAU and MAU of active users."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Literal

from ..periods import Grain
from ..reading.bitmaps import Bitmap, Bitmaps, sliding_unions, tally
from ..reading.segments import Expression
from ._report import Report, Scope, Users, check_length, label, scope
from ._sets import Sets

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
class Trend(Report):
    """Unique users in each period, in time order."""

    points: list[Point]


def trend(
    event: str | Expression,
    by: Grain = "day",
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    where: str | Expression | None = None,
    *,
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
    :param where: only those in this segment, evaluated in each period.
    :param rolling: a point counts the union of this many periods, the last of which is its own.
    :param strict: an event that was never marked is an error, rather than 0.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: saying which argument is wrong, and what is allowed.
    :raises redis.RedisError: if the server does not answer.
    """
    within = scope(by, start, end, now, tracker)
    check_length("rolling", rolling)
    users = Users.of(event, where, within.tracker, strict=strict)
    counted = rolling_sets(within, users, rolling).counts()
    return Trend(
        [
            Point(label(period), n, within.is_complete(period))
            for period, n in zip(within.periods, counted, strict=True)
        ]
    )


def rolling_sets(within: Scope, users: Users, rolling: int) -> Sets:
    """For each period of a scope the union of the `rolling` ones that end with it."""
    first, last = within.periods[0], within.periods[-1]
    periods = list(first.shift(1 - rolling).until(last))

    def make(bitmaps: Bitmaps) -> list[Bitmap]:
        sets = [users.in_period(bitmaps, period) for period in periods]
        return sliding_unions(sets, rolling)[: len(within.periods)]

    return Sets(within.tracker, [*users.keys(periods)], make)


@dataclass(frozen=True, slots=True)
class ActivePoint:
    """One day: users active on it, in the 7 and in the 28 days that end with it.

    :ivar stickiness: the day's users over the 28 days' (DAU/MAU); None if there were none.
    """

    period_start: date | datetime
    day: int
    week: int
    month: int
    stickiness: float | None
    complete: bool


@dataclass(frozen=True, slots=True)
class ActiveUsers(Report):
    """DAU, WAU (7 days) and MAU (28 days), in time order."""

    points: list[ActivePoint]

    def growth(self, window: Literal["week", "month"]) -> float | None:
        """The window up to the last complete day, against the one before: 0.1 is a tenth more.

        Today, which is not over, would make every morning a decline. None if nobody was there
        before, or if the report does not reach so far back.
        """
        over = [getattr(point, window) for point in self.points if point.complete]
        days = {"week": 7, "month": 28}[window]
        return over[-1] / before - 1 if len(over) > days and (before := over[-1 - days]) else None


def active_users(
    event: str | Expression,
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    where: str | Expression | None = None,
    *,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> ActiveUsers:
    """Daily, weekly (7 days) and monthly (28 days) active users, and DAU/MAU.

    Arguments and errors are those of `trend`.
    """
    within = scope("day", start, end, now, tracker)
    users = Users.of(event, where, within.tracker, strict=strict)
    days = list(within.periods[0].shift(-27).until(within.periods[-1]))

    def count(bitmaps: Bitmaps) -> list[int]:
        sets = [users.in_period(bitmaps, day) for day in days]
        windows = (sliding_unions(sets[28 - width :], width) for width in (1, 7, 28))
        return [len(window) for unions in windows for window in unions[: len(within.periods)]]

    counted = tally(within.tracker.redis, users.keys(days), count)
    n = len(within.periods)
    figures = zip(within.periods, counted[:n], counted[n : 2 * n], counted[2 * n :], strict=True)
    return ActiveUsers(
        [
            ActivePoint(
                label(period),
                day,
                week,
                month,
                day / month if month else None,
                within.is_complete(period),
            )
            for period, day, week, month in figures
        ]
    )
