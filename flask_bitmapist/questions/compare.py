"""Which arm of an experiment does better."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import or_

from ..reading.segments import Expression
from .base import BrokenDown, PartFigure, Ranged
from .fields import Did, Index, Segment, Several, Switch, asks


@dataclass(frozen=True, kw_only=True)
class CompareQuestion(BrokenDown, Ranged):
    """How many in each of `arms` did `goal`, compared with the first arm."""

    arms: tuple[Expression, ...] = asks(
        Several(Segment()), help="The segments to compare.", spelt="arm"
    )
    goal: Expression = asks(Did(), help="The event to be reached.")

    @property
    def whom(self) -> Expression:
        return reduce(or_, self.arms)


@dataclass(frozen=True, kw_only=True)
class CompareFigure(PartFigure):
    """People in `arm` (an index): all, those who did the goal, or those who did not."""

    arm: int = asks(Index(), 0, spelt="number")
    converted: bool | None = asks(Switch(), None)
