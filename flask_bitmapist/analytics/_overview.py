"""The list of events: how many did each today, this week, this month, this year; and flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..current import current_tracker
from ..periods import KEY_PREFIX, Period, local, unique_key
from ..questions.fields import Moment
from ..reading.bitmaps import Counting
from ._report import Report
from ._years import Years

if TYPE_CHECKING:
    from ..tracker import Tracker

#: How many days of each event are shown, today included.
DAYS = 30
#: From so many months up to now it is guessed which events are the busiest of a year.
_LATEST = 2


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
    end: date | None = None,
    now: datetime | None = None,
    tracker: Tracker | None = None,
) -> Overview:
    """Unique users of every event in the current day, week, month and year, and on 30 days.

    :param events: the names of those to report on; None is all of them.
    :param flags: likewise.
    :param complete: False leaves out the year and the 30 days, so that the server counts all there
        is to count, three bitmaps an event.
    :param end: the day with which the report ends, in place of today: its week, month and year are
        the whole ones. Flags are as they are now.
    :param now: the moment as of which to report; None is now.
    :param tracker: whose events; None is the current application's.
    :raises ValueError: for a day that has not begun.
    :raises redis.RedisError: the server does not answer.
    """
    tracker = tracker or current_tracker()
    moment = _moment(now, tracker)
    if end is not None:
        moment = _end_of(end, moment, tracker)
    if events is None or flags is None:
        catalogue = tracker.reader.catalogue()
        events = catalogue.events if events is None else events
        flags = catalogue.flags if flags is None else flags
    figures = _begun(tracker, moment, events, flags, complete=complete)
    with closing(figures):
        return figures.overview()


def begin_overview(events: Sequence[str], now: datetime) -> Figures:
    """Begin an `overview` that is complete, of these events."""
    return _begun(current_tracker(), now, events, (), complete=True)


def busiest_of_year(
    events: Sequence[str],
    ranks: slice,
    *,
    now: datetime | None = None,
    tracker: Tracker | None = None,
) -> tuple[EventActivity, ...]:
    """Of `events`, those with the most users in the current year, most first.

    :param ranks: which of them, such as ``slice(50, 100)``; those of equal rank keep their order.

    The other arguments and errors are those of `overview`.
    """
    tracker = tracker or current_tracker()
    with closing(_begun_of_busiest(tracker, _moment(now, tracker), events, ranks)) as figures:
        return figures.events()


def begin_busiest_of_year(events: Sequence[str], ranks: slice, now: datetime) -> Figures:
    """Begin what `busiest_of_year` does."""
    return _begun_of_busiest(current_tracker(), now, events, ranks)


def _begun_of_busiest(
    tracker: Tracker, moment: datetime, events: Sequence[str], ranks: slice
) -> Figures:
    years = _years(tracker, moment, events)
    parts = tracker.settings.period("year", moment).parts
    begun = sum(part.start <= moment for part in parts)
    busiest = years.busiest(ranks.stop, slice(max(0, begun - _LATEST), begun))
    return Figures(tracker, moment, busiest[ranks], years.exact)


def _begun(
    tracker: Tracker,
    moment: datetime,
    events: Sequence[str],
    flags: Sequence[str],
    *,
    complete: bool,
) -> Figures:
    years = _years(tracker, moment, events).read(events) if complete else {}
    return Figures(tracker, moment, events, years, flags, complete=complete)


def _moment(now: datetime | None, tracker: Tracker) -> datetime:
    return tracker.now() if now is None else local(now, tracker.settings.timezone)


def _end_of(end: date, now: datetime, tracker: Tracker) -> datetime:
    """The last second of the day `end`, or now if it is today."""
    day = local(Moment().checked("end", end), tracker.settings.timezone).date()
    if day > now.date():
        raise ValueError(f"end must be a day up to today, {now:%F}, not {day}")
    return now if day == now.date() else datetime.combine(day, time(23, 59, 59))


def _years(tracker: Tracker, moment: datetime, events: Sequence[str]) -> Years:
    """The users of each event in the current year."""
    year = tracker.settings.period("year", moment)
    return Years(tracker.reader.redis, {name: year.keys(name) for name in events})


class Figures:
    """The figures of some events and flags, which the server is counting until they are read.

    Close them in the end.
    """

    def __init__(
        self,
        tracker: Tracker,
        moment: datetime,
        events: Sequence[str],
        years: Mapping[str, int],
        flags: Sequence[str] = (),
        *,
        complete: bool = True,
    ) -> None:
        """
        :param years: the users of each event in the year.
        :param complete: as in `overview`.
        """
        today = Period.containing("day", moment)
        days = [today.shift(back - DAYS + 1) for back in range(DAYS)] if complete else []
        week, month = Period.containing("week", moment), Period.containing("month", moment)
        ends = [period.key("").removeprefix(KEY_PREFIX) for period in (today, week, month, *days)]
        self._moment = moment
        self._years = years
        self._keys = {name: [f"{KEY_PREFIX}{name}{end}" for end in ends] for name in events}
        self._flags = {flag: unique_key(flag) for flag in flags}
        keys = chain(*self._keys.values(), self._flags.values())
        self._counting = Counting(tracker.reader.redis, keys)

    def events(self) -> tuple[EventActivity, ...]:
        """Each event's activity."""
        return self.overview().events

    def overview(self) -> Overview:
        """All of them.

        :raises redis.RedisError: the server does not answer.
        """
        counted = self._counting.read()
        events = []
        for name, keys in self._keys.items():
            this_day, this_week, this_month, *days = map(counted.__getitem__, keys)
            year = self._years.get(name)
            events.append(EventActivity(name, this_day, this_week, this_month, year, tuple(days)))
        flags = (FlagCount(flag, counted[key]) for flag, key in self._flags.items())
        return Overview(self._moment, tuple(events), tuple(flags))

    def close(self) -> None:
        self._counting.close()
