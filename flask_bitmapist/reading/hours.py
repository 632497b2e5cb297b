"""Ranges in hours need hours, which are not marked unless the application says so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from ..periods import Period
from .commands import numbers
from .segments import AsOf, Expression, Ranged

#: Its last days tell whether the hours of an event are marked.
_DAYS = 2


def check_hours(client: Any, expressions: Iterable[Expression], when: AsOf) -> None:
    """
    :raises ValueError: for a range in hours of an event whose hours are not marked: on its last two
        days somebody did it, and in none of their hours.
    """
    ranged = [leaf for one in expressions for leaf in one.leaves() if isinstance(leaf, Ranged)]
    for leaf in (leaf for leaf in ranged if leaf.in_hours):
        days = [*_last_days(leaf, when)]
        hours = [hour for day in days for hour in _hours(day)]
        asked = [("EXISTS", period.key(leaf.name)) for period in (*days, *hours)]
        there = numbers(client, asked)
        if any(there[: len(days)]) and not any(there[len(days) :]):
            raise ValueError(
                f"{leaf} needs the hours of {leaf.name}, and none of them are marked: set "
                "BITMAPIST_TRACK_HOURLY, mark it with track_hourly=True, or take a range in days"
            )


def _last_days(leaf: Ranged, when: AsOf) -> Iterator[Period]:
    """The last days of a range, today at the latest."""
    end = leaf.bounds(when).end - timedelta(microseconds=1)
    last = when.calendar.period("day", min(end, when.now))
    return last.shift(1 - _DAYS).until(last)


def _hours(day: Period) -> Iterator[Period]:
    first = Period.containing("hour", day.start, day.zone)
    return first.until(Period.containing("hour", day.end, day.zone).shift(-1))
