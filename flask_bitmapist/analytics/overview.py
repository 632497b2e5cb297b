"""The list of events: how many did each today, this week, this month, this year; and flags."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING

from ..marking import current_tracker
from ..periods import Period, local, unique_key
from .bitmaps import counts, fetch, union
from .report import Report

if TYPE_CHECKING:
    from ..marking import Tracker

#: How many days of each event are shown, today included.
DAYS = 30


@dataclass(frozen=True, slots=True)
class EventActivity:
    """Unique users of one event in the current periods, and day by day up to today."""

    event: str
    today: int
    week: int
    month: int
    year: int
    days: tuple[int, ...]

    @property
    def recent(self) -> bool:
        """Whether there is any figure but 0."""
        return any((self.week, self.year, *self.days))


@dataclass(frozen=True, slots=True)
class FlagCount:
    """How many users an undated bitmap (bitmapist's ``UniqueEvents``) holds now."""

    flag: str
    users: int


@dataclass(frozen=True, slots=True)
class Overview(Report):
    """Every event's activity as of a moment (naive, in BITMAPIST_TIMEZONE), and every flag.

    A name with an undated bitmap is listed among the events too if it was marked recently.
    """

    as_of: datetime
    events: tuple[EventActivity, ...]
    flags: tuple[FlagCount, ...]


def overview(*, now: datetime | None = None, tracker: Tracker | None = None) -> Overview:
    """Unique users of every event in the current day, week, month and year, and on 30 days.

    Takes two round trips: one for what the server can count, one for the months of the year.

    :param now: the moment as of which to report; None is now.
    :param tracker: whose events; None is the current application's.
    :raises redis.RedisError: the server does not answer.
    """
    tracker = tracker or current_tracker()
    moment = tracker.now() if now is None else local(now, tracker.settings.timezone)
    today = Period.containing("day", moment)
    days = [today.shift(back - DAYS + 1) for back in range(DAYS)]
    week = Period.containing("week", moment)
    month = Period.containing("month", moment)
    year = Period.containing("year", moment)
    names = tracker.event_names()
    dated = (period.key(name) for name in names for period in (*days, week, month))
    counted = counts(tracker.redis, chain(dated, map(unique_key, names)))
    months = fetch(tracker.redis, chain.from_iterable(year.keys(name) for name in names))

    def activity(event: str) -> EventActivity:
        return EventActivity(
            event,
            today=counted[today.key(event)],
            week=counted[week.key(event)],
            month=counted[month.key(event)],
            year=len(union(months[key] for key in year.keys(event))),
            days=tuple(counted[day.key(event)] for day in days),
        )

    undated = {name: counted[unique_key(name)] for name in names}
    events = [found for found in map(activity, names) if not undated[found.event] or found.recent]
    flags = [FlagCount(name, users) for name, users in undated.items() if users]
    return Overview(moment, tuple(events), tuple(flags))
