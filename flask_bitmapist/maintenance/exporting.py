"""Events as lines, from which another server gets the same bits."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from typing import IO, NamedTuple

from ..dimensions import NONE, flag_of
from ..ids import PLAIN
from ..periods import Period, unique_key
from ..reading.bitmap import EMPTY, Bitmap
from ..reading.bitmaps import Bitmaps, slices
from ..reading.segments import Event
from ..reading.unknown import did_you_mean
from ..registry import Known
from ..tracker import Tracker
from .days import Days
from .lines import COLUMNS, UNIQUE, VALUE, VALUE_OF_MONTH
from .stored import stored_periods

#: Ids that are looked up and printed together.
_TOGETHER = 100_000


class Block(NamedTuple):
    """Lines that differ only in their id."""

    event: str
    granularity: str
    #: ISO 8601; '' of an undated bitmap.
    start: str
    ids: list[int] | list[str]
    kind: str


class Export:
    """The events of one application, to be printed."""

    def __init__(
        self, tracker: Tracker, events: Collection[str] = (), days: Days | None = None
    ) -> None:
        """
        :param events: names of events and flags; none: all.
        :param days: only periods that begin on these days; undated bitmaps only without a limit.
        :raises ValueError: for a name that nobody has marked.
        """
        self._tracker = tracker
        self._client = tracker.reader.redis
        self._days = days or Days()
        known = tracker.reader.known()
        self._kinds = known.kinds
        self._values = {
            flag_of(dimension, value)
            for dimension, values in known.dimensions.items()
            for value in values
        }
        for name in events:
            if name not in self._kinds:
                hint = did_you_mean(Event(name), known)
                raise ValueError(f"nothing called {name} has been recorded{hint and '; '}{hint}")
        self._kinds |= self._kinds_of_none(known)
        #: Names of which months are kept, as they are values of dated dimensions.
        self._with_months = {
            flag_of(dimension, value)
            for dimension in known.dated
            for value in (*known.dimensions.get(dimension, ()), NONE)
        } - known.events.keys()
        self._names = sorted(events or self._kinds)
        self._periods = stored_periods(self._client, self._names)
        #: Bits whose id the server has lost.
        self.lost = 0

    def _kinds_of_none(self, known: Known) -> dict[str, str]:
        """The kinds of ids of those who have lost their values, by name."""
        names = (flag_of(dimension, NONE) for dimension in known.dated)
        kinds = {name: self._tracker.reader.registered_kind(name) for name in names}
        return {name: kind for name, kind in kinds.items() if kind is not None}

    def months(self) -> int:
        """How many parts there are: months of events."""
        return sum(len({_month(period) for period in held}) for held in self._periods.values())

    def write(self, file: IO[str], form: str, told: Callable[[int], object]) -> int:
        """Print all to `file`.

        :param form: one of `lines.FORMATS`.
        :param told: called with the number of months done.
        :returns: how many lines they are.
        """
        writing = _WRITERS[form](file)
        lines = done = 0
        for name in self._names:
            for blocks in self._parts(name):
                for block in blocks:
                    writing(block)
                    lines += len(block.ids)
                told(done := done + 1)
        return lines

    def _parts(self, event: str) -> Iterator[Iterator[Block]]:
        """The blocks of `event`, month by month, and then the undated ones."""
        held = self._periods[event]
        if event in self._with_months:
            for period in sorted(held):
                yield self._of_month(event, period)
            held = set()
        for start in sorted({_month(period) for period in held}):
            yield self._blocks(event, _Month(event, start, held))
        if self._days == Days():
            yield self._undated(event)

    def _blocks(self, event: str, month: _Month) -> Iterator[Block]:
        for part in slices(self._client, month.keys()):
            for granularity, period, bitmap in month.lines(part):
                if self._days.include(period.start.date()):
                    told = period.start.isoformat(timespec="minutes")
                    if period.grain != "hour":
                        told = told.partition("T")[0]
                    yield from self._named(event, granularity, told, bitmap, part.first_offset)

    def _of_month(self, event: str, month: Period) -> Iterator[Block]:
        """The blocks of those who had a value last in `month`."""
        if not self._days.include(month.start.date()):
            return
        key, told = month.key(event), month.start.date().isoformat()
        for part in slices(self._client, [key]):
            yield from self._named(event, VALUE_OF_MONTH, told, part[key], part.first_offset)

    def _undated(self, event: str) -> Iterator[Block]:
        key = unique_key(event)
        granularity = VALUE if event in self._values else UNIQUE
        for part in slices(self._client, [key]):
            yield from self._named(event, granularity, "", part[key], part.first_offset)

    def _named(
        self, event: str, granularity: str, start: str, bitmap: Bitmap, first_offset: int
    ) -> Iterator[Block]:
        offsets = bitmap.ids() + first_offset
        kind = self._kinds[event]
        for first in range(0, len(offsets), _TOGETHER):
            some = offsets[first : first + _TOGETHER].tolist()
            if kind != PLAIN:
                found = self._tracker.reader.ids_at(some, kind)
                some = [id_ for id_ in found if id_ is not None]
                self.lost += len(found) - len(some)
            if some:
                yield Block(event, granularity, start, some, kind)


class _Month:
    """The stored periods of an event in a month: hours, days, and the weeks that begin in it."""

    def __init__(self, event: str, start: datetime, held: Collection[Period]) -> None:
        self._event = event
        self._held = held
        self._month = Period("month", start)
        next_month = self._month.shift(1)
        monday = Period.containing("week", next_month.start)
        end = next_month.start
        if monday.start < end:
            end = monday.start + timedelta(days=7)
        #: Also those days of the next month which lie in a week of this one.
        self._days = [
            Period("day", start + timedelta(days=number)) for number in range((end - start).days)
        ]

    def keys(self) -> list[str]:
        periods = {
            period
            for day in self._days
            for period in (day, *self._enclosing(day), *self._hours(day))
            if period in self._held
        }
        return [period.key(self._event) for period in sorted(periods)]

    def lines(self, part: Bitmaps) -> Iterator[tuple[str, Period, Bitmap]]:
        """The lines to print for `part`: granularity, period, and who."""

        def who(period: Period) -> Bitmap:
            return part[period.key(self._event)] if period in self._held else EMPTY

        implied: dict[Period, Bitmap] = {}
        for day in self._days:
            enclosing = self._enclosing(day)
            marked = who(day)
            for period in enclosing:
                marked &= who(period)
            for period in enclosing:
                implied[period] = implied.get(period, EMPTY) | marked
            if day.start >= self._month.end:
                continue
            by_hour = EMPTY
            for hour in self._hours(day):
                if hour in self._held:
                    of_hour = who(hour) & marked
                    by_hour |= of_hour
                    yield "hour", hour, of_hour
                    yield "hour only", hour, who(hour) - of_hour
            yield "day", day, marked - by_hour
            yield "day only", day, who(day) - marked
        for period, bitmap in implied.items():
            if self._month.start <= period.start < self._month.end:
                yield f"{period.grain} only", period, who(period) - bitmap

    @staticmethod
    def _enclosing(day: Period) -> tuple[Period, ...]:
        return Period.containing("week", day.start), Period.containing("month", day.start)

    @staticmethod
    def _hours(day: Period) -> Iterator[Period]:
        for number in range(24):
            yield Period("hour", day.start.replace(hour=number))


def _month(period: Period) -> datetime:
    return period.start.replace(day=1, hour=0)


def _csv(file: IO[str]) -> Callable[[Block], object]:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)

    def write(block: Block) -> None:
        before, kind = block[:3], block.kind
        writer.writerows([(*before, id_, kind) for id_ in block.ids])

    return write


def _jsonl(file: IO[str]) -> Callable[[Block], object]:
    def write(block: Block) -> None:
        for id_ in block.ids:
            line = (*block[:3], id_, block.kind)
            file.write(f"{json.dumps(dict(zip(COLUMNS, line, strict=True)))}\n")

    return write


_WRITERS: dict[str, Callable[[IO[str]], Callable[[Block], object]]] = {
    "csv": _csv,
    "jsonl": _jsonl,
}
