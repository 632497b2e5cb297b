"""Whether there is reason for an alarm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from ..reading.segments import Expression
from .base import Question
from .condition import Condition, Retained, Summary, parse_condition
from .fields import Kind, Moment, asks


@dataclass(frozen=True, slots=True)
class Alarm(Kind):
    """A condition in its text form, or a parsed one."""

    def checked(self, name: str, value: Any) -> Any:
        return parse_condition(value)


@dataclass(frozen=True, kw_only=True)
class CheckQuestion(Question):
    """Whether `condition` holds for the last complete periods.

    :ivar condition: such as ``users(user:seen, day) < 0.7 * mean(previous 4 same weekdays)``.
    :ivar at: a moment of the period to look at, instead of the last complete one.
    """

    condition: Condition = asks(Alarm(), help="When to raise an alarm.")
    at: date | datetime | None = asks(
        Moment(), None, help="A moment of the period. Default: the last complete one."
    )

    def expressions(self) -> Iterator[Expression]:
        """The events and segments in it."""
        for figure in self.condition.figures():
            measure = figure.measure if isinstance(figure, Summary) else figure
            if isinstance(measure, Retained):
                yield from (measure.cohort, measure.returned)
            else:
                yield measure.what
