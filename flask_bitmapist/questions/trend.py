"""How many did something, period by period."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from ..reading.segments import Expression
from .base import BrokenDown, Figure, InRange, PartFigure, Ranged
from .fields import Choice, Did, Moment, Number, Segment, asks


@dataclass(frozen=True, kw_only=True)
class TrendQuestion(BrokenDown, Ranged):
    """How many did `event` in each period, or in the `rolling` ones that end with it."""

    event: Expression = asks(Did(), help="An event, or a segment.")
    rolling: int = asks(Number(), 1, help="How many periods each point counts, its own last.")

    @property
    def whom(self) -> Expression:
        return self.event


@dataclass(frozen=True, kw_only=True)
class TrendFigure(PartFigure):
    """Who is in the point of `at`."""

    at: date | datetime | None = asks(Moment(), None)


@dataclass(frozen=True, kw_only=True)
class ActiveUsersQuestion(InRange):
    """How many did `event` on each day, and in the 7 and 28 days that end with it."""

    event: Expression = asks(Did(), help="The event that counts as active.")
    where: Expression | None = asks(Segment(), None, help="Count only people in this segment.")


@dataclass(frozen=True, kw_only=True)
class ActiveUsersFigure(Figure):
    """Who was active on the day `at`, or in the week or month (7 or 28 days) that ends with it."""

    at: date | datetime | None = asks(Moment(), None)
    window: Literal["day", "week", "month"] = asks(Choice(("day", "week", "month")), "day")
