"""People whose plan changes, written as a dated dimension is stored."""

from __future__ import annotations

from datetime import datetime

from months import write_months

from flask_bitmapist.dimensions import NONE, OTHER
from flask_bitmapist.ids import MAPPED, PLAIN
from flask_bitmapist.marks import Mark
from flask_bitmapist.periods import unique_key
from flask_bitmapist.tracker import Tracker

from .reference import User, World

PLAN = "user:level"
PLANS = ("free", "pro", "a, b", OTHER)


def shifted(moment: datetime, months: int) -> datetime:
    """When the month begins that is so many after that of `moment`."""
    years, month = divmod(12 * moment.year + moment.month - 1 + months, 12)
    return datetime(years, month + 1, 1)


def write(tracker: Tracker, world: World, *, mapped: bool) -> None:
    """The changes of plans in `world`, as the server keeps them."""
    if PLAN not in world.kept:
        return
    users = {change.user for change in world.changes}
    offsets = _offsets(tracker, users, mapped=mapped)
    values = [*PLANS, NONE]
    months: dict[str, dict[str, set[int]]] = {f"{world.kept[PLAN]:%Y-%m}": {}}
    now: dict[str, set[int]] = {value: set() for value in PLANS}
    for change in world.changes:
        offset = offsets[change.user]
        for held in now.values():
            held.discard(offset)
        if change.value is not None:
            now[change.value].add(offset)
        if change.when >= world.kept[PLAN]:
            month = months.setdefault(f"{change.when:%Y-%m}", {})
            for value in values:
                month.setdefault(value, set()).discard(offset)
            month[change.value or NONE].add(offset)
    write_months(tracker.redis, PLAN, months, now, kind=MAPPED if mapped else PLAIN)


def _offsets(tracker: Tracker, users: set[User], *, mapped: bool) -> dict[User, int]:
    """The offsets of users, which they get now if they have none."""
    if not mapped:
        return {user: int(user) for user in users}
    flag = f"{PLAN}={NONE}"
    tracker.record([Mark(flag, user, dated=False) for user in users])
    tracker.redis.delete(unique_key(flag))
    return {
        user: offset
        for user in users
        if (offset := tracker.reader.offset_of(user, MAPPED)) is not None
    }
