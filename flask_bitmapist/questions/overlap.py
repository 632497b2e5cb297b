"""How much the users of several events overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..periods import GRAINS, Grain
from ..reading.segments import Expression
from .base import Figure, InRange
from .fields import Choice, Index, Segment, Several, asks


@dataclass(frozen=True, kw_only=True)
class OverlapQuestion(InRange):
    """For each pair of `events`, how many did both in a range; by default in the present period."""

    usual: ClassVar[int | None] = 1

    events: tuple[Expression, ...] = asks(
        Several(Segment()), help="The events, or segments.", spelt="event"
    )
    by: Grain = asks(Choice(GRAINS), "day", help="The period.")
    where: Expression | None = asks(Segment(), None, help="Count only people in this segment.")


@dataclass(frozen=True, kw_only=True)
class OverlapFigure(Figure):
    """Who did both of two of the events, given by their indexes."""

    one: int = asks(Index())
    other: int = asks(Index())
