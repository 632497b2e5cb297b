"""Who is active: daily, weekly and monthly active users."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Literal

from ..questions import ActiveUsersFigure, ActiveUsersQuestion
from ..reading.bitmaps import Bitmaps, Extent, Extents, sliding_sizes, tally
from ..reading.segments import Expression
from ._report import Report, Users, in_range, label, periods_of
from ._sets import Crowd, only
from ._trend import rolling_sets

if TYPE_CHECKING:
    from ..tracker import Tracker

#: The days of each window.
WINDOWS = {"day": 1, "week": 7, "month": 28}


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
        over: list[int] = [getattr(point, window) for point in self.points if point.complete]
        days = WINDOWS[window]
        if len(over) <= days or not over[-1 - days]:
            return None
        return over[-1] / over[-1 - days] - 1


def active_users(
    event: str | Expression,
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    where: str | Expression | None = None,
    *,
    over: str | None = None,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> ActiveUsers:
    """Daily, weekly (7 days) and monthly (28 days) active users, and DAU/MAU.

    Arguments and errors are those of `trend`.
    """
    question = ActiveUsersQuestion.of(
        event=event, start=start, end=end, over=over, where=where, strict=strict, now=now
    )
    return answer(question, tracker)


def answer(question: ActiveUsersQuestion, tracker: Tracker | None) -> ActiveUsers:
    """The answer to `question`."""
    asked = in_range(question, "day", tracker)
    users = Users.of(question.event, question.where, asked, strict=question.strict)
    days = list(asked.periods[0].shift(-27).until(asked.periods[-1]))

    def count(bitmaps: Bitmaps) -> list[int]:
        sets = [users.in_period(bitmaps, day) for day in days]
        return sliding_sizes(sets, [*WINDOWS.values()], len(asked.periods))

    def everywhere(extents: Extents) -> dict[str, Extent]:
        return {key: extents[key] for key in keys}

    keys = [*users.keys(days)]
    counted = tally(asked.tracker.reader.redis, keys, count, everywhere)
    n = len(asked.periods)
    figures = zip(asked.periods, counted[:n], counted[n : 2 * n], counted[2 * n :], strict=True)
    return ActiveUsers(
        [
            ActivePoint(
                label(period),
                day,
                week,
                month,
                day / month if month else None,
                asked.is_complete(period),
            )
            for period, day, week, month in figures
        ]
    )


def behind(
    question: ActiveUsersQuestion, figure: ActiveUsersFigure, tracker: Tracker | None
) -> Crowd:
    """The people behind `figure`."""
    asked = periods_of("day", None, figure.at, question.now, tracker, length=1)
    (users,), kind = Users.mapped(
        (question.event, question.where), asked=asked, strict=question.strict
    )
    return Crowd(rolling_sets(asked, users, WINDOWS[figure.window]), only, kind)
