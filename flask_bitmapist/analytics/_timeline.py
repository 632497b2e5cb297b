"""What one user did on which days, and when for the first and the last time: a person's page."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from itertools import compress, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ..dimensions import flag_of
from ..ids import PLAIN, normal_form
from ..periods import KEY_PREFIX, Grain, Period, unique_key
from ..questions import ProfileQuestion, TimelineQuestion
from ._bits import Keys, Periods, bits_of
from ._report import Report, Scope, in_range

if TYPE_CHECKING:
    from ..tracker import Tracker

# So many days take no longer than one more round trip.
_FEW = 2_000


@dataclass(frozen=True, slots=True)
class Timeline(Report):
    """The days of one user.

    :ivar days: the events that the user did, by name, each with its days in time order.
    :ivar first: the first of all these days; None if there is none.
    :ivar last: the last of them.
    """

    days: dict[str, list[date]]
    first: date | None
    last: date | None

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """One row an event and day."""
        return ["event", "day"], [[event, day] for event, days in self.days.items() for day in days]


@dataclass(frozen=True, slots=True)
class EventSpan:
    """When one user did an event for the first and for the last time.

    :ivar first: the day; the first day of the month, where `first_by` says that the day itself is
        not known any more (``BITMAPIST_TTL`` may let days go and keep months).
    :ivar last: the last time, likewise.
    """

    event: str
    first: date
    first_by: Grain
    last: date
    last_by: Grain


@dataclass(frozen=True, slots=True)
class Profile(Timeline):
    """The days of one user in a range, and what is known of all time.

    :ivar events: the events that the user ever did, by name.
    :ivar flags: the flags that are set for the user now, by name.
    :ivar dimensions: the user's value of each dimension that has one, now.
    """

    events: list[EventSpan]
    flags: list[str]
    dimensions: dict[str, str]


def timeline(
    user: object,
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    *,
    over: str | None = None,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Timeline:
    """Which events `user` did on which days.

    ``timeline(123, today, today).last`` answers whether user 123 has been here today. An event
    marked with the ids of rows other than users' shows the row with the user's number.

    :param user: whatever the user was marked with: an int, str, UUID, ObjectId or tuple.
    :param start: the first day; by default 365 days up to `end`.
    :param end: the last day; by default today.
    :param over: the range in words instead, such as ``last 28 days`` or ``last month``.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: for something that identifies nobody; for more than 1000 days.
    :raises redis.RedisError: if the server does not answer.
    """
    return answer(TimelineQuestion.of(user=user, start=start, end=end, over=over, now=now), tracker)


def answer(question: TimelineQuestion, tracker: Tracker | None) -> Timeline:
    """The answer to `question`."""
    if isinstance(question, ProfileQuestion):
        return _profile(question, tracker)
    asked = days_of(question, tracker)
    bits = _Bits(asked.tracker, question.user)
    calendar = _Calendar(asked)
    months = dict.fromkeys(bits.first_days, calendar.months)
    told: Mapping[str, Sequence[Period]] = {event: one.each for event, one in months.items()}
    if len(bits.first_days) * len(asked.periods) > _FEW:
        told = bits.periods(months)
    days = bits.periods({event: calendar.days(told.get(event, ())) for event in bits.first_days})
    return _timeline(days, asked)


def days_of(question: TimelineQuestion, tracker: Tracker | None) -> Scope:
    """The days that are shown."""
    return in_range(question, "day", tracker)


def profile(
    user: object,
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    *,
    over: str | None = None,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Profile:
    """The timeline of `user`, the first and the last time of each event, flags and dimensions.

    The bitmaps of months tell in which of them to look for days.

    Arguments and errors are those of `timeline`.
    """
    return _profile(
        ProfileQuestion.of(user=user, start=start, end=end, over=over, now=now), tracker
    )


def _profile(question: ProfileQuestion, tracker: Tracker | None) -> Profile:
    asked = days_of(question, tracker)
    bits = _Bits(asked.tracker, question.user)
    calendar = _Calendar(asked)
    # Those of the range, which may be years ago, and all until now.
    since = min(bits.first_days.values(), default=asked.current.start.date())
    until_now = [*_from(since, "month", asked.current)]
    every = sorted({*until_now, *calendar.months.each})
    since_then = {
        first_day: Periods([m for m in every if m in calendar or m.end.date() > first_day])
        for first_day in {*bits.first_days.values()}
    }
    told = bits.periods({event: since_then[first] for event, first in bits.first_days.items()})
    # The last month may be the present one, told by a later day alone: then it is the one before.
    past = {event: [m for m in found if m <= until_now[-1]] for event, found in told.items()}
    ends = {event: {found[0], *found[-2:]} for event, found in past.items() if found}
    days = bits.periods(
        {
            event: calendar.days(told.get(event, ()), whole=ends.get(event, ()))
            for event in bits.first_days
        }
    )
    shown = _timeline(days, asked)
    spans = (
        _span(event, sorted(ends.get(event, ())), days.get(event, []), asked)
        for event in sorted(ends.keys() | days.keys())
    )
    events = [span for span in spans if span is not None]
    return Profile(shown.days, shown.first, shown.last, events, *bits.state())


def _timeline(days: Mapping[str, Sequence[Period]], asked: Scope) -> Timeline:
    """Those of the `days` of each event that lie in the range."""
    first, last = asked.periods[0].start, asked.periods[-1].start
    shown = {
        event: [day.start.date() for day in done if first <= day.start <= last]
        for event, done in days.items()
    }
    dates = {event: done for event, done in shown.items() if done}
    every = [day for done in dates.values() for day in done]
    return Timeline(dates, min(every, default=None), max(every, default=None))


class _Calendar:
    """The months and days of a range, and in which months there are days to be looked at."""

    def __init__(self, asked: Scope) -> None:
        self._days: dict[Period, list[Period]] = {}
        for day in asked.periods:
            self._days.setdefault(Period.containing("month", day.start), []).append(day)
        self.months = Periods([*self._days])
        ttl = asked.tracker.settings.ttl
        #: Months whose days are looked at whatever the months tell. What bitmapist unmarks today is
        #: no longer told by this month, however many days of it are left.
        self._always = {Period.containing("month", asked.current.start)}
        if ttl.get("month", timedelta.max) < ttl.get("day", timedelta.max):
            self._always.update(self._days)
        self._made: dict[tuple[tuple[Period, ...], frozenset[Period]], Periods] = {}

    def __contains__(self, month: Period) -> bool:
        return month in self._days

    def days(self, told: Iterable[Period], whole: Iterable[Period] = ()) -> Periods:
        """The days to be looked at, in time order.

        :param told: months in which there is a day.
        :param whole: months of which all days are to be looked at, whether in the range or not.
        """
        asked = (*told,), frozenset(whole)
        if asked not in self._made:
            self._made[asked] = self._of(*asked)
        return self._made[asked]

    def _of(self, told: Sequence[Period], whole: Collection[Period]) -> Periods:
        ranged = {month for month in (*told, *self._always) if month in self._days}
        return Periods(
            [
                day
                for month in sorted({*ranged, *whole})
                for day in (_days_of(month) if month in whole else self._days[month])
            ]
        )


def _from(first: date, grain: Grain, last: Period) -> Iterator[Period]:
    """The periods from the one of the day `first` to the one in which `last` begins."""
    begin = Period.containing(grain, datetime.combine(first, time()))
    return begin.until(Period.containing(grain, last.start))


@lru_cache(maxsize=256)
def _days_of(month: Period) -> tuple[Period, ...]:
    first = Period.containing("day", month.start)
    return tuple(first.until(Period.containing("day", month.end).shift(-1)))


def _span(
    event: str,
    months: Sequence[Period],
    days: Sequence[Period],
    asked: Scope,
) -> EventSpan | None:
    """The span of an event; None if it had not happened yet.

    :param months: the first and the last months that tell of it.
    :param days: those found, in these months and in the range, in time order; later ones than now
        included.
    """
    first, last, now = asked.periods[0].start, asked.periods[-1].start, asked.current.start
    known: list[tuple[date, Grain]] = []
    for towards in (days, reversed(days)):
        counts = (day for day in towards if day.start <= now or first <= day.start <= last)
        known += [(day.start.date(), "day") for day in islice(counts, 1)]
    # A month that none of its days is left to tell of stands for itself.
    known += [(month.start.date(), "month") for month in months if not _any_in(month, days)]
    return EventSpan(event, *min(known), *max(known)) if known else None


def _any_in(month: Period, days: Sequence[Period]) -> bool:
    """Whether any of `days`, which are in time order, is in `month`."""
    place = bisect_left(days, month.start, key=attrgetter("start"))
    return place < len(days) and days[place].start < month.end


class _Bits:
    """The bits of one user, in the bitmaps of all events and flags."""

    def __init__(self, tracker: Tracker, user: object) -> None:
        """:raises UnusableIdError: for something that identifies nobody."""
        # What bitmapist wrote without us is registered nowhere, and its ids are plain.
        known = tracker.reader.known(scanned=isinstance(normal_form(user), int))
        kinds = known.kinds
        offsets = tracker.reader.offsets_of(user, {PLAIN, *kinds.values()})
        self._redis = tracker.reader.redis
        self._offsets = {
            name: offset for name, kind in kinds.items() if (offset := offsets[kind]) is not None
        }
        self._flags = sorted(self._offsets.keys() & known.flags.keys())
        self._values = {
            flag_of(dimension, value): (dimension, value)
            for dimension, values in known.dimensions.items()
            for value in values
        }
        #: The events in which the user has a bit, and a day before which nobody did each of them.
        self.first_days = {
            name: known.events[name].first_day
            for name in sorted(self._offsets.keys() & known.events.keys())
        }

    def periods(self, asked: Mapping[str, Periods]) -> dict[str, list[Period]]:
        """By event, those of its periods in which the user did it, in the order asked for."""
        keys = (
            Keys(event, self._offsets[event], f"{KEY_PREFIX}{event}", asked[event].suffixes)
            for event in asked
        )
        read = bits_of(self._redis, keys)
        found = ((event, [*compress(asked[event].each, bits)]) for event, bits in read)
        return {event: periods for event, periods in found if periods}

    def state(self) -> tuple[list[str], dict[str, str]]:
        """The flags that are set, and the value of each dimension that has one."""
        keys = (Keys(flag, self._offsets[flag], unique_key(flag), ("",)) for flag in self._flags)
        are_set = [flag for flag, bits in bits_of(self._redis, keys) if any(bits)]
        values = dict(self._values[flag] for flag in are_set if flag in self._values)
        return [flag for flag in are_set if flag not in self._values], values
