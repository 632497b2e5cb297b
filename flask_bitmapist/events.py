"""Who did an event in a period, and combinations of such sets: bitmapist's classes, read-only.

Names, arguments, keys and results are those of bitmapist 3.119. What differs:

* Periods follow the application's calendar (``BITMAPIST_TIMEZONE``), and "now" is whatever
  `Tracker.at` sets. bitmapist counts in UTC.
* A combination or a year is read when it is asked for. bitmapist computes it once, at creation,
  into a temporary key on the server that all readers share.
* Events of one server combine by operators, whatever name the server was given by.
* Mapped ids (UUIDs, texts, ...) are looked up and returned as they were marked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, timedelta
from functools import reduce
from itertools import chain
from operator import and_, or_, sub, xor
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from .current import current_tracker
from .ids import PLAIN, normal_form
from .packed_periods import may_be_packed
from .periods import KEY_PREFIX, OPERATION, Grain, Period, local, unique_key
from .systems import names_own_system, reader_of

if TYPE_CHECKING:
    from .reading.bitmap import Bitmap
    from .reading.bitmaps import Bitmaps
    from .reading.reader import Reader

# Of a Redis string, which holds 512 MiB at most: asking for a later one is an error.
_BITS = 2**32


class Events(ABC):
    """A set of users. Each question reads it from the server."""

    #: The server: a name, or a client. ``default`` is that of the current app.
    system: Any
    #: bitmapist's key for the set. Nothing is stored under the key of a year or a combination.
    redis_key: str
    #: The events and flags that make it up.
    names: frozenset[str]

    @property
    @abstractmethod
    def keys(self) -> tuple[str, ...]:
        """The keys of the bitmaps that make it up."""

    @abstractmethod
    def get_count(self) -> int:
        """How many users are in it; also ``len(events)``."""

    @abstractmethod
    def get_uuids(self) -> Iterator[int | str]:
        """The ids of its users, in the order of their bits; also ``iter(events)``.

        Plain ids are ints in ascending order, mapped ones the texts that they were marked with.
        """

    @abstractmethod
    def __contains__(self, uuid: object) -> bool:
        """Whether `uuid` is in it: the id as it was marked, an int, str, UUID, ObjectId or tuple.

        :raises UnusableIdError: for something that identifies nobody, such as None.
        """

    @abstractmethod
    def delete(self) -> None:
        """Delete the bitmap. Does nothing for a year or a combination, which have none."""

    @abstractmethod
    def set_in(self, part: Bitmaps, lengths: Mapping[str, int]) -> Bitmap:
        """This set within `part` of the bitmaps under its `keys`.

        :param lengths: the lengths of these bitmaps in bytes, if it contains a complement.
        """

    def has_events_marked(self) -> bool:
        """Whether anybody is in it."""
        return self.get_count() > 0

    def __len__(self) -> int:
        return self.get_count()

    def __iter__(self) -> Iterator[int | str]:
        return self.get_uuids()

    def __and__(self, other: Events) -> BitOpAnd:
        return BitOpAnd(self, other) if _is_events(other) else NotImplemented

    def __or__(self, other: Events) -> BitOpOr:
        return BitOpOr(self, other) if _is_events(other) else NotImplemented

    def __xor__(self, other: Events) -> BitOpXor:
        return BitOpXor(self, other) if _is_events(other) else NotImplemented

    def __sub__(self, other: Events) -> BitOpDiff:
        return BitOpDiff(self, other) if _is_events(other) else NotImplemented

    def __invert__(self) -> BitOpNot:
        return BitOpNot(self)

    def __eq__(self, other: object) -> bool:
        key = getattr(other, "redis_key", None)
        return NotImplemented if key is None else self.redis_key == key

    def __hash__(self) -> int:
        return hash(self.redis_key)


def _is_events(other: Any) -> bool:
    """Whether `other` is a set of users, ours or bitmapist's own."""
    return hasattr(other, "redis_key")


class _Stored(Events):
    """A set with a key of its own: each question is one command."""

    def __init__(self, event_name: str, system: Any, redis_key: str) -> None:
        self.event_name = event_name
        self.system = system
        self.redis_key = redis_key
        self.names = frozenset((event_name,))

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.redis_key,)

    def get_count(self) -> int:
        redis, key = reader_of(self.system).redis, self.redis_key
        if not may_be_packed(redis, [key]):
            return int(redis.bitcount(key))
        from .reading.bitmaps import counts

        return counts(redis, [key])[key]

    def get_uuids(self) -> Iterator[int | str]:
        from .reading.bitmap import Bitmap
        from .reading.bitmaps import Bitmaps
        from .reading.both import both_forms, joined

        reader = reader_of(self.system)
        is_older = may_be_packed(reader.redis, [self.redis_key])
        command = both_forms(self.redis_key) if is_older else ("GET", self.redis_key)
        kind, told = reader.kind_and_reply(self.names, command)
        found = joined(self.redis_key, told) if is_older else Bitmap.from_bytes(told)
        bitmaps = Bitmaps({self.redis_key: found})
        return _identifiers(
            reader, kind, ((part, part[self.redis_key]) for part in bitmaps.parts())
        )

    def __contains__(self, uuid: object) -> bool:
        reader, form = reader_of(self.system), normal_form(uuid)
        if may_be_packed(reader.redis, [self.redis_key]):
            return self._is_among(reader, form)
        if isinstance(form, int) and form < _BITS:
            # The id's bit, unless this event's ids turn out to be mapped.
            kind, bit = reader.kind_and_reply(self.names, ("GETBIT", self.redis_key, form))
            if kind == PLAIN:
                return bool(bit)
        else:
            kind = reader.kind(self.names)
        offset = reader.offset_of(form, kind)
        return offset is not None and bool(reader.redis.getbit(self.redis_key, offset))

    def _is_among(self, reader: Reader, form: int | str) -> bool:
        """Whether the id is in a set that may be packed."""
        from .reading.bitmaps import around

        offset = reader.offset_of(form, reader.kind(self.names))
        if offset is None:
            return False
        byte = around(reader.redis, self.keys, offset)
        return offset - byte.first_offset in byte[self.redis_key]

    def delete(self) -> None:
        reader_of(self.system).delete(self.redis_key)

    def set_in(self, part: Bitmaps, lengths: Mapping[str, int]) -> Bitmap:
        return part[self.redis_key]


class _Computed(Events):
    """A set that is made of several bitmaps when it is asked for."""

    #: Whether it contains a complement, which depends on the lengths of bitmaps.
    has_complement = False

    def get_count(self) -> int:
        reader = self._reader()
        if len(self.names) > 1:
            reader.kind(self.names)  # an error if their ids are of different kinds
        return sum(len(found) for _, found in self._found(reader))

    def get_uuids(self) -> Iterator[int | str]:
        reader = self._reader()
        kind = reader.kind(self.names)
        return _identifiers(reader, kind, self._found(reader))

    def __contains__(self, uuid: object) -> bool:
        from .reading.bitmaps import around

        reader = self._reader()
        offset = reader.offset_of(uuid, reader.kind(self.names))
        if offset is None:
            return False
        byte = around(reader.redis, self.keys, offset)
        lengths = dict.fromkeys(self.keys, offset // 8 + 1)
        return offset - byte.first_offset in self.set_in(byte, lengths)

    def delete(self) -> None:
        pass

    def _reader(self) -> Reader:
        return reader_of(self.system)

    def _found(self, reader: Reader) -> Iterator[tuple[Bitmaps, Bitmap]]:
        """Each part of the bitmaps, and the set in it."""
        from .reading import bitmaps

        parts: Iterator[Bitmaps]
        if self.has_complement:
            # Parts in which nobody did anything must not be left out either.
            lengths = bitmaps.lengths(reader.redis, self.keys)
            slices = bitmaps.slices(reader.redis, self.keys)
            parts = chain.from_iterable(slice_.parts() for slice_ in slices)
        else:
            lengths = {}
            parts = bitmaps.parts(reader.redis, self.keys)
        return ((part, self.set_in(part, lengths)) for part in parts)


def _identifiers(
    reader: Reader, kind: str, found: Iterable[tuple[Bitmaps, Bitmap]]
) -> Iterator[int | str]:
    for part, bitmap in found:
        offsets = (bitmap.ids() + part.first_offset).tolist()
        yield from reader.identifiers_at(offsets, kind)


class UniqueEvents(_Stored):
    """Those who have a flag, such as ``UniqueEvents("user:premium")``: it has no date."""

    def __init__(self, event_name: str, system: Any = "default") -> None:
        super().__init__(event_name, system, unique_key(event_name))

    @classmethod
    def from_date(
        cls, event_name: str, dt: datetime | date | None = None, system: Any = "default"
    ) -> Self:
        """The flag itself, whatever the date."""
        return cls(event_name, system)

    def next(self) -> Self:
        """The flag itself."""
        return self

    def prev(self) -> Self:
        """The flag itself."""
        return self

    def __repr__(self) -> str:
        return _told(self, self.event_name)


class GenericPeriodEvents(Events):
    """Those who did an event in one period of the application's calendar."""

    event_name: str
    _grain: ClassVar[Grain]

    @classmethod
    def from_date(
        cls, event_name: str, dt: datetime | date | None = None, system: Any = "default"
    ) -> Self:
        """Those who did the event in the period that contains `dt`, by default now.

        :param dt: a date, or a datetime: aware ones are converted to ``BITMAPIST_TIMEZONE``, naive
            ones are taken in it.
        """
        of_period = cast(Callable[..., Self], cls)
        return of_period(event_name, *cls._numbers_at(_moment(dt)), system=system)

    def delta(self, value: int) -> Self:
        """The same event that many periods later, or earlier if negative."""
        return self.from_date(self.event_name, self._period().shift(value).start, self.system)

    def next(self) -> Self:
        """The same event in the next period."""
        return self.delta(1)

    def prev(self) -> Self:
        """The same event in the period before."""
        return self.delta(-1)

    def period_start(self) -> datetime:
        """The period's first moment, aware."""
        return self._start().replace(tzinfo=current_tracker().settings.timezone)

    def period_end(self) -> datetime:
        """The period's last microsecond, aware."""
        last = self._period().end - timedelta(microseconds=1)
        # When clocks go back, the period ends the second time they show the hour.
        return last.replace(tzinfo=current_tracker().settings.timezone, fold=1)

    def __repr__(self) -> str:
        return _told(self, self.event_name, *self._numbers())

    @classmethod
    def _filled(cls, *numbers: int | None) -> tuple[int, ...]:
        """`numbers`, with those of the current period where they are missing."""
        if None not in numbers:
            return cast(tuple[int, ...], numbers)
        current = cls._numbers_at(_moment(None))
        return tuple(
            now if number is None else number for number, now in zip(numbers, current, strict=True)
        )

    def _period(self) -> Period:
        return Period(self._grain, self._start())

    @staticmethod
    @abstractmethod
    def _numbers_at(moment: datetime) -> tuple[int, ...]:
        """The name of the period that contains the naive local `moment`."""

    @abstractmethod
    def _numbers(self) -> tuple[int, ...]:
        """The name of this period."""

    @abstractmethod
    def _start(self) -> datetime:
        """When this period begins, naive."""


def _moment(dt: datetime | date | None) -> datetime:
    """The naive local time of `dt`, by default now."""
    if dt is None:
        return current_tracker().now()
    if isinstance(dt, datetime) and dt.tzinfo is not None:
        return local(dt, current_tracker().settings.timezone)
    return local(dt, UTC)  # it is naive: no zone is asked


def _period_key(event_name: str, period: str) -> str:
    # Not from Period.key: bitmapist accepts week 53 of any year and day 31 of any month; where they
    # do not exist they are just empty.
    return f"{KEY_PREFIX}{event_name}_{period}"


class YearEvents(GenericPeriodEvents, _Computed):
    """Those who did an event in a year, such as ``YearEvents("active", 2012)``; by default this.

    It is the union of its months, which is not stored; or of its weeks and days, where
    ``BITMAPIST_TTL`` keeps them for longer.
    """

    _grain = "year"

    def __init__(self, event_name: str, year: int | None = None, system: Any = "default") -> None:
        (self.year,) = self._filled(year)
        months = [MonthEvents(event_name, self.year, month, system) for month in range(1, 13)]
        self.event_name = event_name
        self.system = system
        self.names = frozenset((event_name,))
        self._months = tuple(month.redis_key for month in months)
        self.redis_key = _combined_key("OR", self._months)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of what the application keeps of the year; on a server of others, its months."""
        tracker = current_tracker()
        if not names_own_system(tracker, self.system) or not MINYEAR <= self.year <= MAXYEAR:
            return self._months
        return tracker.settings.period("year", self._start()).keys(self.event_name)

    def set_in(self, part: Bitmaps, lengths: Mapping[str, int]) -> Bitmap:
        return part.union_of(self.keys)

    @staticmethod
    def _numbers_at(moment: datetime) -> tuple[int, ...]:
        return (moment.year,)

    def _numbers(self) -> tuple[int, ...]:
        return (self.year,)

    def _start(self) -> datetime:
        return datetime(self.year, 1, 1)


class MonthEvents(GenericPeriodEvents, _Stored):
    """Those who did an event in a month, such as ``MonthEvents("active", 2012, 10)``."""

    _grain = "month"

    def __init__(
        self,
        event_name: str,
        year: int | None = None,
        month: int | None = None,
        system: Any = "default",
    ) -> None:
        self.year, self.month = self._filled(year, month)
        super().__init__(event_name, system, _period_key(event_name, f"{self.year}-{self.month}"))

    @staticmethod
    def _numbers_at(moment: datetime) -> tuple[int, ...]:
        return moment.year, moment.month

    def _numbers(self) -> tuple[int, ...]:
        return self.year, self.month

    def _start(self) -> datetime:
        return datetime(self.year, self.month, 1)


class WeekEvents(GenericPeriodEvents, _Stored):
    """Those who did an event in an ISO week of an ISO year: ``WeekEvents("active", 2012, 48)``."""

    _grain = "week"

    def __init__(
        self,
        event_name: str,
        year: int | None = None,
        week: int | None = None,
        system: Any = "default",
    ) -> None:
        self.year, self.week = self._filled(year, week)
        super().__init__(event_name, system, _period_key(event_name, f"W{self.year}-{self.week}"))

    @staticmethod
    def _numbers_at(moment: datetime) -> tuple[int, ...]:
        iso = moment.isocalendar()
        return iso.year, iso.week

    def _numbers(self) -> tuple[int, ...]:
        return self.year, self.week

    def _start(self) -> datetime:
        return datetime.fromisocalendar(self.year, 1, 1) + timedelta(weeks=self.week - 1)


class DayEvents(GenericPeriodEvents, _Stored):
    """Those who did an event on a day, such as ``DayEvents("active", 2012, 10, 23)``."""

    _grain = "day"

    def __init__(
        self,
        event_name: str,
        year: int | None = None,
        month: int | None = None,
        day: int | None = None,
        system: Any = "default",
    ) -> None:
        self.year, self.month, self.day = self._filled(year, month, day)
        super().__init__(
            event_name, system, _period_key(event_name, f"{self.year}-{self.month}-{self.day}")
        )

    @staticmethod
    def _numbers_at(moment: datetime) -> tuple[int, ...]:
        return moment.year, moment.month, moment.day

    def _numbers(self) -> tuple[int, ...]:
        return self.year, self.month, self.day

    def _start(self) -> datetime:
        return datetime(self.year, self.month, self.day)


class HourEvents(GenericPeriodEvents, _Stored):
    """Those who did an event in an hour: ``HourEvents("active", 2012, 10, 23, 13)``.

    Hours are stored for marks made with ``track_hourly=True``, or ``BITMAPIST_TRACK_HOURLY``.
    """

    _grain = "hour"

    def __init__(
        self,
        event_name: str,
        year: int | None = None,
        month: int | None = None,
        day: int | None = None,
        hour: int | None = None,
        system: Any = "default",
    ) -> None:
        self.year, self.month, self.day, self.hour = self._filled(year, month, day, hour)
        super().__init__(
            event_name,
            system,
            _period_key(event_name, f"{self.year}-{self.month}-{self.day}-{self.hour}"),
        )

    @staticmethod
    def _numbers_at(moment: datetime) -> tuple[int, ...]:
        return moment.year, moment.month, moment.day, moment.hour

    def _numbers(self) -> tuple[int, ...]:
        return self.year, self.month, self.day, self.hour

    def _period(self) -> Period:
        return Period(self._grain, self._start(), current_tracker().settings.timezone)

    def _start(self) -> datetime:
        return datetime(self.year, self.month, self.day, self.hour)


class BitOperation(_Computed):
    """Sets of users combined, such as ``BitOpAnd(DayEvents("active"), UniqueEvents("premium"))``.

    Combinations nest. The server may be named first, as in ``BitOpAnd("stats", ...)``: then
    everything is read from there, whatever servers the events name.

    :raises ValueError: if there are no events; on reading, for events of different servers unless
        one is named, and for events with different kinds of ids.
    """

    _name: ClassVar[str]
    _combine: Callable[[Bitmap, Bitmap], Bitmap]

    def __init__(self, system_or_event: Any, *events: Any) -> None:
        named = not _is_events(system_or_event)
        self.events = tuple(map(_ours, events if named else (system_or_event, *events)))
        if not self.events:
            raise ValueError(f"{type(self).__name__} combines events: name one at least")
        self._systems = [system_or_event] if named else [event.system for event in self.events]
        self.system = self._systems[0]
        self.redis_key = _combined_key(self._name, (event.redis_key for event in self.events))
        self.names = frozenset[str]().union(*(event.names for event in self.events))
        self.has_complement = any(
            isinstance(event, _Computed) and event.has_complement for event in self.events
        )

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key for event in self.events for key in event.keys))

    def __repr__(self) -> str:
        return _told(self, *self.events)

    def set_in(self, part: Bitmaps, lengths: Mapping[str, int]) -> Bitmap:
        return reduce(self._combine, (event.set_in(part, lengths) for event in self.events))

    def _reader(self) -> Reader:
        first, *others = map(reader_of, self._systems)
        if any(other.redis is not first.redis for other in others):
            raise ValueError(
                f"events of different systems do not combine: {self._systems!r}. "
                f"To read all of them from one, name it: {type(self).__name__}(system, ...)"
            )
        return first


def _combined_key(operation: str, keys: Iterable[str]) -> str:
    return f"{KEY_PREFIX}{OPERATION}{operation}_{'-'.join(keys)}"


class BitOpAnd(BitOperation):
    """Those who are in all of `events`; also ``a & b``."""

    _name = "AND"
    _combine = staticmethod(and_)


class BitOpOr(BitOperation):
    """Those who are in any of `events`; also ``a | b``."""

    _name = "OR"
    _combine = staticmethod(or_)


class BitOpXor(BitOperation):
    """Those in exactly one of two `events`, or an odd number of several; also ``a ^ b``."""

    _name = "XOR"
    _combine = staticmethod(xor)


class BitOpDiff(BitOperation):
    """Those who are in the first of `events` and in none of the others; also ``a - b``."""

    _name = "DIFF"
    _combine = staticmethod(sub)


class BitOpNot(BitOperation):
    """The complement of one set, within the bytes that are stored; also ``~a``.

    For users 1 and 2 it is 0 and 3 to 7, whether or not those users exist, and never 8. For those
    who are active and not premium, ask for ``active - premium``.
    """

    _name = "NOT"

    def __init__(self, system_or_event: Any, *events: Any) -> None:
        super().__init__(system_or_event, *events)
        if len(self.events) != 1:
            raise ValueError(f"BitOpNot takes one set, not {len(self.events)}")
        self.has_complement = True

    def set_in(self, part: Bitmaps, lengths: Mapping[str, int]) -> Bitmap:
        from .reading.bitmap import WORD_BYTES, Bitmap

        (event,) = self.events
        # As with BITOP, the result is as long as the longest bitmap.
        stored = max(lengths[key] for key in self.keys) - part.first_offset // 8
        covered = part.width or max(part[key].end for key in self.keys)
        return Bitmap.from_bytes(
            b"\xff" * max(0, min(stored, covered * WORD_BYTES))
        ) - event.set_in(part, lengths)


class _Foreign(_Stored):
    """A set made by bitmapist, which stored its result under its key."""

    def __init__(self, events: Any) -> None:
        name = getattr(events, "event_name", "")  # bitmapist's combinations have none
        super().__init__(name, events.system, events.redis_key)
        self.names = frozenset(filter(None, (name,)))

    def __repr__(self) -> str:
        return f"<{self.redis_key}>"


def _ours(events: Any) -> Events:
    if isinstance(events, Events):
        return events
    if not _is_events(events):
        raise TypeError(f"{events!r} is no set of users: combine events and flags")
    return _Foreign(events)


def _told(events: Events, *arguments: Any) -> str:
    told = [*map(repr, arguments)]
    if isinstance(events.system, str) and events.system != "default":
        told.append(f"system={events.system!r}")
    return f"{type(events).__name__}({', '.join(told)})"
