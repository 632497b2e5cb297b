"""The list of events: how many did each today, this week, this month, this year; and flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..current import current_tracker
from ..periods import Period, local, unique_key
from ..reading.bitmaps import Extent, counts, extents, union_sizes
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

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """One row an event: its figures, and its users on each day if they were counted."""
        days = max((len(event.days) for event in self.events), default=0)
        today = self.as_of.date()
        dates = [str(today - timedelta(days=back)) for back in reversed(range(days))]
        return ["event", "today", "week", "month", "year", *dates], [
            [event.event, event.today, event.week, event.month, event.year, *event.days]
            for event in self.events
        ]


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
    moment = _moment(now, tracker)
    if events is None or flags is None:
        catalogue = tracker.reader.catalogue()
        events = catalogue.events if events is None else events
        flags = catalogue.flags if flags is None else flags
    years: dict[str, int] = {}
    if complete:
        months = _months_of_year(tracker, moment, events)
        years = _in_all(tracker, months, extents(tracker.reader.redis, chain(*months.values())))
    activities, counted = _figures(tracker, moment, events, years, flags, complete=complete)
    return Overview(
        moment, activities, tuple(FlagCount(flag, counted[unique_key(flag)]) for flag in flags)
    )


def busiest_of_year(
    events: Sequence[str],
    ranks: slice,
    *,
    now: datetime | None = None,
    tracker: Tracker | None = None,
) -> tuple[EventActivity, ...]:
    """Of `events`, those with the most users in the current year, most first.

    A year has no more users than there is room for where its bitmaps are not empty, and no more
    than its months together, which the server counts: so most events need not be read to know that
    they are not among the first.

    :param ranks: which of them, such as ``slice(50, 100)``; those of equal rank keep their order.

    The other arguments and errors are those of `overview`.
    """
    tracker = tracker or current_tracker()
    moment = _moment(now, tracker)
    months = _months_of_year(tracker, moment, events)
    placed = extents(tracker.reader.redis, chain.from_iterable(months.values()))
    most = {name: Extent.hull(placed[key] for key in keys).bits for name, keys in months.items()}
    counted, years = set[str](), dict[str, int]()
    while True:
        first = sorted(months, key=lambda name: -most[name])[: ranks.stop]
        if uncounted := [name for name in first if name not in counted]:
            most |= _together(tracker, {name: months[name] for name in uncounted}, placed)
            counted.update(uncounted)
        elif unread := [name for name in first if name not in years]:
            years |= _in_all(tracker, {name: months[name] for name in unread}, placed)
            most |= years
        else:
            return _figures(tracker, moment, first[ranks], years)[0]


def _moment(now: datetime | None, tracker: Tracker) -> datetime:
    return tracker.now() if now is None else local(now, tracker.settings.timezone)


def _months_of_year(
    tracker: Tracker, moment: datetime, events: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """The keys of the current year of each event."""
    year = tracker.settings.period("year", moment)
    return {name: year.keys(name) for name in events}


def _together(
    tracker: Tracker, months: Mapping[str, tuple[str, ...]], placed: Mapping[str, Extent]
) -> dict[str, int]:
    """How many users each event has had in each month, summed."""
    counted = counts(tracker.reader.redis, chain.from_iterable(months.values()), placed)
    return {name: sum(counted[key] for key in keys) for name, keys in months.items()}


def _in_all(
    tracker: Tracker, months: Mapping[str, tuple[str, ...]], placed: Mapping[str, Extent]
) -> dict[str, int]:
    """How many users each event has had in all its months."""
    sizes = union_sizes(tracker.reader.redis, [*months.values()], placed)
    return dict(zip(months, sizes, strict=True))


def _figures(
    tracker: Tracker,
    moment: datetime,
    events: Sequence[str],
    years: Mapping[str, int],
    flags: Sequence[str] = (),
    *,
    complete: bool = True,
) -> tuple[tuple[EventActivity, ...], Mapping[str, int]]:
    """The figures of each event, and what the server has counted under the keys of `flags` too."""
    today = Period.containing("day", moment)
    days = [today.shift(back - DAYS + 1) for back in range(DAYS)] if complete else []
    week, month = Period.containing("week", moment), Period.containing("month", moment)
    dated = (period.key(name) for name in events for period in (today, week, month, *days))
    counted = counts(tracker.reader.redis, chain(dated, map(unique_key, flags)))
    activities = (
        EventActivity(
            name,
            counted[today.key(name)],
            counted[week.key(name)],
            counted[month.key(name)],
            years.get(name),
            tuple(counted[day.key(name)] for day in days),
        )
        for name in events
    )
    return tuple(activities), counted
