"""Which arm of an experiment does better."""

from __future__ import annotations

from dataclasses import dataclass

from ..reading.segments import Expression
from .base import Figure, Ranged
from .fields import Did, Index, Segment, Several, Switch, asks


@dataclass(frozen=True, kw_only=True)
class CompareQuestion(Ranged):
    """How many of each of `arms` did `goal`, against the first of them."""

    arms: tuple[Expression, ...] = asks(
        Several(Segment()), help="The segments to compare.", spelt="arm"
    )
    goal: Expression = asks(Did(), help="The event that is to be reached.")


@dataclass(frozen=True, kw_only=True)
class CompareFigure(Figure):
    """Who is in `arm` (its index): all, or those who did the goal, or those who did not."""

    arm: int = asks(Index(), 0, spelt="number")
    converted: bool | None = asks(Switch(), None)
