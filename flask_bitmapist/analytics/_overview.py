"""The list of events: how many did each today, this week, this month, this year; and flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING

from ..current import current_tracker
from ..periods import Period, local, unique_key
from ..reading.bitmaps import counts, tally
from ._report import Report

if TYPE_CHECKING:
    from ..tracker import Tracker

#: How many days of each event are shown, today included.
DAYS = 30


@dataclass(frozen=True, slots=True)
class EventActivity:
    """Unique users of one event in the current periods, and day by day up to today.

    :ivar year: None in an overview that is not complete.
    :ivar days: empty in an overview that is not complete.
    """

    event: str
    today: int
    week: int
    month: int
    year: int | None
    days: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FlagCount:
    """How many users an undated bitmap (bitmapist's ``UniqueEvents``) holds now."""

    flag: str
    users: int


@dataclass(frozen=True, slots=True)
class Overview(Report):
    """Every event's activity as of a moment (naive, in BITMAPIST_TIMEZONE), and every flag."""

    as_of: datetime
    events: tuple[EventActivity, ...]
    flags: tuple[FlagCount, ...]


def overview(
    *,
    events: Sequence[str] | None = None,
    flags: Sequence[str] | None = None,
    complete: bool = True,
    now: datetime | None = None,
    tracker: Tracker | None = None,
) -> Overview:
    """Unique users of every event in the current day, week, month and year, and on 30 days.

    :param events: the names of those to report on; None is all of them.
    :param flags: likewise.
    :param complete: False leaves out the year and the 30 days, so that the server counts all there
        is to count, three bitmaps an event.
    :param now: the moment as of which to report; None is now.
    :param tracker: whose events; None is the current application's.
    :raises redis.RedisError: the server does not answer.
    """
    tracker = tracker or current_tracker()
    moment = tracker.now() if now is None else local(now, tracker.settings.timezone)
    today = Period.containing("day", moment)
    days = [today.shift(back - DAYS + 1) for back in range(DAYS)] if complete else []
    week, month = Period.containing("week", moment), Period.containing("month", moment)
    year = Period.containing("year", moment)
    if events is None or flags is None:
        catalogue = tracker.reader.catalogue()
        events = catalogue.events if events is None else events
        flags = catalogue.flags if flags is None else flags
    dated = (period.key(name) for name in events for period in (today, week, month, *days))
    counted = counts(tracker.redis, chain(dated, map(unique_key, flags)))
    years: list[int | None] = [None] * len(events)
    if complete:
        keys = [year.keys(name) for name in events]
        years[:] = tally(
            tracker.redis,
            chain.from_iterable(keys),
            lambda part: [len(part.union_of(months)) for months in keys],
        )
    return Overview(
        moment,
        tuple(
            EventActivity(
                name,
                counted[today.key(name)],
                counted[week.key(name)],
                counted[month.key(name)],
                in_year,
                tuple(counted[day.key(name)] for day in days),
            )
            for name, in_year in zip(events, years, strict=True)
        ),
        tuple(FlagCount(flag, counted[unique_key(flag)]) for flag in flags),
    )
