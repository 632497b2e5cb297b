"""How many were active and then silent: churned users."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from ..periods import Grain
from ..questions import ChurnedFigure, ChurnedQuestion
from ..questions.fields import MOST
from ..reading.bitmap import Bitmap
from ..reading.bitmaps import Bitmaps, sliding_unions, tally
from ..reading.segments import Expression
from ..reading.time_limit import small_step
from ._report import USUAL_LENGTH, Report, Users, label, periods_of, scope_at
from ._sets import Crowd, Sets, only

if TYPE_CHECKING:
    from ..tracker import Tracker


@dataclass(frozen=True, slots=True)
class ChurnedPoint:
    """Unique users of one period.

    :ivar users: those who did nothing in the periods of silence after it.
    :ivar active: all who did something in it.
    :ivar rate: `users` as a share of `active`; None if nobody was active.
    """

    period_start: date | datetime
    users: int
    active: int
    rate: float | None


@dataclass(frozen=True, slots=True)
class Churned(Report):
    """The periods whose time of silence is over, in time order. Their figures no longer change."""

    points: list[ChurnedPoint]

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """One row a period; there may be none."""
        header = [field.name for field in dataclasses.fields(ChurnedPoint)]
        return header, [[getattr(point, name) for name in header] for point in self.points]


def churned(
    event: str | Expression,
    silent: int,
    by: Grain = "day",
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    where: str | Expression | None = None,
    *,
    over: str | None = None,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Churned:
    """How many did `event` in each period p and not in the `silent` ones after it.

    n(a[p] - (a[p+1] + ... + a[p+silent])), where a[p] = e[p] & S[p], for the periods with
    p + silent before the current one: the silence of later ones is not over.

    :param event: an event's name, or a segment.
    :param silent: the number of periods.
    :param by: ``hour``, ``day``, ``week``, ``month`` or ``year``.
    :param start: a moment of the first period; by default, of the 30th, 12th... from the end.
    :param end: a moment of the last period; by default, of the last one whose silence is over.
    :param over: the range in words instead, such as ``last 28 days`` or ``last month``.
    :param where: only those in this segment, evaluated in each period.
    :param strict: an event that was never marked is an error, rather than 0.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: saying which argument is wrong, and what is allowed.
    :raises redis.RedisError: if the server does not answer.
    """
    question = ChurnedQuestion.of(
        event=event,
        silent=silent,
        by=by,
        start=start,
        end=end,
        over=over,
        where=where,
        strict=strict,
        now=now,
    )
    return answer(question, tracker)


def answer(question: ChurnedQuestion, tracker: Tracker | None) -> Churned:
    """The answer to `question`."""
    silent, open_ = question.silent, question.silent + 1 if question.end is None else 0
    length = min((question.rows or USUAL_LENGTH[question.by]) + open_, MOST)
    asked = periods_of(
        question.by,
        question.start,
        question.end,
        question.now,
        tracker,
        over=question.over,
        length=length,
    )
    users = Users.of(question.event, question.where, asked, strict=question.strict)
    closed = [period for period in asked.periods if period.shift(silent) < asked.current]
    periods = [*closed, *(closed[-1].shift(k + 1) for k in range(silent))] if closed else []

    def count(bitmaps: Bitmaps) -> list[int]:
        sets = [users.in_period(bitmaps, period) for period in periods]
        later = sliding_unions(sets[1:], silent)
        pairs = list(zip(sets[: len(closed)], later, strict=False))
        small_step(len(pairs))
        return [len(active) for active, _ in pairs] + [
            len(active - after) for active, after in pairs
        ]

    counted = tally(asked.tracker.reader.redis, users.keys(periods), count)
    figures = zip(closed, counted[: len(closed)], counted[len(closed) :], strict=True)
    return Churned(
        [
            ChurnedPoint(label(period), gone, active, gone / active if active else None)
            for period, active, gone in figures
        ]
    )


def behind(question: ChurnedQuestion, figure: ChurnedFigure, tracker: Tracker | None) -> Crowd:
    """The people behind `figure`."""
    asked = scope_at(question, figure.at, tracker)
    (period,) = asked.periods
    (users,), kind = Users.mapped(
        (question.event, question.where), asked=asked, strict=question.strict
    )
    after = [] if figure.active else [period.shift(k + 1) for k in range(question.silent)]
    if after and not asked.is_complete(after[-1]):
        raise ValueError(
            f"the {question.silent} {question.by}s of silence after {label(period)} are not over"
        )

    def make(bitmaps: Bitmaps) -> list[Bitmap]:
        came_back = users.in_any(bitmaps, after)
        return [users.in_period(bitmaps, period) - came_back]

    return Crowd(Sets(asked.tracker, [*users.keys([period, *after])], make), only, kind)
