"""How much the users of several events overlap."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from ..periods import GRAINS, Grain
from ..reading.segments import Expression
from .base import Figure, Question
from .fields import Choice, Index, Moment, Segment, Several, asks


@dataclass(frozen=True, kw_only=True)
class OverlapQuestion(Question):
    """For each pair of `events`, how many did both in one period."""

    events: tuple[Expression, ...] = asks(
        Several(Segment()), help="The events, or segments.", spelt="event"
    )
    by: Grain = asks(Choice(GRAINS), "day", help="The period.")
    at: date | datetime | None = asks(
        Moment(), None, help="A moment of the period. Default: now.", spelt="end"
    )
    where: Expression | None = asks(Segment(), None, help="Count only people in this segment.")


@dataclass(frozen=True, kw_only=True)
class OverlapFigure(Figure):
    """Who did both of two of the events, given by their indexes."""

    one: int = asks(Index())
    other: int = asks(Index())
