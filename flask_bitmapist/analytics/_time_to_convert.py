"""How many periods people take from the first step of a path to the last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from itertools import accumulate
from typing import TYPE_CHECKING

from ..periods import Grain
from ..questions import TimeToConvertFigure, TimeToConvertQuestion
from ..questions.funnel import Order
from ..reading.bitmap import Bitmap, union
from ..reading.bitmaps import Bitmaps
from ..reading.segments import Expression
from ._funnel import each_step
from ._paths import Path, times_in_any_order, times_in_order
from ._report import Report, Scope, Users, check_length, scope
from ._sets import Crowd, Sets, nth

if TYPE_CHECKING:
    from ..tracker import Tracker


@dataclass(frozen=True, slots=True)
class Taken:
    """Unique users who took so many periods.

    :ivar periods: 0 is the period of the first step itself.
    :ivar share: of all who took the last step; None if nobody did.
    :ivar complete: whether everybody has had so much time; else the figure may grow.
    """

    periods: int
    users: int
    share: float | None
    complete: bool


@dataclass(frozen=True, slots=True)
class TimeToConvert(Report):
    """How long it took; each user counts once, by the shortest time from a first step to a last.

    :ivar entered: how many took the first step.
    :ivar users: how many of them took the last one.
    """

    times: list[Taken]
    entered: int
    users: int

    @property
    def by_then(self) -> list[float | None]:
        """For each of `times`, who got there in it or sooner, as a share of `entered`."""
        sums = accumulate(taken.users for taken in self.times)
        return [users / self.entered if self.entered else None for users in sums]

    @property
    def median(self) -> int | None:
        """In so many periods half of those who took the last step were there; None if none did."""
        sums = accumulate(taken.users for taken in self.times)
        reached = (k for k, users in enumerate(sums) if 2 * users >= self.users)
        return next(reached) if self.users else None


def time_to_convert(
    steps: Iterable[str | Expression],
    by: Grain = "day",
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    within: int | None = None,
    order: Order = "ordered",
    where: str | Expression | None = None,
    *,
    over: str | None = None,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> TimeToConvert:
    """How many periods people took from the first step of a funnel to the last: its distribution.

    Those who took k periods are in the last step of ``funnel(..., within=k)``, and not in that of
    ``within=k - 1``. So who took the path several times counts by the shortest time, and those of
    all k together are the last step of the funnel.

    Arguments and errors are those of `funnel`. In any order, the time is that from whichever step
    came first.
    """
    question = TimeToConvertQuestion.of(
        steps=steps,
        by=by,
        start=start,
        end=end,
        over=over,
        within=within,
        order=order,
        where=where,
        strict=strict,
        now=now,
    )
    return answer(question, tracker)


def answer(question: TimeToConvertQuestion, tracker: Tracker | None) -> TimeToConvert:
    """The answer to `question`."""
    asked = scope(question, tracker)
    users = Users.each(*each_step(question), asked=asked, strict=question.strict)
    *counted, entered = _sets(asked, users, question).counts()
    finished, last = sum(counted), asked.periods[-1]

    def is_complete(k: int) -> bool:
        over = last if question.within is None else last.shift(k)
        return asked.is_complete(over)

    times = [
        Taken(k, n, n / finished if finished else None, is_complete(k))
        for k, n in enumerate(counted)
    ]
    return TimeToConvert(times, entered, finished)


def behind(
    question: TimeToConvertQuestion, figure: TimeToConvertFigure, tracker: Tracker | None
) -> Crowd:
    """The people behind `figure`."""
    asked, k = scope(question, tracker), figure.k
    most = _most(asked, question)
    if k is not None:
        check_length("k", k, least=0, most=most)
    users, kind = Users.mapped(*each_step(question), asked=asked, strict=question.strict)
    every = _sets(asked, users, question)

    def finished(sets: Iterable[Bitmap]) -> Bitmap:
        *times, _ = sets
        return union(times)

    return Crowd(every, finished if k is None else nth(k), kind)


def _most(asked: Scope, question: TimeToConvertQuestion) -> int:
    """The most periods that the way may take."""
    return len(asked.periods) - 1 if question.within is None else question.within


def _sets(asked: Scope, users: list[Users], question: TimeToConvertQuestion) -> Sets:
    """Who took 0, 1, ... periods; and who took the first step."""
    path, most, order = (
        Path.of(users, asked, question.within),
        _most(asked, question),
        question.order,
    )

    def make(bitmaps: Bitmaps) -> list[Bitmap]:
        took = path.took(bitmaps)
        if order == "any":
            times = times_in_any_order(took, most, len(path.entries))
        else:
            times = times_in_order(took, most, strict=order == "strict")
        return [*times, union(took[0])]

    return Sets(asked.tracker, path.keys(), make)
