"""Which arm of an experiment does better."""

from __future__ import annotations

from dataclasses import dataclass

from ..reading.segments import Expression
from .base import Figure, Ranged
from .fields import Did, Index, Segment, Several, Switch, asks


@dataclass(frozen=True, kw_only=True)
class CompareQuestion(Ranged):
    """How many in each of `arms` did `goal`, compared with the first arm."""

    arms: tuple[Expression, ...] = asks(
        Several(Segment()), help="The segments to compare.", spelt="arm"
    )
    goal: Expression = asks(Did(), help="The event to be reached.")


@dataclass(frozen=True, kw_only=True)
class CompareFigure(Figure):
    """People in `arm` (an index): all, those who did the goal, or those who did not."""

    arm: int = asks(Index(), 0, spelt="number")
    converted: bool | None = asks(Switch(), None)
