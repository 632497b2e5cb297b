"""Days of the application's calendar, and which moments lie in them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import SupportsInt

import numpy as np
from numpy.typing import NDArray

from .moments import Seconds

_EPOCH = date(1970, 1, 1)
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Days:
    """The days that are asked for, both included; None: there is no limit."""

    since: date | None = None
    until: date | None = None

    def __post_init__(self) -> None:
        """:raises ValueError: if there is no such day."""
        if self.since is not None and self.until is not None and self.since > self.until:
            raise ValueError(
                f"no day is both since {self.since} and until {self.until}: exchange them"
            )

    def include(self, day: date) -> bool:
        """Whether `day` is one of them."""
        since, until = self.since or date.min, self.until or date.max
        return since <= day <= until

    def contain(self, clock: Seconds) -> NDArray[np.bool_]:
        """Which moments of `clock` are in them."""
        inside = np.ones(len(clock), np.bool_)
        if self.since is not None:
            inside &= clock >= _seconds(self.since)
        if self.until is not None:
            inside &= clock < _seconds(self.until) + _DAY
        return inside


def day_of(second: SupportsInt) -> date:
    """The day in which a `second` of `Seconds` lies."""
    return _EPOCH + timedelta(days=int(second) // _DAY)


def _seconds(day: date) -> int:
    return (day - _EPOCH).days * _DAY
