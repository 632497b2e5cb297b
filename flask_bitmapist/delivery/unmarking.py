"""Unmarks of a day: the week and the month keep the bit while another of their days has one.

Other processes mark and unmark meanwhile. They set the day's bit before the week's and the month's.
Here the days are read after the day's own bit is cleared, and again after the week's and the
month's are. So any mark in between is seen, and another trip puts it right.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple

from ..periods import Period


class Key(NamedTuple):
    """A bitmap: its key, and its period; None: undated."""

    name: str
    period: Period | None


#: What bits are to become: key -> {offset: value}.
Targets = dict[Key, dict[int, bool]]
#: Bits as they were read: name of the key -> {offset: value}.
Values = Mapping[str, Mapping[int, bool]]


class Unmarking:
    """The unmarks of one batch."""

    def __init__(self, *, days_expire: bool) -> None:
        """:param days_expire: a month's whole weeks stand in for days whose bitmaps may be gone."""
        self._days_expire = days_expire
        self._own: dict[Key, set[int]] = {}
        self._longer: dict[Key, set[int]] = {}
        self._evidence: dict[Key, tuple[str, ...]] = {}
        self._cleared: set[tuple[Key, int]] = set()

    def add(self, event: str, keys: Iterable[Key], offset: int) -> None:
        """Unmark the bit at `offset` of `keys`: of an hour, a day, its week and month, undated."""
        for key in keys:
            if key.period is not None and key.period.grain in ("week", "month"):
                self._longer.setdefault(key, set()).add(offset)
                if key not in self._evidence:
                    self._evidence[key] = (*self._parts(event, key.period),)
            else:
                self._own.setdefault(key, set()).add(offset)

    def cancel(self, key: Key, offset: int) -> None:
        """A later mark or unmark in the batch decides this bit."""
        if key in self._own:
            self._own[key].discard(offset)

    def reads(self) -> dict[str, set[int]]:
        """The bits to read, by the name of the key."""
        reads = {key.name: set(offsets) for key, offsets in self._own.items()}
        for key, offsets in self._longer.items():
            for name in (key.name, *self._evidence[key]):
                reads.setdefault(name, set()).update(offsets)
        return reads

    def outstanding(self, values: Values) -> Targets:
        """What is still to be written, given the bits as they are now."""
        bits: Targets = {}
        own = {key.name: offsets for key, offsets in self._own.items()}
        for key, offsets in self._own.items():
            bits[key] = {offset: False for offset in offsets if values[key.name][offset]}
        for key, offsets in self._longer.items():
            bits[key] = {}
            for offset in offsets:
                kept = any(
                    values[name][offset] and offset not in own.get(name, ())
                    for name in self._evidence[key]
                )
                if values[key.name][offset] and not kept:
                    bits[key][offset] = False
                    self._cleared.add((key, offset))
                elif kept and not values[key.name][offset] and (key, offset) in self._cleared:
                    bits[key][offset] = True
        return {key: of_key for key, of_key in bits.items() if of_key}

    def _parts(self, event: str, period: Period) -> Iterator[str]:
        """The keys that show whether somebody was there in `period`, a week or a month."""
        days = [*_days_of(period)]
        for day in days:
            yield Period("day", day).key(event)
        if period.grain == "month" and self._days_expire:
            for monday in days:
                if monday.weekday() == 0 and monday + timedelta(days=6) <= days[-1]:
                    yield Period("week", monday).key(event)


def _days_of(period: Period) -> Iterator[datetime]:
    start = period.start
    length = 7 if period.grain == "week" else calendar.monthrange(start.year, start.month)[1]
    with suppress(OverflowError):  # the last week of the calendar ends before its Sunday
        for number in range(length):
            yield start + timedelta(days=number)
