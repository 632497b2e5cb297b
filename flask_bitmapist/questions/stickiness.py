"""In how many of the last periods people came."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from ..periods import GRAINS, Grain
from ..reading.segments import Expression
from .base import BrokenDown, PartFigure
from .fields import Choice, Count, Did, Moment, Window, asks


@dataclass(frozen=True, kw_only=True)
class StickinessQuestion(BrokenDown):
    """How many did `event` in exactly k periods of a window."""

    event: Expression = asks(Did(), help="The event that counts as active.")
    by: Grain = asks(Choice(GRAINS), "day", help="The period.")
    within: int | Literal["week", "month"] = asks(
        Window(), 28, help="A number of periods, or the calendar week or month."
    )
    end: date | datetime | None = asks(
        Moment(), None, help="A moment of the last period. Default: now."
    )

    @property
    def whom(self) -> Expression:
        return self.event


@dataclass(frozen=True, kw_only=True)
class StickinessFigure(PartFigure):
    """Who did it in exactly `k` periods; None: in any of them."""

    k: int | None = asks(Count(), None)
