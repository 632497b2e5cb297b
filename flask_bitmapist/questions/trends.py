"""How many did each of several things, period by period."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from functools import reduce
from operator import or_

from ..reading.segments import Expression
from .base import BrokenDown, PartFigure, Ranged
from .fields import Did, Index, Moment, Number, Segment, Several, Switch, asks


@dataclass(frozen=True, kw_only=True)
class TrendsQuestion(BrokenDown, Ranged):
    """How many did each of `events` in each period, or in the `rolling` ones that end with it."""

    events: tuple[Expression, ...] = asks(
        Several(Segment()), help="The events, or segments.", spelt="event"
    )
    rolling: int = asks(Number(), 1, help="How many periods each point counts, its own last.")
    previous: bool = asks(
        Switch(), False, help="Beside each period the one that is as many before as there are."
    )
    active: Expression | None = asks(
        Did(), None, help="The event that counts as active: also the share of those users."
    )

    @property
    def whom(self) -> Expression:
        several = self.events if self.active is None else (*self.events, self.active)
        return reduce(or_, several)


@dataclass(frozen=True, kw_only=True)
class TrendsFigure(PartFigure):
    """Who is in the point of `at` of the event `number` (an index).

    :ivar whole: rather who did it anywhere in the range; `at` then says nothing.
    """

    number: int = asks(Index(), 0)
    at: date | datetime | None = asks(Moment(), None)
    whole: bool = asks(Switch(), False)
