"""Ranges in hours need hours, which are not marked unless the application says so."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from ..periods import Period
from .segments import AsOf, Expression, Ranged

#: Its last days tell whether the hours of an event are marked.
_DAYS = 2


@dataclass(frozen=True, slots=True)
class InHours:
    """A range in hours, and the keys that tell whether there are any.

    :ivar days: those of its last two days, up to today.
    :ivar hours: those of the hours of these days.
    """

    leaf: Ranged
    days: list[str]
    hours: list[str]

    @classmethod
    def among(cls, expressions: Iterable[Expression], when: AsOf) -> list[Self]:
        """Those of the expressions."""
        leaves = (leaf for one in expressions for leaf in one.leaves())
        return [cls.of(leaf, when) for leaf in leaves if isinstance(leaf, Ranged) and leaf.in_hours]

    @classmethod
    def of(cls, leaf: Ranged, when: AsOf) -> Self:
        end = leaf.bounds(when).end - timedelta(microseconds=1)
        last = when.calendar.period("day", min(end, when.now))
        days = [*last.shift(1 - _DAYS).until(last)]
        first = Period.containing("hour", days[0].start, last.zone)
        hours = first.until(Period.containing("hour", last.end, last.zone).shift(-1))
        return cls(leaf, [day.key(leaf.name) for day in days], [h.key(leaf.name) for h in hours])

    @property
    def keys(self) -> list[str]:
        """All of them."""
        return [*self.days, *self.hours]

    def check(self, there: Collection[str]) -> None:
        """
        :param there: those of all keys that exist.
        :raises ValueError: if somebody did it on these days, and in none of their hours.
        """
        if any(key in there for key in self.days) and not any(key in there for key in self.hours):
            raise ValueError(
                f"{self.leaf} needs hours of {self.leaf.name}, and none of them are marked: set "
                "BITMAPIST_TRACK_HOURLY, mark it with track_hourly=True, or take a range in days"
            )
