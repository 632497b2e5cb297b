"""Segments: sets of users written as expressions over events and flags.

``Event("song:played")`` is the set of the period in which it is evaluated, ``Flag("user:premium")``
an undated set. ``Was("user:plan=pro")`` are those who had a value of a dimension at the end of the
period's month. ``Did("post:created", "last 14 days")`` and ``First("user:created", "2026-01")`` are
sets of a range of their own, the same in every period. They combine with ``&``, ``|`` and ``-``.
There is no complement: a bitmap's complement would count its padding.

The text form is the same: ``user:logged_in & (flag:user:premium | web) - did(spam, ever)``. As in
Python, ``-`` binds tighter than ``&``, and ``&`` tighter than ``|``. ``a & not b`` is ``a - b``.
``-`` is an operator only between spaces (``sign-up`` is a name); a name with spaces, quotes,
parentheses or operators, or one that begins with ``~`` or ``!``, is written in double quotes.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, tzinfo
from functools import cached_property, lru_cache, partial, reduce
from operator import or_
from typing import ClassVar, Protocol, Self, TypeVar, cast

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from ..dimensions import NONE, OTHER, flag_of, month_key, value_of
from ..marks import checked_name
from ..periods import GRAINS, Grain, Period, stored_parts, unique_key
from ..ranges import Before, Bounds, Ever, Range, RangeError, Since
from .time_limit import small_step

_FLAG = "flag:"
#: How other languages negate: before a name, it is meant as an operator, not as part of the name.
_NOT = ("~", "!")
#: The most names in a text: each adds one level of nesting when it is evaluated.
MOST_NAMES = 100
#: The most periods in which `Did` counts.
MOST_PERIODS = 1_000


class Set(Protocol):
    """Something that combines as sets do."""

    def __and__(self, other: Self, /) -> Self: ...
    def __or__(self, other: Self, /) -> Self: ...
    def __sub__(self, other: Self, /) -> Self: ...


S = TypeVar("S", bound=Set)
_Made = TypeVar("_Made")


class ByKey(Protocol[S]):
    """Sets by key."""

    def __getitem__(self, key: str, /) -> S: ...
    def union_of(self, keys: tuple[str, ...], /) -> S: ...
    def once(self, what: Hashable, make: Callable[[], S], /) -> S: ...


class Calendar(Protocol):
    """What of the application's `Settings` tells where its periods are, and how long."""

    @property
    def timezone(self) -> tzinfo: ...
    @property
    def ttl(self) -> Mapping[Grain, timedelta]: ...
    def period(self, grain: Grain, moment: datetime, /) -> Period: ...


@dataclass(frozen=True, slots=True)
class AsOf:
    """What ranges of time depend on.

    :ivar now: naive in the application's calendar.
    :ivar first_days: of the events of `Expression.begun`: a day before which nobody did it. An
        event that nobody ever did is missing.
    :ivar months: of the dimensions of `Expression.dimensions`: who got which value when. None: only
        the values of now are kept. A dimension of which nobody ever had a value is missing.
    """

    now: datetime
    calendar: Calendar
    first_days: Mapping[str, date]
    months: Mapping[str, Months | None] = field(default_factory=dict)

    def parts(self, start: datetime, end: datetime) -> tuple[Period, ...]:
        """The stored periods whose union is the time from `start` to before `end`."""
        calendar = self.calendar
        return stored_parts(start, end, tuple(calendar.ttl.items()), calendar.timezone)

    def parts_before(
        self, event: str, end: datetime, start: datetime | None = None
    ) -> tuple[Period, ...]:
        """The stored periods in which anybody can have done `event` before `end`.

        :param start: and not before then.
        """
        if event not in self.first_days:
            return ()
        # From the first day of its month on, all days of the month are told by one bitmap.
        first = datetime.combine(self.first_days[event].replace(day=1), time())
        begin = first if start is None else max(first, start)
        return self.parts(begin, end) if begin < end else ()


class Expression(ABC):
    """A set of users that depends on a period.

    >>> print(Event("web") & Flag("user:premium") | Event("sign-up"))
    web & flag:user:premium | sign-up
    >>> parse("a & (b - c)") == Event("a") & (Event("b") - Event("c"))
    True
    """

    #: How tightly the text form binds; operands that bind less need parentheses.
    precedence = 4

    @abstractmethod
    def leaves(self) -> Iterator[Leaf]:
        """The events, flags and ranges that it combines, from left to right."""

    @abstractmethod
    def as_of(self, when: AsOf) -> Expression:
        """The same with each range of time as the stored periods that it is read from.

        Only this can be evaluated. What has no ranges is itself.
        """

    @abstractmethod
    def evaluate(self, sets: ByKey[S], period: Period | None) -> S:
        """The users in `period`; None is a period in which nothing happened.

        :param sets: the sets by key: bitmaps, or what is known about them.
        """

    @abstractmethod
    def keys(self, period: Period | None) -> Iterator[str]:
        """The keys that `evaluate` reads for `period`, which may be None as there."""

    def dated(self) -> frozenset[str]:
        """The names of what depends on the period in which it is evaluated."""
        return frozenset(leaf.name for leaf in self.leaves() if leaf.is_dated)

    def begun(self) -> frozenset[str]:
        """The names of the events whose first day `as_of` has to know."""
        return frozenset(leaf.name for leaf in self.leaves() if leaf.looks_back)

    def dimensions(self) -> frozenset[str]:
        """The names of the dimensions whose months `as_of` has to know."""
        return frozenset(leaf.dimension for leaf in self.leaves() if isinstance(leaf, Was))

    def events(self) -> frozenset[str]:
        """The names of the events in it."""
        return frozenset(leaf.name for leaf in self.leaves() if not leaf.is_flag)

    def flags(self) -> frozenset[str]:
        """The names of the flags in it."""
        return frozenset(leaf.name for leaf in self.leaves() if leaf.is_flag)

    def names(self) -> frozenset[str]:
        """The names of the events and flags in it."""
        return frozenset(leaf.name for leaf in self.leaves())

    @property
    def spreads(self) -> bool:
        """Whether the union over the periods of a span equals the value for the whole span.

        True for one event, and for one event narrowed by what is the same in every period: their
        past can be read from months.
        """
        return True

    def __and__(self, other: Expression) -> Expression:
        return And(self, other)

    def __or__(self, other: Expression) -> Expression:
        return Or(self, other)

    def __sub__(self, other: Expression) -> Expression:
        return Minus(self, other)


@dataclass(frozen=True, slots=True)
class Leaf(Expression):
    """One name, and in which way it stands for users."""

    name: str

    #: Whether it depends on the period in which it is evaluated.
    is_dated: ClassVar[bool] = False
    is_flag: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checked_name(self.name)

    @property
    def looks_back(self) -> bool:
        """Whether it is read from the first day of the event on."""
        return False

    def leaves(self) -> Iterator[Leaf]:
        yield self

    def as_of(self, when: AsOf) -> Expression:
        return self


@dataclass(frozen=True, slots=True)
class Event(Leaf):
    """Those who did the event `name` in the period."""

    is_dated = True

    def evaluate(self, sets: ByKey[S], period: Period | None) -> S:
        return sets.union_of(() if period is None else period.keys(self.name))

    def keys(self, period: Period | None) -> Iterator[str]:
        if period is not None:
            yield from period.keys(self.name)

    def __str__(self) -> str:
        plain = _is_bare(self.name) and not self.name.startswith(_FLAG)
        return self.name if plain else _quoted(self.name)


@dataclass(frozen=True, slots=True)
class Flag(Leaf):
    """Those for whom the undated flag `name` (bitmapist's ``UniqueEvents``) is set now."""

    is_flag = True

    def evaluate(self, sets: ByKey[S], period: Period | None) -> S:
        return sets[unique_key(self.name)]

    def keys(self, period: Period | None) -> Iterator[str]:
        yield unique_key(self.name)

    def __str__(self) -> str:
        return _FLAG + (self.name if _is_bare(self.name) else _quoted(self.name))


@dataclass(frozen=True, slots=True)
class _OfAMoment(Leaf):
    """A leaf that depends on the moment at which the question is asked."""

    def evaluate(self, sets: ByKey[S], period: Period | None) -> S:
        raise TypeError(f"{self} is read as of a moment: evaluate what as_of() returns")

    def keys(self, period: Period | None) -> Iterator[str]:
        raise TypeError(f"{self} is read as of a moment: ask what as_of() returns")


@dataclass(frozen=True, slots=True)
class Ranged(_OfAMoment):
    """An event in a range of its own, as of the moment at which the question is asked.

    :ivar over: the range, as `flask_bitmapist.ranges` spells it.
    """

    over: str

    def __post_init__(self) -> None:
        checked_name(self.name)
        object.__setattr__(self, "over", str(Range.parse(self.over)))

    @property
    def in_hours(self) -> bool:
        """Whether no longer periods than hours tell who is in it."""
        return "hour" in self.over

    def bounds(self, when: AsOf) -> Bounds:
        """When the range begins and ends."""
        return Range.parse(self.over).bounds(when.now, when.calendar.period)

    def _called(self, function: str, over: str) -> str:
        return f"{function}({spelt_in_range(self.name)}, {over})"


@dataclass(frozen=True, slots=True)
class Did(Ranged):
    """Those who did the event `name` in the range `over`, whatever period a report is about.

    >>> print(Event("web") - Did("post:created", "last 30 days"))
    web - did(post:created, last 30 days)

    :ivar over: such as ``last 14 days``, ``2026-01`` or ``ever``; see `flask_bitmapist.ranges`.
    :ivar at_least: in how many periods of the range, 1 to 1000.
    :ivar by: what these periods are: ``hour``, ``day``, ``week``, ``month`` or ``year``.
    """

    at_least: int = 1
    by: Grain = "day"

    def __post_init__(self) -> None:
        Ranged.__post_init__(self)
        count = self.at_least
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_PERIODS:
            raise ValueError(
                f"at_least must be a whole number from 1 to {MOST_PERIODS}, not {count!r}"
            )
        if self.by not in GRAINS:
            raise ValueError(f"by must be one of {', '.join(GRAINS)}, not {self.by!r}")
        if count == 1:  # in any of them: whatever they are
            object.__setattr__(self, "by", "day")

    @property
    def looks_back(self) -> bool:
        return isinstance(Range.parse(self.over), Before | Ever | Since)

    @property
    def in_hours(self) -> bool:
        return self.by == "hour" or "hour" in self.over

    def as_of(self, when: AsOf) -> Expression:
        start, end = self.bounds(when)
        if self.at_least == 1:
            return _Stored.of(self.name, self._parts(start, end, when))
        if start is None or self.looks_back:
            first = when.first_days.get(self.name)
            begun = end if first is None else datetime.combine(first, time())
            start = begun if start is None else max(start, begun)
        return _Often(self.name, self._groups(start, end, when), self.at_least)

    def _parts(self, start: datetime | None, end: datetime, when: AsOf) -> tuple[Period, ...]:
        if start is None or self.looks_back:
            return when.parts_before(self.name, end, start)
        return when.parts(start, end)

    def _groups(self, start: datetime, end: datetime, when: AsOf) -> tuple[tuple[str, ...], ...]:
        """The keys of each period of the range, as far as it lies in it."""
        period, groups = when.calendar.period(self.by, start), list[tuple[str, ...]]()
        while period.start < end:
            if len(groups) == MOST_PERIODS:
                raise ValueError(f"{self} has more than {MOST_PERIODS} {self.by}s: shorten it")
            parts = when.parts(max(start, period.start), min(end, period.end))
            groups.append(tuple(part.key(self.name) for part in parts))
            period = period.shift(1)
        return tuple(groups)

    def __str__(self) -> str:
        if self.at_least == 1:
            return self._called("did", self.over)
        return self._called("did", f"at least {self.at_least} {self.by}s of {self.over}")


@dataclass(frozen=True, slots=True)
class First(Ranged):
    """Those who did the event `name` for the first time ever in the range `over`.

    :ivar over: as in `Did`.
    """

    @property
    def looks_back(self) -> bool:
        return True

    def as_of(self, when: AsOf) -> Expression:
        start, end = self.bounds(when)
        if start is None:
            return _Stored.of(self.name, when.parts_before(self.name, end))
        before = _Stored.of(self.name, when.parts_before(self.name, start))
        return Minus(_Stored.of(self.name, when.parts_before(self.name, end, start)), before)

    def __str__(self) -> str:
        return self._called("first", self.over)


@dataclass(frozen=True, slots=True)
class Was(_OfAMoment):
    """Those who had, at the end of the period's month, the value that the flag `name` stands for.

    An hour, a day or a week has the month in which it ends, a year its last one. In the present
    month it is the value that they have now.

    >>> print(Event("web") & Was("user:plan=pro"))
    web & was(user:plan=pro)
    """

    is_dated = True
    is_flag = True

    def __post_init__(self) -> None:
        value_of(checked_name(self.name))

    @property
    def dimension(self) -> str:
        return value_of(self.name)[0]

    def as_of(self, when: AsOf) -> Expression:
        dimension, value = value_of(self.name)
        nobody = _Stored(self.name, ())
        if dimension not in when.months:
            return nobody
        months = when.months[dimension]
        if months is None:
            raise ValueError(f"{self}: {not_dated(dimension)}")
        return _Had(self.name, months, (value,)) if value in months.values else nobody

    def __str__(self) -> str:
        return f"was({spelt_in_range(self.name)})"


def not_dated(dimension: str) -> str:
    """That only the present values of `dimension` are kept, and what to do."""
    return (
        f"of {dimension} only the values of now are kept. Declare it with dated=True to keep those "
        "of each month from then on, or ask for the values of now"
    )


@dataclass(frozen=True, eq=False)
class Months:
    """Who got which value of a dimension in which month.

    A month has one bitmap for each value: those who got it in that month and kept it until its end.
    Those who lost their value are in the bitmap of `NONE`.

    :ivar values: all of its values, `OTHER` and `NONE` included.
    :ivar first: the first month that is kept.
    :ivar present: the present month, at whose end people have what their flags tell.
    """

    dimension: str
    values: tuple[str, ...]
    first: Period
    present: Period

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Those of all bitmaps."""
        return tuple(key for keys in self._months for key in keys)

    @cached_property
    def _months(self) -> list[tuple[str, ...]]:
        """The keys of each month. By the clock of another process the next one may have begun."""
        last = min(self.present.shift(1), self.first.shift(MOST_PERIODS))
        return [
            tuple(month_key(self.dimension, value, month.start) for value in self.values)
            for month in self.first.until(last)
        ]

    def number(self, period: Period | None) -> int | None:
        """Which month tells of `period`, counted from the first one; None: the present one.

        -1 is the time before the first month, and also a period in which nothing happened.
        """
        if period is None:
            return -1
        if period not in self._numbers:
            told = Period.containing("month", period.end - timedelta(microseconds=1))
            years = told.start.year - self.first.start.year
            number = 12 * years + told.start.month - self.first.start.month
            known = min(max(-1, number), len(self._months) - 1)
            self._numbers[period] = None if told >= self.present else known
        return self._numbers[period]

    @cached_property
    def _numbers(self) -> dict[Period, int | None]:
        return {}

    def had(self, sets: ByKey[S], value: str, number: int) -> S:
        """Those who had `value` at the end of the month `number`.

        Of those who have got any value since, their months tell; of others, the flag does.
        """

        def find() -> S:
            since = self._got_any_after(sets, number)
            now = sets[unique_key(flag_of(self.dimension, value))]
            return (now - since) | (self._got_last(sets, value, number) & since)

        return sets.once((self, value, number), find)

    def _got_any_after(self, sets: ByKey[S], number: int) -> S:
        """Those who got a value, or lost theirs, after the month `number`."""
        got = sets.union_of(())
        for after in range(len(self._months) - 1, number, -1):
            small_step()
            got = sets.once((self, after), partial(or_, got, sets.union_of(self._months[after])))
        return got

    def _got_last(self, sets: ByKey[S], value: str, number: int) -> S:
        """Those who got `value` in the month `number` or before, and no other one until then."""
        place, last = self.values.index(value), sets.union_of(())
        for keys_of_month in self._months[: number + 1]:
            small_step()
            got, any_ = sets[keys_of_month[place]], sets.union_of(keys_of_month)
            last = sets.once((self, keys_of_month[place]), partial(_replaced, last, any_, got))
        return last


def _replaced(before: S, gone: S, come: S) -> S:
    return (before - gone) | come


def months_of(
    dimensions: Iterable[str],
    values: Mapping[str, Collection[str]],
    dated: Mapping[str, date],
    now: datetime,
) -> dict[str, Months | None]:
    """`AsOf.months` of `dimensions`.

    :param values: those of each dimension that there is.
    :param dated: the first month of those of which months are kept.
    :param now: a moment of the present month.
    """
    present = Period.containing("month", now)
    return {
        name: Months(
            name,
            tuple(dict.fromkeys((*values.get(name, ()), OTHER, NONE))),
            Period.containing("month", datetime.combine(dated[name], time())),
            present,
        )
        if name in dated
        else None
        for name in dimensions
        if name in dated or values.get(name)
    }


@dataclass(frozen=True, slots=True)
class _Had(Leaf):
    """Those who had one of the `values` of a dimension at the end of the period's month.

    In a period in which nothing happened they are those who have had it since before the first
    month that is kept.
    """

    months: Months
    values: tuple[str, ...]

    is_dated = True
    is_flag = True

    def evaluate(self, sets: ByKey[S], period: Period | None) -> S:
        months, number = self.months, self.months.number(period)
        if number is None:
            return sets.union_of(self._flags)
        had = partial(reduce, or_, (months.had(sets, value, number) for value in self.values))
        return sets.once((months, self.values, number), had)

    def keys(self, period: Period | None) -> Iterator[str]:
        yield from self._flags
        if self.months.number(period) is not None:
            yield from self.months.keys

    @property
    def _flags(self) -> tuple[str, ...]:
        return tuple(unique_key(flag_of(self.months.dimension, value)) for value in self.values)


@dataclass(frozen=True, slots=True)
class _Stored(Leaf):
    """Those whom any of the bitmaps `read` of an event holds."""

    read: tuple[str, ...]

    @classmethod
    def of(cls, event: str, parts: tuple[Period, ...]) -> _Stored:
        return cls(event, tuple(part.key(event) for part in parts))

    def evaluate(self, sets: ByKey[S], period: Period | None) -> S:
        return sets.union_of(self.read)

    def keys(self, period: Period | None) -> Iterator[str]:
        yield from self.read


@dataclass(frozen=True, slots=True)
class _Often(Leaf):
    """Those who did an event in `at_least` periods.

    :ivar periods: the keys of the bitmaps that tell of each of them.
    """

    periods: tuple[tuple[str, ...], ...]
    at_least: int

    def evaluate(self, sets: ByKey[S], period: Period | None) -> S:
        def count() -> S:
            # Who did it in at least 1, 2, ... of the periods so far.
            reached: list[S] = []
            for keys in self.periods:
                small_step(1 + len(reached))
                did = sets.union_of(keys)
                if len(reached) < self.at_least:
                    reached.append(did & reached[-1] if reached else did)
                for number in range(len(reached) - 1, -1, -1):
                    reached[number] |= did & reached[number - 1] if number else did
            return reached[-1] if len(reached) == self.at_least else sets.union_of(())

        return sets.once(self, count)

    def keys(self, period: Period | None) -> Iterator[str]:
        for keys in self.periods:
            yield from keys


@dataclass(frozen=True, slots=True)
class _Pair(Expression):
    left: Expression
    right: Expression

    def __post_init__(self) -> None:
        for side in (self.left, self.right):
            if not isinstance(side, Expression):
                raise TypeError(f"a segment combines with segments, not with {side!r}")

    def leaves(self) -> Iterator[Leaf]:
        # No recursion, as it may be deeply nested.
        pending: list[Expression] = [self]
        while pending:
            match pending.pop():
                case _Pair() as pair:
                    pending += (pair.right, pair.left)
                case leaf:
                    yield from leaf.leaves()

    def as_of(self, when: AsOf) -> Expression:
        return type(self)(self.left.as_of(when), self.right.as_of(when))

    def keys(self, period: Period | None) -> Iterator[str]:
        yield from self.left.keys(period)
        yield from self.right.keys(period)

    def _text(self, operator: str) -> str:
        def side(operand: Expression, least: int) -> str:
            return f"({operand})" if operand.precedence < least else str(operand)

        # Python's operators group to the left: an equal one on the right needs parentheses.
        left, right = side(self.left, self.precedence), side(self.right, self.precedence + 1)
        return f"{left} {operator} {right}"


class And(_Pair):
    """Those in both."""

    __slots__ = ()
    precedence = 2

    def evaluate(self, sets: ByKey[S], period: Period | None) -> S:
        return self.left.evaluate(sets, period) & self.right.evaluate(sets, period)

    @property
    def spreads(self) -> bool:
        one_is_undated = not self.left.dated() or not self.right.dated()
        return one_is_undated and self.left.spreads and self.right.spreads

    def __str__(self) -> str:
        return self._text("&")


class Or(_Pair):
    """Those in either."""

    __slots__ = ()
    precedence = 1

    def evaluate(self, sets: ByKey[S], period: Period | None) -> S:
        return self.left.evaluate(sets, period) | self.right.evaluate(sets, period)

    @property
    def spreads(self) -> bool:
        return self.left.spreads and self.right.spreads

    def __str__(self) -> str:
        return self._text("|")


class Minus(_Pair):
    """Those in the left one who are not in the right one."""

    __slots__ = ()
    precedence = 3

    def as_of(self, when: AsOf) -> Expression:
        match self.left.as_of(when), self.right.as_of(when):
            case Minus(rest, _Had(name, months, values)), _Had(_, same, more) if months is same:
                # Those of each month are put together once, rather than taken from each period.
                return Minus(rest, _Had(name, months, (*values, *more)))
            case left, right:
                return Minus(left, right)

    def evaluate(self, sets: ByKey[S], period: Period | None) -> S:
        return self.left.evaluate(sets, period) - self.right.evaluate(sets, period)

    @property
    def spreads(self) -> bool:
        return not self.right.dated() and self.left.spreads

    def __str__(self) -> str:
        return self._text("-")


class SegmentError(ValueError):
    """An invalid segment: says what is wrong and points at the character.

    :ivar reason: what is wrong, without the text.
    :ivar position: the index of that character in the text.
    """

    def __init__(self, text: str, position: int, reason: str) -> None:
        begin = max(0, position - 60)
        # Keep it on one line that fits a terminal, or the caret would not point at the fault.
        shown = "".join(c if c.isprintable() else " " for c in text[begin : position + 16])
        super().__init__(f"{reason}\n    {shown}\n    {' ' * (position - begin)}^")
        self.reason = reason
        self.position = position


def parse(text: str | Expression) -> Expression:
    """The expression that `text` spells; an expression is itself.

    :raises SegmentError: pointing at the first character that cannot be understood.
    :raises TypeError: for anything but a str or an expression.
    """
    if isinstance(text, Expression):
        return text
    if not isinstance(text, str):
        raise TypeError(f"a segment is a str or an expression of events and flags, not {text!r}")
    return _parsed(text)


_GRAMMAR = r"""
    ?start: union
    ?union: common | union "|" common -> union
    ?common: rest | common "&" rest -> common | common "&" _NOT atom -> without
    ?rest: atom | rest _MINUS atom -> without
    ?atom: "(" union ")"
        | EVENT -> event
        | QUOTED_EVENT -> event
        | FLAG -> flag
        | QUOTED_FLAG -> flag
        | DID (NAME | QUOTED_EVENT) "," RANGE ")" -> did
        | FIRST (NAME | QUOTED_EVENT) "," RANGE ")" -> first
        | WAS (NAME | QUOTED_EVENT) ")" -> was

    EVENT: /(?!flag:)(?!-(?:[\s()&|"]|$))[^\s()&|"~!][^\s()&|"]*/
    QUOTED_EVENT: /"(?:[^"\\]|\\.)*"/s
    FLAG: /flag:[^\s()&|"~!][^\s()&|"]*/
    QUOTED_FLAG: /flag:"(?:[^"\\]|\\.)*"/s
    DID.2: /did\s*\(/
    FIRST.2: /first\s*\(/
    WAS.2: /was\s*\(/
    NAME.-1: /(?!flag:)[^\s()&|",~!][^\s()&|",]*/
    RANGE.-2: /[^\s()][^()]*/
    _NOT.2: /not(?=\s*\(|\s+(?!-\s)[^\s&|)])/
    _MINUS: /(?<=\s)-(?=\s)/
    %ignore /\s+/
"""
#: How often, and then the range: ``at least 3 days of last 14 days``.
_OFTEN = re.compile(r"(?:at\s+least\s+)?([0-9]{1,9})\s+([a-z]+?)s?\s+of\s+", re.IGNORECASE)


class _Build(Transformer[Token, Expression]):
    """From the parser's tree to expressions; one method for each alias of the grammar."""

    def union(self, sides: list[Expression]) -> Expression:
        return Or(*sides)

    def common(self, sides: list[Expression]) -> Expression:
        return And(*sides)

    def without(self, sides: list[Expression]) -> Expression:
        return Minus(*sides)

    def event(self, names: list[Token]) -> Expression:
        return _made(names[0], lambda: Event(_unquoted(names[0])))

    def flag(self, names: list[Token]) -> Expression:
        return _made(names[0], lambda: Flag(_unquoted(names[0][len(_FLAG) :])))

    def did(self, tokens: list[Token]) -> Expression:
        _, name, over = tokens
        often = _OFTEN.match(over)
        event = _made(name, lambda: Event(_unquoted(name))).name
        if often is None:
            _check_at_least(over)
            return _made(over, lambda: Did(event, str(over)))
        number, unit = often.groups()
        if unit.lower() not in GRAINS:
            reason = f"{unit!r} is no period: use {', '.join(GRAINS)}"
            raise _MistakeError((over.start_pos or 0) + often.start(2), reason)
        by = cast(Grain, unit.lower())
        _made(over, lambda: Range.parse(over[often.end() :]), often.end())
        return _made(over, lambda: Did(event, over[often.end() :], int(number), by))

    def first(self, tokens: list[Token]) -> Expression:
        _, name, over = tokens
        event = _made(name, lambda: Event(_unquoted(name))).name
        return _made(over, lambda: First(event, str(over)))

    def was(self, tokens: list[Token]) -> Expression:
        _, name = tokens
        return _made(name, lambda: Was(_unquoted(name)))


class _MistakeError(Exception):
    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position


def _made(token: Token, make: Callable[[], _Made], offset: int = 0) -> _Made:
    """What `make` makes of `token`.

    :param offset: where in it its text begins.
    :raises _MistakeError: pointing at what is wrong with it.
    """
    begin = (token.start_pos or 0) + offset
    try:
        return make()
    except RangeError as error:
        raise _MistakeError(begin + error.position, error.reason) from None
    except ValueError as error:
        raise _MistakeError(begin, str(error)) from None


def _check_at_least(over: Token) -> None:
    if re.match(r"at\s+least\b", over, re.IGNORECASE):
        reason = "say how many periods of which range: 'at least 3 days of last 14 days'"
        raise _MistakeError(over.start_pos or 0, reason)


_PARSER = Lark(_GRAMMAR, parser="lalr", transformer=_Build())


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Expression:
    try:
        expression = cast(Expression, _PARSER.parse(text))
    except UnexpectedToken as error:
        raise _not_expected(text, error) from None
    except UnexpectedCharacters as error:
        raise _not_understood(text, error.pos_in_stream or 0) from None
    except _MistakeError as error:
        raise SegmentError(text, error.position, str(error)) from None
    if sum(1 for _ in expression.leaves()) > MOST_NAMES:
        raise SegmentError(text, len(text), f"a text has at most {MOST_NAMES} names")
    return expression


def _not_expected(text: str, error: UnexpectedToken) -> SegmentError:
    """Why the token of `error` cannot stand where it does."""
    is_end = error.token.type == "$END"
    position = len(text) if is_end else error.pos_in_stream or 0
    negated = re.search(r"(?<![^\s(&|])not\s*\Z", text[:position])
    if negated and not is_end:
        return SegmentError(text, negated.start(), _NO_COMPLEMENT)
    if error.expected & {"COMMA", "RANGE"}:
        return SegmentError(text, position, _NO_RANGE)
    if "NAME" in error.expected:
        is_value = re.search(r"was\s*\(\s*\Z", text[:position])
        return SegmentError(text, position, _NO_VALUE if is_value else _NO_EVENT)
    if error.token == "," and re.search(r"was\s*\([^()]*\Z", text[:position]):
        return SegmentError(text, position, _NO_TIME)
    if error.token.type in ("NAME", "RANGE"):  # which are understood within did() and first() alone
        return _not_understood(text, position)
    if is_end:
        missing = "')'" if "RPAR" in error.expected else "a name"
        return SegmentError(text, position, f"{missing} is missing")
    return SegmentError(text, position, f"{str(error.token)!r} is not expected here")


_NO_COMPLEMENT = (
    "there is nobody to take them from: write 'a & not b', or 'a - b', for those in a who are not "
    "in b"
)
_NO_EVENT = "the name of an event is missing"
_NO_VALUE = "the value of a dimension is missing: was(user:plan=pro)"
_NO_TIME = "was() has no time of its own: it is about the month of each period. ')' is missing"
_NO_RANGE = "say when, after a comma: did(a, last 30 days), did(a, 2026-01) or did(a, ever)"


def _not_understood(text: str, position: int) -> SegmentError:
    """Why no token begins at `position`."""
    if text.startswith(_FLAG, position):
        position += len(_FLAG)
        if not text.startswith((*_NOT, '"'), position):
            return SegmentError(text, position, "the name of a flag is missing")
    if text[position] == '"':
        return SegmentError(text, position, "this quote is not closed")
    if text[position] in _NOT:
        reason = (
            f"there is no complement: write 'a - b' for those in a who are not in b. A name that "
            f"begins with {text[position]!r} stands in double quotes"
        )
        return SegmentError(text, position, reason)
    reason = "'-' stands between two names, with a space on either side"
    return SegmentError(text, position, reason)


def _is_bare(name: str) -> bool:
    return (
        name not in ("-", "not")
        and not name.startswith(_NOT)
        and not any(c.isspace() or c in '()&|"' for c in name)
    )


def spelt_in_range(event: str) -> str:
    """The name of an event as `did(...)` and `first(...)` have it, where a comma ends it."""
    text = str(Event(event))
    return _quoted(event) if "," in event else text


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquoted(text: str) -> str:
    """The name that `text` spells, in double quotes or not."""
    if not text.startswith('"'):
        return str(text)
    characters = iter(text[1:-1])
    return "".join(next(characters) if c == "\\" else c for c in characters)
