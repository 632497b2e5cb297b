"""What the keys of bitmaps tell: of which event they are, and of which period."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from itertools import chain
from typing import Any

import redis

from ..cluster import have_moved, slots_of
from ..packed_periods import days_of, keys_of, packed_keys
from ..periods import KEY_PREFIX, OPERATION, Grain, Period

#: How often the keys of a cluster whose slots move are gone through.
_PASSES = 3


def stored_periods(client: Any, names: Iterable[str]) -> dict[str, set[Period]]:
    """The stored periods of each of `names`, packed or not.

    :raises redis.RedisError: also if slots of the cluster move on and on.
    """
    stored: dict[str, set[Period]] = {name: set() for name in names}
    for _ in range(_PASSES):
        before = slots_of(client)
        for key in chain(keys_of(client, KEY_PREFIX), packed_keys(client)):
            name, period = name_and_period(key)
            if name in stored and period is not None:
                stored[name].add(period)
        if not have_moved(before, slots_of(client)):
            return stored
    raise redis.ConnectionError(
        "slots of the cluster are being moved, so that keys may have been missed: run it again "
        "once they have moved"
    )


def is_operation(key: str, prefix: str = KEY_PREFIX) -> bool:
    """Whether `key` holds the result of an operation of bitmapist, which makes it anew."""
    return key.startswith(prefix + OPERATION)


def event_of(key: str, prefix: str = KEY_PREFIX) -> str | None:
    """The event or flag whose bitmap stands under `key`; None: it is not the key of one.

    :param prefix: how the keys of all events begin.
    """
    event, _, ending = key.removeprefix(prefix).rpartition("_")
    if not event or is_operation(key, prefix):
        return None
    return event if ending == "u" or days_of(key) is not None else None


def name_and_period(key: str) -> tuple[str, Period | None]:
    """Whose bitmap stands under `key`, and of which period; None: bitmapist writes no such key."""
    name, _, suffix = key.removeprefix(KEY_PREFIX).rpartition("_")
    period = _period_called(suffix)
    return name, period if period is not None and period.key(name) == key else None


def _period_called(suffix: str) -> Period | None:
    """The period that `suffix` stands for in a key; None if it stands for none."""
    grains: dict[int, Grain] = {2: "month", 3: "day", 4: "hour"}
    try:
        numbers = [*map(int, suffix.removeprefix("W").split("-"))]
        if suffix.startswith("W"):
            year, week = numbers
            monday = date.fromisocalendar(year, week, 1)
            return Period("week", datetime(monday.year, monday.month, monday.day))
        year, month, day, hour = (*numbers, *([1, 0][len(numbers) - 2 :]))
        return Period(grains[len(numbers)], datetime(year, month, day, hour))
    except (KeyError, TypeError, ValueError):
        return None
