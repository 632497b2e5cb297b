"""Ranges of time as people say them: ``last 14 days``, ``this quarter``, ``2026-01 to 2026-03``.

A range is relative (``last 14 days``, ``last month``, ``today``) or absolute (``2026``,
``2026-Q1``, ``2026-01``, ``2026-W05``, ``2026-01-15``, ``2026-01 to 2026-03``), has one end
(``since 2026-01``, ``before 2026-01``), or is all of time (``ever``). It becomes two moments once
it is known which moment is now.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from calendar import month_name
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from .periods import Grain, Period

Unit = Literal["hour", "day", "week", "month", "quarter", "year"]
UNITS: tuple[Unit, ...] = get_args(Unit)
#: The longest range that begins and ends, in years.
MOST_YEARS = 100
#: Makes the period of a grain that contains a moment, as ``Settings.period`` does.
Containing = Callable[[Grain, datetime], Period]

#: No range begins or ends outside these years.
_YEARS = range(1001, 9000)
#: At most how many units there are in a year.
_PER_YEAR: Mapping[Unit, int] = MappingProxyType(
    {"hour": 8784, "day": 366, "week": 53, "month": 12, "quarter": 4, "year": 1}
)
_DAYS = ("today", "yesterday")
_EXAMPLES = (
    # Not 'ever', which no report takes: it has no beginning.
    "write it like 'last 30 days', 'this month', '2026-01', '2026-01 to 2026-03' or 'since 2026-01'"
)


class RangeError(ValueError):
    """A text that spells no range.

    :ivar reason: what is wrong.
    :ivar position: the index in the text of the first character that cannot be understood.
    """

    def __init__(self, reason: str, position: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position


class Bounds(NamedTuple):
    """From `start` to before `end`, both naive in the application's calendar."""

    #: None: since ever.
    start: datetime | None
    end: datetime


class Range(ABC):
    """A range of time; its `str` spells it.

    >>> str(Range.parse("Last  14 DAYS")), str(Range.parse("Q1 2026 to March 2026"))
    ('last 14 days', '2026-Q1 to 2026-03')
    """

    @staticmethod
    def parse(text: str) -> Range:
        """The range that `text` spells, in small or capital letters.

        :raises RangeError: pointing at the first character that cannot be understood.
        :raises TypeError: for anything but a str.
        """
        if not isinstance(text, str):
            raise TypeError(f"a range of time is a str such as 'last 30 days', not {text!r}")
        return _parsed(text)

    @abstractmethod
    def bounds(self, now: datetime, containing: Containing) -> Bounds:
        """When it begins and ends.

        :param now: naive in the application's calendar.
        :param containing: the calendar: ``Settings.period``.
        """

    def periods(self, by: Grain, now: datetime, containing: Containing) -> tuple[Period, Period]:
        """The first and the last period of `by` that reach into it, up to the present one.

        The first one is later than the last one if the range has not begun.

        :raises ValueError: if it has no beginning.
        """
        start, end = self.bounds(now, containing)
        if start is None:
            raise ValueError(f"{str(self)!r} has no beginning: say since when")
        last, present = containing(by, end), containing(by, now)
        # Not the period of the moment before the end: the clocks may skip that one.
        last = last if last.start < end else last.shift(-1)
        return containing(by, start), min(last, present)


@dataclass(frozen=True, slots=True)
class Last(Range):
    """So many calendar units, at least two, the last of which contains now: ``last 14 days``."""

    count: int
    unit: Unit

    def __post_init__(self) -> None:
        most = MOST_YEARS * _PER_YEAR[self.unit]
        if self.count == 1:
            this, before = Around(self.unit, False), Around(self.unit, True)
            raise RangeError(
                f"'last 1 {self.unit}' may mean the present {self.unit} or the one before it: "
                f"write '{this}' or '{before}'"
            )
        if not 1 < self.count <= most:
            raise RangeError(f"'last' takes 2 to {most:,} {self.unit}s, not {self.count:,}")

    def bounds(self, now: datetime, containing: Containing) -> Bounds:
        start = _unit(self.unit, now, 1 - self.count, containing)
        return Bounds(start, _unit(self.unit, now, 1, containing))

    def __str__(self) -> str:
        return f"last {self.count} {self.unit}s"


@dataclass(frozen=True, slots=True)
class Around(Range):
    """The whole calendar unit that contains now, or the one before it: ``last month``."""

    unit: Unit
    is_past: bool

    def bounds(self, now: datetime, containing: Containing) -> Bounds:
        start = _unit(self.unit, now, -int(self.is_past), containing)
        return Bounds(start, _unit(self.unit, now, 1 - int(self.is_past), containing))

    def __str__(self) -> str:
        if self.unit == "day":
            return _DAYS[self.is_past]
        return f"{'last' if self.is_past else 'this'} {self.unit}"


@dataclass(frozen=True, slots=True)
class Named(Range):
    """One unit by its name: ``2026``, ``2026-Q1``, ``2026-01``, ``2026-W05``, ``2026-01-15``."""

    unit: Unit
    first_day: date

    @property
    def start(self) -> datetime:
        return datetime.combine(self.first_day, time())

    @property
    def end(self) -> datetime:
        """When the next one begins."""
        return _later(self.unit, self.start, 1)

    def bounds(self, now: datetime, containing: Containing) -> Bounds:
        return Bounds(self.start, self.end)

    def __str__(self) -> str:
        day = self.first_day
        match self.unit:
            case "year":
                return f"{day:%Y}"
            case "quarter":
                return f"{day:%Y}-Q{(day.month + 2) // 3}"
            case "month":
                return f"{day:%Y-%m}"
            case "week":
                return f"{day:%G-W%V}"
        return f"{day:%F}"


@dataclass(frozen=True, slots=True)
class Between(Range):
    """From the beginning of one unit to the end of another: ``2026-01 to 2026-03``."""

    first: Named
    last: Named

    def __post_init__(self) -> None:
        if self.last.end <= self.first.start:
            raise RangeError(f"the end, {self.last}, is before the start, {self.first}")
        if self.last.end > _later("year", self.first.start, MOST_YEARS):
            raise RangeError(f"a range has at most {MOST_YEARS} years")

    def bounds(self, now: datetime, containing: Containing) -> Bounds:
        return Bounds(self.first.start, self.last.end)

    def __str__(self) -> str:
        return f"{self.first} to {self.last}"


@dataclass(frozen=True, slots=True)
class Since(Range):
    """From the beginning of a unit to today, which counts: ``since 2026-01``."""

    first: Named

    def bounds(self, now: datetime, containing: Containing) -> Bounds:
        return Bounds(self.first.start, _unit("day", now, 1, containing))

    def __str__(self) -> str:
        return f"since {self.first}"


@dataclass(frozen=True, slots=True)
class Before(Range):
    """All time before a unit begins: ``before 2026-01``."""

    then: Named

    def bounds(self, now: datetime, containing: Containing) -> Bounds:
        return Bounds(None, self.then.start)

    def __str__(self) -> str:
        return f"before {self.then}"


@dataclass(frozen=True, slots=True)
class Ever(Range):
    """All time up to today, which counts: ``ever``."""

    def bounds(self, now: datetime, containing: Containing) -> Bounds:
        return Bounds(None, _unit("day", now, 1, containing))

    def __str__(self) -> str:
        return "ever"


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Range:
    words = [_Word(found[0].casefold(), found.start()) for found in re.finditer(r"\S+", text)]
    if not words:
        raise RangeError(f"a range of time is missing: {_EXAMPLES}")
    try:
        return _range_of(words)
    except RangeError as error:
        # What is wrong with two words together is shown where they begin.
        raise RangeError(error.reason, error.position or words[0].position) from None


class _Word(NamedTuple):
    text: str
    position: int


def _range_of(words: list[_Word]) -> Range:
    first, rest = words[0], words[1:]
    match first.text:
        case "ever" | "today" | "yesterday":
            _nothing_after(first, rest)
            return Ever() if first.text == "ever" else Around("day", first.text == "yesterday")
        case "last" | "this":
            return _around(first, rest)
        case "since":
            return Since(_named(rest, first))
        case "before":
            return Before(_named(rest, first))
    # "from" says nothing that "to" does not.
    ends = rest if first.text == "from" else words
    to = next((number for number, word in enumerate(ends) if word.text == "to"), None)
    if to is None and ends is words:
        return _named(words, first)
    if to is None:
        raise RangeError("'from' needs an end: write 'since 2026-01' or '2026-01 to 2026-03'")
    return Between(_named(ends[:to], first), _named(ends[to + 1 :], ends[to]))


def _around(first: _Word, rest: list[_Word]) -> Range:
    """What follows ``last`` or ``this``."""
    if not rest:
        raise RangeError(f"{first.text!r} needs a unit: {_EXAMPLES}", first.position)
    number, *after = rest
    if first.text == "this" or not re.fullmatch("[0-9]+", number.text):
        unit = _unit_called(number)
        _nothing_after(number, after)
        return Around(unit, first.text == "last")
    if not after:
        raise RangeError(f"{number.text} of what? {_EXAMPLES}", number.position)
    unit = _unit_called(after[0])
    _nothing_after(after[0], after[1:])
    return Last(int(number.text[:9]), unit)


def _unit_called(word: _Word) -> Unit:
    for unit in UNITS:
        if word.text in (unit, f"{unit}s"):
            return unit
    raise RangeError(f"{word.text!r} is no unit of time: use {', '.join(UNITS)}", word.position)


def _nothing_after(word: _Word, rest: list[_Word]) -> None:
    if rest:
        raise RangeError(f"{rest[0].text!r} is not expected after {word.text!r}", rest[0].position)


_FORMS: tuple[tuple[Unit, str], ...] = (
    ("year", r"(?P<year>\d{4})"),
    ("quarter", r"(?P<year>\d{4})-q(?P<quarter>[1-4])"),
    ("quarter", r"q(?P<quarter>[1-4]) (?P<year>\d{4})"),
    ("week", r"(?P<year>\d{4})-w(?P<week>\d{1,2})"),
    ("month", r"(?P<year>\d{4})-(?P<month>\d{1,2})"),
    ("month", r"(?P<name>[a-z]{3,9}) (?P<year>\d{4})"),
    ("day", r"(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})"),
    ("day", r"(?P<day>\d{1,2}) (?P<name>[a-z]{3,9}) (?P<year>\d{4})"),
)
_NAMES: Mapping[str, int] = MappingProxyType(
    {
        name: number
        for number in range(1, 13)
        for name in (month_name[number].casefold(), month_name[number][:3].casefold())
    }
)


def _named(words: list[_Word], before: _Word) -> Named:
    """The unit that `words` name.

    :param before: the word that they follow.
    """
    if not words:
        end = before.position + len(before.text)
        raise RangeError(f"a date is missing after {before.text!r}: {_EXAMPLES}", end)
    position, text = words[0].position, " ".join(word.text for word in words)
    for unit, form in _FORMS:
        found = re.fullmatch(form, text, re.ASCII)
        if found is None or found.groupdict().get("name", "may") not in _NAMES:
            continue
        told = found.groupdict()
        if int(told["year"]) not in _YEARS:
            raise RangeError(f"a year is from {_YEARS[0]} to {_YEARS[-1]}", position)
        try:
            return Named(unit, _first_day(told))
        except ValueError:
            raise RangeError(f"there is no {text!r} in the calendar", position) from None
    raise RangeError(f"{text!r} is no range of time: {_EXAMPLES}", position)


def _first_day(told: Mapping[str, str]) -> date:
    year = int(told["year"])
    if "week" in told:
        return date.fromisocalendar(year, int(told["week"]), 1)
    if "quarter" in told:
        return date(year, 3 * int(told["quarter"]) - 2, 1)
    month = _NAMES[told["name"]] if "name" in told else int(told.get("month", 1))
    return date(year, month, int(told.get("day", 1)))


def _unit(unit: Unit, now: datetime, count: int, containing: Containing) -> datetime:
    """When the unit begins that is `count` units after the one that contains `now`."""
    if unit != "quarter":
        return containing(unit, now).shift(count).start
    month = containing("month", now)
    return month.shift(3 * count - (month.start.month - 1) % 3).start


def _later(unit: Unit, start: datetime, count: int) -> datetime:
    """The `start` of a unit of days, `count` units later."""
    return _unit(unit, start, count, Period.containing)
