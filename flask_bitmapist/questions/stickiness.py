"""In how many of the last periods people came."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from ..periods import GRAINS, Grain
from ..reading.segments import Expression
from .base import BrokenDown, PartFigure
from .fields import Choice, Count, Did, Moment, Over, Window, asks


@dataclass(frozen=True, kw_only=True)
class StickinessQuestion(BrokenDown):
    """How many did `event` in exactly k periods of a window."""

    event: Expression = asks(Did(), help="The event that counts as active.")
    by: Grain = asks(Choice(GRAINS), "day", help="The period.")
    within: int | Literal["week", "month"] | None = asks(
        Window(),
        None,
        help="A number of periods, or the calendar week or month. Default: 28, without a range.",
    )
    over: str | None = asks(
        Over(), None, help="The range in words instead: 'last 28 days', 'last month', '2026-10'."
    )
    start: date | datetime | None = asks(
        Moment(), None, help="A moment of the first period, instead of --within."
    )
    end: date | datetime | None = asks(
        Moment(), None, help="A moment of the last period. Default: now."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.over is not None and (self.within, self.start, self.end) != (None, None, None):
            raise ValueError(
                f"the range is {self.over!r}, or it has a start, an end or a window: "
                "give one or the other"
            )
        if self.start is not None and self.within is not None:
            raise ValueError("give the start of the range or its window, within, not both")
        if self.over is None and self.start is None and self.within is None:
            object.__setattr__(self, "within", 28)

    @property
    def whom(self) -> Expression:
        return self.event


@dataclass(frozen=True, kw_only=True)
class StickinessFigure(PartFigure):
    """Who did it in exactly `k` periods; None: in any of them."""

    k: int | None = asks(Count(), None)
