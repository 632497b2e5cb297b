"""Whether there is reason for an alarm, with the figures that say so."""

from __future__ import annotations

import math
import operator
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from ..periods import Grain, Period
from ..questions.check import CheckQuestion
from ..questions.condition import (
    Arithmetic,
    Both,
    Comparison,
    Condition,
    Either,
    Measure,
    Not,
    Number,
    Retained,
    Summary,
    Test,
    Users,
    Value,
)
from ..reading.segments import Expression
from ._report import Report, Scope, check_known, label, periods_of
from ._retention import retention
from ._trend import trend

if TYPE_CHECKING:
    from ..tracker import Tracker

#: What a command ends with if there is reason for an alarm.
ALARM = 3

_COMPARED: Mapping[str, tuple[Callable[[float, float], bool], str]] = {
    "<": (operator.lt, "less than"),
    "<=": (operator.le, "at most"),
    ">": (operator.gt, "more than"),
    ">=": (operator.ge, "at least"),
    "==": (operator.eq, "equal to"),
    "!=": (operator.ne, "other than"),
}
_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_SUMMARISED: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "min": min,
    "max": max,
}


@dataclass(frozen=True, slots=True)
class CheckedFigure:
    """A figure that a condition is about.

    :ivar figure: as it is written in the condition.
    :ivar period_start: of its period; of the first of its periods, if it sums up several.
    :ivar value: a number of users, a share of 1, or what sums up several of them.
    :ivar summed_up: the values that it sums up, by the starts of their periods.
    """

    figure: str
    by: Grain
    period_start: date | datetime
    value: float
    summed_up: dict[str, float]


@dataclass(frozen=True, slots=True)
class Check(Report):
    """Whether there is reason for an alarm.

    :ivar condition: as it was written.
    :ivar alarm: whether it holds.
    :ivar sentence: each of its comparisons, with the figures.
    """

    condition: str
    alarm: bool
    sentence: str
    figures: list[CheckedFigure]

    @property
    def exit_code(self) -> int:
        """What a command ends with: 3 if there is reason for an alarm."""
        return ALARM if self.alarm else 0

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """One row a figure."""
        header = ["figure", "by", "period_start", "value"]
        return header, [[getattr(one, name) for name in header] for one in self.figures]


def check(
    condition: str | Condition,
    *,
    at: date | datetime | None = None,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Check:
    """Whether `condition` holds for the last complete day, week, ..., with the figures.

    :param condition: see the page on reports; such as
        ``users(user:seen, day) < 0.7 * mean(previous 4 same weekdays)``.
    :param at: a moment of the period to look at instead; its figures may still grow.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: for a condition that makes no sense (`ConditionError` points at the
        character), for events that were never marked, and where there is nothing to compare with.
    :raises redis.RedisError: if the server does not answer.
    """
    return answer(CheckQuestion.of(condition=condition, at=at, now=now), tracker)


def answer(question: CheckQuestion, tracker: Tracker | None) -> Check:
    """The answer to `question`."""
    figures = _Figures(question, tracker)
    condition = question.condition
    told = [figures.told(comparison) for comparison in condition.comparisons()]
    sentence = f"{'; '.join(told)}."
    return Check(condition.text, figures.holds(condition.test), sentence, figures.checked())


class _Figures:
    """The figures of a condition, as of one moment."""

    def __init__(self, question: CheckQuestion, tracker: Tracker | None) -> None:
        self._question = question
        self._scopes = {
            by: periods_of(by, None, question.at, question.now, tracker, length=1)
            for by in {_measure_of(one).by for one in question.condition.figures()}
        }
        self._tracker = tracker
        if self._scopes:
            (scope, *_) = self._scopes.values()
            check_known(question.expressions(), scope.everything)
        #: The values of each measure, by period; none for periods before it was recorded.
        self._values: dict[Measure, dict[Period, float]] = {}
        self._known = {one: self._checked(one) for one in question.condition.figures()}

    def checked(self) -> list[CheckedFigure]:
        """Each figure."""
        return [*self._known.values()]

    def holds(self, test: Test) -> bool:
        """Whether `test` holds."""
        match test:
            case Both(left, right):
                return self.holds(left) and self.holds(right)
            case Either(left, right):
                return self.holds(left) or self.holds(right)
            case Not(negated):
                return not self.holds(negated)
            case Comparison(sign, left, right):
                compared, _ = _COMPARED[sign]
                return compared(self._value(left), self._value(right))

    def told(self, comparison: Comparison) -> str:
        """A comparison in words, with its figures."""
        left, right = self._value(comparison.left), self._value(comparison.right)
        compared, words = _COMPARED[comparison.operator]
        is_share = _is_share(comparison.left) or _is_share(comparison.right)
        sentence = f"{comparison.left_text} was {_figure(left, is_share)}"
        if isinstance(comparison.left, Measure):
            period = self._subject(comparison.left.by)
            sentence += f" {_when(period)}"
        sentence += f", {'' if compared(left, right) else 'not '}{words} {comparison.right_text}"
        if isinstance(comparison.right, Number):
            return sentence
        return f"{sentence}, which was {_figure(right, is_share)}"

    def _value(self, value: Value) -> float:
        found = self._computed(value)
        if not math.isfinite(found):
            raise ValueError("the condition has figures that are too large to compare")
        return found

    def _computed(self, value: Value) -> float:
        match value:
            case Number(_, number):
                return number
            case Arithmetic(sign, left, right):
                divisor = self._value(right)
                if sign == "/" and not divisor:
                    raise ValueError("there is nothing to divide by: the divisor is 0")
                return _ARITHMETIC[sign](self._value(left), divisor)
            case _:
                return self._known[value].value

    def _checked(self, figure: Measure | Summary) -> CheckedFigure:
        measure, subject = _measure_of(figure), self._subject(_measure_of(figure).by)
        values = self._values_of(measure)
        if not isinstance(figure, Summary):
            if subject not in values:
                raise ValueError(f"{figure.text} has no value {_when(subject)}: {_why(measure)}")
            return CheckedFigure(figure.text, measure.by, label(subject), values[subject], {})
        before = [subject.shift(-figure.step * n) for n in range(figure.count, 0, -1)]
        known = {period: values[period] for period in before if period in values}
        if not known:
            raise ValueError(
                f"{figure.text} has nothing to sum up: {_why(measure)} {_when(before[-1])} or "
                "earlier"
            )
        summarised = _SUMMARISED[figure.by]([*known.values()])
        told = {label(period).isoformat(): value for period, value in known.items()}
        return CheckedFigure(figure.text, measure.by, label(before[0]), summarised, told)

    def _values_of(self, measure: Measure) -> dict[Period, float]:
        """The values of `measure` in all periods that are needed, as far as it has any."""
        if measure not in self._values:
            subject = self._subject(measure.by)
            figures = (
                one for one in self._question.condition.figures() if isinstance(one, Summary)
            )
            back = (one.count * one.step for one in figures if one.measure == measure)
            periods = [*subject.shift(-max(back, default=0)).until(subject)]
            if isinstance(measure, Retained):
                values = _retained(measure, periods, self._question, self._tracker)
            else:
                values = _users(measure, periods, self._question, self._scopes[measure.by])
            self._values[measure] = values
        return self._values[measure]

    def _subject(self, by: Grain) -> Period:
        """The period that the condition is about: the last complete one."""
        scope = self._scopes[by]
        return scope.periods[0].shift(-1) if self._question.at is None else scope.periods[0]


def _measure_of(figure: Measure | Summary) -> Measure:
    return figure.measure if isinstance(figure, Summary) else figure


def _users(
    measure: Users, periods: Sequence[Period], asked: CheckQuestion, scope: Scope
) -> dict[Period, float]:
    """How many did it in each of `periods` that is recorded as a whole, and in the last one.

    Left out are those that begin before it was first recorded, and those that have expired.
    """
    tracker, last = scope.tracker, periods[-1]
    report = trend(
        measure.what, measure.by, periods[0].start, last.start, now=asked.now, tracker=tracker
    )
    begun = _first_day(measure.what, tracker)
    kept = tracker.settings.ttl.get(measure.by)
    return {
        period: point.users
        for period, point in zip(periods, report.points, strict=True)
        if (period.start.date() >= begun or (period == last and period.end.date() > begun))
        and (kept is None or scope.current.start - period.end < kept)
    }


def _retained(
    measure: Retained, periods: Sequence[Period], asked: CheckQuestion, tracker: Tracker | None
) -> dict[Period, float]:
    """The share of the cohort k periods before each of `periods` that came back in it."""
    cohorts = [period.shift(-measure.k) for period in periods]
    report = retention(
        measure.cohort,
        measure.returned,
        measure.by,
        measure.k,
        cohorts[0].start,
        cohorts[-1].start,
        now=asked.now,
        tracker=tracker,
    )
    rates = (row.cells[measure.k].rate for row in report.rows)
    return {period: rate for period, rate in zip(periods, rates, strict=True) if rate is not None}


def _first_day(what: Expression, tracker: Tracker) -> date:
    """The first day on which an event of `what` was recorded; of flags alone, the first of all."""
    reader = tracker.reader
    _, days = reader.kind_and_first_days(what.names(), what.events())
    return min(days.values(), default=date.max if what.events() else date.min)


def _why(measure: Measure) -> str:
    """Why a measure has no value."""
    if isinstance(measure, Retained):
        return f"nobody did {measure.cohort} for the first time {measure.k} {measure.by}s before"
    return "nothing of it was recorded"


def _is_share(value: Value) -> bool:
    """Whether a value is better told as per cent."""
    match value:
        case Number(text):
            return text.endswith("%")
        case Summary(measure=measure):
            return isinstance(measure, Retained)
        case Arithmetic("/"):
            return False
        case Arithmetic(_, left, right):
            return _is_share(left) or _is_share(right)
    return isinstance(value, Retained)


def _figure(value: float, is_share: bool) -> str:
    if is_share:
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"


def _when(period: Period) -> str:
    """The period as an adverb: on Friday, 27 Nov 2026; in the week of 23 Nov 2026."""
    day = f"{period.start.day} {period.start:%b %Y}"
    match period.grain:
        case "hour":
            return f"on {period.start:%A}, {day}, from {period.start:%H:%M}"
        case "day":
            return f"on {period.start:%A}, {day}"
        case "week":
            return f"in the week of {day}"
        case "month":
            return f"in {period.start:%B %Y}"
    return f"in {period.start:%Y}"
