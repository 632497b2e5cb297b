"""Calendar periods: bitmapist's key for each, stepping, bounds, time zone.

A period is one hour, day, ISO week, month or year of the calendar in which the application's days
begin (``BITMAPIST_TIMEZONE``). Its start is a naive datetime of that calendar.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Literal, Self, get_args

Grain = Literal["hour", "day", "week", "month", "year"]
GRAINS: tuple[Grain, ...] = get_args(Grain)
#: How long after its end a period's bitmap is kept, by grain; forever if the grain is missing.
Ttl = tuple[tuple[Grain, timedelta], ...]

KEY_PREFIX = "trackist_"
#: How the names begin under which bitmapist keeps results of its operations for a while.
OPERATION = "bitop_"


def local(moment: datetime | date | None, zone: tzinfo) -> datetime:
    """The wall clock of `zone` at `moment`, as a naive datetime.

    Aware datetimes are converted, naive ones are taken to be in `zone` already, a date is its
    midnight, None is now. A naive moment that the clocks skip when summer time begins is taken for
    the one they show instead: in Berlin 2:30 is then 3:30, in Cairo midnight is 1:00.

    :raises ValueError: if it is not a date, or is outside the calendar in `zone`.
    """
    if moment is None:
        return datetime.now(zone).replace(tzinfo=None)
    if moment != moment:  # pandas.NaT, which is a datetime and equals nothing
        raise ValueError(f"{moment} is not a date")
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    if moment.tzinfo is None:
        hour = moment.replace(minute=0, second=0, microsecond=0)
        if _exists(hour, zone):
            return moment
        # What fold=0 means in a gap (PEP 495): the offset before it.
        moment = moment.replace(tzinfo=zone, fold=0).astimezone(UTC)
    try:
        return moment.astimezone(zone).replace(tzinfo=None)
    except OverflowError:
        raise ValueError(
            f"{moment} in {zone} is outside the calendar, which has the years 1 to 9999"
        ) from None


def unique_key(event: str) -> str:
    """bitmapist's key for the undated bitmap of `event` (its ``UniqueEvents``)."""
    return f"{KEY_PREFIX}{event}_u"


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """One period: its grain and the moment at which it begins.

    >>> Period.containing("week", datetime(1997, 1, 1)).start
    datetime.datetime(1996, 12, 30, 0, 0)
    >>> Period.containing("week", datetime(1997, 1, 1)).key("user:created")
    'trackist_user:created_W1997-1'
    """

    grain: Grain
    start: datetime
    #: For hours: the zone, so that the hours its clocks skip are stepped over.
    zone: tzinfo | None = field(default=None, compare=False, repr=False)
    #: For years, which are not stored: how long the periods that they are read from are kept.
    ttl: Ttl = field(default=(), compare=False, repr=False)

    @classmethod
    def containing(
        cls, grain: Grain, moment: datetime, zone: tzinfo | None = None, ttl: Ttl = ()
    ) -> Self:
        """The period of `grain` that contains the naive local `moment` of `zone`.

        An hour that the clocks of `zone` skip becomes the next one that they show. For an
        application's own zone and TTL, use its `Settings.period`.
        """
        if grain == "hour":
            hour = moment.replace(minute=0, second=0, microsecond=0)
            while zone is not None and not _exists(hour, zone):
                hour += timedelta(hours=1)
            return cls(grain, hour, zone)
        midnight = datetime(moment.year, moment.month, moment.day)
        match grain:
            case "day":
                return cls(grain, midnight)
            case "week":
                return cls(grain, midnight - timedelta(days=midnight.weekday()))
            case "month":
                return cls(grain, midnight.replace(day=1))
            case "year":
                return cls(grain, midnight.replace(month=1, day=1), ttl=ttl)
        raise ValueError(f"unknown period {grain!r}: use one of {', '.join(GRAINS)}")

    def shift(self, count: int) -> Self:
        """The period `count` periods later (earlier if negative).

        :raises ValueError: if that is outside the calendar.
        """
        try:
            return type(self)(self.grain, self._start_after(count), self.zone, self.ttl)
        except (OverflowError, ValueError):
            raise ValueError(
                f"{count} {self.grain}s after {self.start.date()} is outside the calendar, "
                "which has the years 1 to 9999"
            ) from None

    def _start_after(self, count: int) -> datetime:
        start = self.start
        match self.grain:
            case "hour":
                return self._hours_later(count)
            case "day":
                return start + timedelta(days=count)
            case "week":
                return start + timedelta(weeks=count)
            case "month":
                year, month = divmod(start.year * 12 + start.month - 1 + count, 12)
                return start.replace(year=year, month=month + 1)
            case "year":
                return start.replace(year=start.year + count)

    def _hours_later(self, count: int) -> datetime:
        if self.zone is None:
            return self.start + timedelta(hours=count)
        hour, step = self.start, timedelta(hours=1 if count > 0 else -1)
        for _ in range(abs(count)):
            hour += step
            while not _exists(hour, self.zone):
                hour += step
        return hour

    @property
    def end(self) -> datetime:
        """The moment at which the next period begins."""
        return self.shift(1).start

    def until(self, last: Self) -> Iterator[Self]:
        """Every period from this one to `last`, both included."""
        period = self
        while period.start <= last.start:
            yield period
            period = period.shift(1)

    def key(self, event: str) -> str:
        """bitmapist's key, unpadded. A year has none: it is the union of its `parts`."""
        start = self.start
        match self.grain:
            case "hour":
                return f"{KEY_PREFIX}{event}_{start.year}-{start.month}-{start.day}-{start.hour}"
            case "day":
                return f"{KEY_PREFIX}{event}_{start.year}-{start.month}-{start.day}"
            case "week":
                iso = start.isocalendar()
                return f"{KEY_PREFIX}{event}_W{iso.year}-{iso.week}"
            case "month":
                return f"{KEY_PREFIX}{event}_{start.year}-{start.month}"
            case "year":
                raise ValueError("a year has no key of its own: read the keys of its parts")

    @property
    def parts(self) -> tuple[Period, ...]:
        """The stored periods whose union is this one: itself, or what is kept of a year."""
        if self.grain != "year":
            return (self,)
        return stored_parts(self.start, _end(self), self.ttl)

    def keys(self, event: str) -> tuple[str, ...]:
        """The keys whose union is this period: one, or those of a year's `parts`."""
        if self.grain == "year":
            ends = _ends_of_keys(self.start, self.ttl)
            return tuple([f"{KEY_PREFIX}{event}{end}" for end in ends])
        return (self.key(event),)


@lru_cache(maxsize=1024)
def stored_parts(
    start: datetime, end: datetime, ttl: Ttl, zone: tzinfo | None = None
) -> tuple[Period, ...]:
    """The stored periods whose union is the time from `start` to before `end`.

    Each of its days is read from the day itself, its week or its month, whichever is kept longest;
    of those that are kept equally long, from the longest one. A week or a month that lies in it in
    part counts for none of its days. Where a day does, its hours are read.

    :param zone: for hours: the zone, so that the hours its clocks skip are stepped over.
    """
    ages = dict(ttl)

    def expiry(period: Period) -> datetime:
        try:
            return period.end + ages.get(period.grain, timedelta.max)
        except (OverflowError, ValueError):
            return datetime.max

    parts: dict[Period, None] = {}
    moment = start
    while moment < end:
        day = Period.containing("day", moment)
        over = min(_end(day), end)
        hour = Period.containing("hour", day.start, zone)
        if moment > hour.start or over < _end(day):
            hour = Period.containing("hour", moment, zone)
            while hour.start < over:
                parts[hour] = None
                hour = hour.shift(1)
            moment = over
            continue
        longer = (Period.containing(grain, moment) for grain in _LONGER)
        whole = [one for one in longer if start <= one.start and _end(one) <= end]
        part = max([*whole, day], key=expiry)
        parts[part] = None
        # A month that is kept forever tells of all its days.
        moment = _end(part) if part.grain == "month" and "month" not in ages else over
    return tuple(parts)


_LONGER: tuple[Grain, ...] = ("month", "week")


def _end(period: Period) -> datetime:
    """When `period` ends, or the calendar."""
    try:
        return period.end
    except ValueError:
        return datetime.max


@lru_cache(maxsize=1024)
def _ends_of_keys(start: datetime, ttl: Ttl) -> tuple[str, ...]:
    """What follows an event's name in the keys of a year's parts."""
    parts = Period("year", start, ttl=ttl).parts
    return tuple(part.key("").removeprefix(KEY_PREFIX) for part in parts)


@lru_cache(maxsize=16384)
def _exists(hour: datetime, zone: tzinfo) -> bool:
    """Whether the clocks of `zone` ever show a moment of the naive `hour`."""
    # On Lord Howe Island summer time skips half an hour, so both ends must be looked at.
    ends = (hour, hour.replace(minute=59))
    try:
        return any(
            moment.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None)
            == moment
            for moment in ends
        )
    except OverflowError:  # at the calendar's ends, where no clock is changed
        return True


@lru_cache(maxsize=4096)
def marked_periods(hour: datetime, hourly: bool) -> tuple[Period, ...]:
    """The stored periods that a mark made in `hour` sets: day, week, month and, if asked, hour."""
    grains: tuple[Grain, ...] = ("day", "week", "month", *(("hour",) if hourly else ()))
    return tuple(Period.containing(grain, hour) for grain in grains)
