"""Where the active users come from, and how many left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, get_args

from ..reading.segments import Expression
from .base import BrokenDown, PartFigure, Ranged
from .fields import Choice, Did, Moment, Switch, asks

#: The groups of a period's users by their past, in the order of a `LifecyclePoint`'s figures.
Group = Literal["new", "returning", "resurrected", "dormant"]
GROUPS: tuple[Group, ...] = get_args(Group)


@dataclass(frozen=True, kw_only=True)
class LifecycleQuestion(BrokenDown, Ranged):
    """Who is new, returning, resurrected or dormant in `event`, period by period."""

    event: Expression = asks(Did(), help="The event that counts as active.")
    previous: bool = asks(
        Switch(), False, help="Beside each period the one that is as many before as there are."
    )

    @property
    def whom(self) -> Expression:
        return self.event


@dataclass(frozen=True, kw_only=True)
class LifecycleFigure(PartFigure):
    """One group of one period."""

    group: Group = asks(Choice(GROUPS))
    at: date | datetime | None = asks(Moment(), None)
