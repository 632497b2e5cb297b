"""How the conversion of a funnel changes, by the period in which people began."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..periods import Grain
from ..questions import ConversionFigure, ConversionQuestion
from ..questions.conversion import Following
from ..reading.bitmap import EMPTY, Bitmap
from ..reading.bitmaps import Bitmaps
from ..reading.segments import Expression
from ._funnel import each_step
from ._paths import Path, in_order
from ._report import Report, Scope, Users, check_length, label, scope, scope_at
from ._sets import Crowd, Sets, nth

if TYPE_CHECKING:
    from ..tracker import Tracker


@dataclass(frozen=True, slots=True)
class ConversionPoint:
    """Those who took the first step in one period.

    :ivar users: for each step, how many of them took it and all before it in time.
    :ivar rate: those of the last step as a share of those of the first; None if there were none.
    :ivar complete: whether their time is over; else the figures may grow.
    """

    period_start: date | datetime
    users: tuple[int, ...]
    rate: float | None
    complete: bool

    @property
    def left(self) -> int:
        """How many took the first step and not the last one, or not yet."""
        return self.users[0] - self.users[-1]


@dataclass(frozen=True, slots=True)
class Conversion(Report):
    """The conversion of each period of entry, in time order. Who entered in two is in both.

    :ivar steps: the text forms of the steps.
    """

    steps: tuple[str, ...]
    points: list[ConversionPoint]

    @property
    def average(self) -> float | None:
        """The pooled rate of the complete points; None if nobody began in them."""
        complete = [point.users for point in self.points if point.complete]
        entered = sum(users[0] for users in complete)
        return sum(users[-1] for users in complete) / entered if entered else None

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """One row a period, with a column for each step, by its number and name."""
        named = [f"{number}. {step}" for number, step in enumerate(self.steps, start=1)]
        return ["period_start", *named, "rate", "complete"], [
            [point.period_start, *point.users, point.rate, point.complete] for point in self.points
        ]


def conversion(
    steps: Iterable[str | Expression],
    within: int,
    by: Grain = "day",
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    order: Following = "ordered",
    where: str | Expression | None = None,
    *,
    over: str | None = None,
    strict: bool = False,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Conversion:
    """Of those who took the first step in each period, how many took the others in time.

    A point is the funnel of those who entered in its period:
    ``funnel(steps, by, period, period, within, order, where)``.

    :param steps: events' names, or segments.
    :param within: at most so many periods after the first step, in which all others are taken.
    :param order: ``ordered`` or ``strict``, as in `funnel`.

    The other arguments and errors are those of `funnel`.
    """
    question = ConversionQuestion.of(
        steps=steps,
        within=within,
        by=by,
        start=start,
        end=end,
        over=over,
        order=order,
        where=where,
        strict=strict,
        now=now,
    )
    return answer(question, tracker)


def answer(question: ConversionQuestion, tracker: Tracker | None) -> Conversion:
    """The answer to `question`."""
    asked, size = scope(question, tracker), len(question.steps)
    users = Users.each(*each_step(question), asked=asked, strict=question.strict)
    counted = iter(_sets(asked, users, question).counts())

    def points() -> Iterator[ConversionPoint]:
        for period in asked.periods:
            reached = tuple(islice(counted, size))
            rate = reached[-1] / reached[0] if reached[0] else None
            is_over = asked.is_complete(period.shift(question.within))
            yield ConversionPoint(label(period), reached, rate, is_over)

    return Conversion(tuple(map(str, question.steps)), [*points()])


def behind(
    question: ConversionQuestion, figure: ConversionFigure, tracker: Tracker | None
) -> Crowd:
    """The people behind `figure`."""
    last = len(question.steps) - 1
    check_length("step", figure.step, least=0 if figure.which == "reached" else 1, most=last)
    asked = scope_at(question, figure.at, tracker)
    users, kind = Users.mapped(*each_step(question), asked=asked, strict=question.strict)
    is_over = asked.is_complete(asked.periods[0].shift(question.within))
    pick = nth(figure.step)
    if figure.which != "reached":
        pick = _left(figure.step) if is_over == (figure.which == "dropped") else _nobody
    return Crowd(_sets(asked, users, question), pick, kind)


def _left(step: int) -> Callable[[Iterable[Bitmap]], Bitmap]:
    def pick(sets: Iterable[Bitmap]) -> Bitmap:
        entered, *_, reached = islice(sets, step + 1)
        return entered - reached

    return pick


def _nobody(sets: Iterable[Bitmap]) -> Bitmap:
    return EMPTY


def _sets(asked: Scope, users: list[Users], question: ConversionQuestion) -> Sets:
    """For each period of a scope, who of those who entered in it reached each step."""
    path, within = Path.of(users, asked, question.within), question.within
    # What is dated in the future counts for nobody who entered before.
    begun = sum(period <= asked.current for period in path.periods)

    def make(bitmaps: Bitmaps) -> Iterator[Bitmap]:
        entered, *following = path.took(bitmaps)
        for number in range(len(path.entries)):
            window = slice(number, max(number + 1, min(number + within + 1, begun)))
            others = (step[window] for step in following)
            first = [entered[number], *[EMPTY] * (len(path.periods[window]) - 1)]
            yield from in_order([first, *others], strict=question.order == "strict")

    return Sets(asked.tracker, path.keys(), make)
