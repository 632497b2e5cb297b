"""What one user did on which days, and when for the first and the last time: a person's page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from itertools import compress
from typing import TYPE_CHECKING, Any

from ..ids import normal_form
from ..periods import Grain, Period, unique_key
from ..questions import ProfileQuestion, TimelineQuestion
from ..reading.time_limit import check_time
from ._report import Report, Scope, periods_of

if TYPE_CHECKING:
    from ..tracker import Tracker

#: How many days are shown unless it is told: what a year's calendar holds.
USUAL_DAYS = 365
# Commands of one round trip: 10 MB in redis-py.
_BATCH = 20_000


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
    """

    events: list[EventSpan]
    flags: list[str]


def timeline(
    user: object,
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    *,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Timeline:
    """Which events `user` did on which days.

    ``timeline(123, today, today).last`` answers whether user 123 has been here today. An event
    marked with the ids of rows other than users' shows the row with the user's number.

    :param user: whatever the user was marked with: an int, str, UUID, ObjectId or tuple.
    :param start: the first day; by default 365 days up to `end`.
    :param end: the last day; by default today.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: for something that identifies nobody; for more than 1000 days.
    :raises redis.RedisError: if the server does not answer.
    """
    return report(TimelineQuestion.of(user=user, start=start, end=end, now=now), tracker)


def report(question: TimelineQuestion, tracker: Tracker | None) -> Timeline:
    """The answer to `question`."""
    if isinstance(question, ProfileQuestion):
        return _profile(question, tracker)
    asked = days_of(question, tracker)
    return _timeline(_Bits(asked.tracker, question.user), asked.periods)


def days_of(question: TimelineQuestion, tracker: Tracker | None) -> Scope:
    """The days that are shown."""
    return periods_of("day", question.start, question.end, question.now, tracker, length=USUAL_DAYS)


def profile(
    user: object,
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    *,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Profile:
    """The timeline of `user`, the first and the last time of each event, and the flags.

    The bitmaps of months tell in which of them to look for the first and the last day. Since
    `unmark_event` takes back a month with one of its days, the days of the range count besides.

    Arguments and errors are those of `timeline`.
    """
    return _profile(ProfileQuestion.of(user=user, start=start, end=end, now=now), tracker)


def _profile(question: ProfileQuestion, tracker: Tracker | None) -> Profile:
    asked = days_of(question, tracker)
    bits = _Bits(asked.tracker, question.user)
    shown = _timeline(bits, asked.periods)
    months = bits.periods(
        (event, month)
        for event, first_day in bits.first_days.items()
        for month in _from(first_day, "month", asked.current)
    )
    # The last month may be the present one, told by a later day alone: then it is the one before.
    ends = {event: sorted({told[0], *told[-2:]}) for event, told in months.items()}
    days = bits.periods(
        (event, day)
        for event, found in ends.items()
        for month in found
        for day in _from(month.start, "day", _last_day(month))
    )
    spans = (
        _span(event, ends.get(event, []), days.get(event, []), shown.days.get(event, []), asked)
        for event in sorted(ends.keys() | shown.days.keys())
    )
    events = [span for span in spans if span is not None]
    return Profile(shown.days, shown.first, shown.last, events, bits.flags())


def _timeline(bits: _Bits, days: Sequence[Period]) -> Timeline:
    found = bits.periods((event, day) for event in bits.first_days for day in days)
    dates = {event: [day.start.date() for day in done] for event, done in found.items()}
    every = [day for done in dates.values() for day in done]
    return Timeline(dates, min(every, default=None), max(every, default=None))


def _from(first: date, grain: Grain, last: Period) -> Iterator[Period]:
    """The periods from the one of the day `first` to the one in which `last` begins."""
    begin = Period.containing(grain, datetime.combine(first, time()))
    return begin.until(Period.containing(grain, last.start))


def _last_day(month: Period) -> Period:
    return Period.containing("day", month.end).shift(-1)


def _span(
    event: str,
    months: Sequence[Period],
    days: Sequence[Period],
    shown: Sequence[date],
    asked: Scope,
) -> EventSpan | None:
    """The span of an event; None if it had not happened yet.

    :param months: the first and the last months that tell of it.
    :param days: those found in these months, later ones than now included.
    :param shown: those of the range.
    """
    told = {(day.year, day.month) for day in (*shown, *(day.start for day in days))}
    known: list[tuple[date, Grain]] = [(day, "day") for day in shown]
    known += [(day.start.date(), "day") for day in days if day <= asked.current]
    # A month that none of its days is left to tell of stands for itself.
    known += [
        (month.start.date(), "month")
        for month in months
        if (month.start.year, month.start.month) not in told
    ]
    return EventSpan(event, *min(known), *max(known)) if known else None


class _Bits:
    """The bits of one user, in the bitmaps of all events and flags."""

    def __init__(self, tracker: Tracker, user: object) -> None:
        """:raises UnusableIdError: for something that identifies nobody."""
        # What bitmapist wrote without us is registered nowhere, and its ids are plain.
        known = tracker.reader.known(scanned=isinstance(normal_form(user), int))
        spaces = known.spaces
        offsets = tracker.reader.offsets_of(user, {None, *spaces.values()})
        self._redis = tracker.redis
        self._offsets = {
            name: offset for name, space in spaces.items() if (offset := offsets[space]) is not None
        }
        self._flags = sorted(self._offsets.keys() & known.flags.keys())
        #: The events in which the user has a bit, and a day before which nobody did each of them.
        self.first_days = {
            name: known.events[name].first_day
            for name in sorted(self._offsets.keys() & known.events.keys())
        }

    def periods(self, asked: Iterable[tuple[str, Period]]) -> dict[str, list[Period]]:
        """By event, those of its periods in which the user did it, in the order asked for."""
        pairs = [*asked]
        found: dict[str, list[Period]] = {}
        for event, period in compress(pairs, self._read([(e, p.key(e)) for e, p in pairs])):
            found.setdefault(event, []).append(period)
        return found

    def flags(self) -> list[str]:
        """The flags that are set."""
        keys = [(name, unique_key(name)) for name in self._flags]
        return [*compress(self._flags, self._read(keys))]

    def _read(self, named_keys: Sequence[tuple[str, str]]) -> Iterator[bool]:
        """The user's bit under each key, given with the name to which it belongs."""
        for first in range(0, len(named_keys), _BATCH):
            check_time()
            batch = [
                (key, *divmod(self._offsets[name], 8))
                for name, key in named_keys[first : first + _BATCH]
            ]
            pipeline = self._redis.pipeline(transaction=False)
            for key, byte, _ in batch:
                # Of GETBIT a server refuses offsets that it would not take from SETBIT.
                pipeline.execute_command("GETRANGE", key, byte, byte, NEVER_DECODE=True)
            for (_, _, bit), value in zip(batch, pipeline.execute(), strict=True):
                yield bool(value and value[0] & (0x80 >> bit))
