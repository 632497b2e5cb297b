"""What every report shares: its periods, its users, its form as dict, CSV and DataFrame."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ..current import current_tracker
from ..dimensions import NONE, flag_of
from ..ids import PLAIN
from ..periods import GRAINS, Grain, Period, local
from ..questions.base import InRange
from ..questions.fields import MOST, Choice, Moment, Number
from ..ranges import Range
from ..reading.bitmap import Bitmap, union
from ..reading.bitmaps import Bitmaps
from ..reading.hours import InHours
from ..reading.segments import AsOf, ByKey, Event, Expression, Leaf, S, months_of, parse
from ..reading.time_limit import small_step
from ..reading.unknown import did_you_mean, unknown_terms

if TYPE_CHECKING:
    from ..registry import Known
    from ..tracker import Tracker

#: How many periods a report shows unless it is told, by grain.
USUAL_LENGTH: dict[Grain, int] = {"hour": 24, "day": 30, "week": 12, "month": 12, "year": 5}


@dataclass(frozen=True)
class Scope:
    """When, where and as of which moment a report is made."""

    tracker: Tracker
    by: Grain
    periods: tuple[Period, ...]
    #: The period that contains now.
    current: Period
    #: The moment that counts as now, naive in the application's calendar.
    now: datetime

    def known(self) -> Known:
        """What has been registered. One round trip, the first time."""
        return self.already_known or self._registered

    @property
    def already_known(self) -> Known | None:
        """The same, if it has been read."""
        known: Known | None = vars(self).get("everything") or vars(self).get("_registered")
        return known

    @cached_property
    def everything(self) -> Known:
        """What has been marked, bitmapist's own included."""
        return self.tracker.reader.known()

    @cached_property
    def _registered(self) -> Known:
        return self.tracker.reader.known(scanned=False)

    @property
    def before(self) -> Scope:
        """The same about as many periods right before these."""
        first, size = self.periods[0], len(self.periods)
        return replace(self, periods=tuple(first.shift(-size).until(first.shift(-1))))

    @property
    def with_before(self) -> Scope:
        """The same about its periods and those of `before`."""
        return replace(self, periods=(*self.before.periods, *self.periods))

    @property
    def present(self) -> datetime:
        """The latest moment of which marks may tell, whatever counts as now."""
        tracker = self.tracker
        return max(self.now, tracker.now(), local(None, tracker.settings.timezone))

    def is_complete(self, period: Period) -> bool:
        """Whether `period` is over, so that its figure will not grow."""
        return period.start < self.current.start


def scope(question: Any, tracker: Tracker | None) -> Scope:
    """The periods of a question about a range, as far as it says which.

    :raises ValueError: as `periods_of`.
    """
    return in_range(question, question.by, tracker)


def in_range(question: InRange, by: Grain, tracker: Tracker | None) -> Scope:
    """The periods of `by` in the range of `question`.

    :raises ValueError: as `periods_of`.
    """
    return periods_of(
        by,
        question.start,
        question.end,
        question.now,
        tracker,
        over=question.over,
        length=question.rows or question.usual,
    )


def scope_at(question: Any, at: date | datetime | None, tracker: Tracker | None) -> Scope:
    """The one period of `at`.

    :raises ValueError: as `periods_of`.
    """
    return periods_of(question.by, None, at, question.now, tracker, length=1)


def periods_of(
    by: Grain,
    start: date | datetime | None,
    end: date | datetime | None,
    now: date | datetime | None,
    tracker: Tracker | None,
    *,
    over: str | None = None,
    length: int | None = None,
) -> Scope:
    """The periods from that of `start` to that of `end`, both included, or of the range `over`.

    :param by: the grain of a period.
    :param start: a moment of the first period; None: as many periods as are usual.
    :param end: a moment of the last one; None is now.
    :param now: the moment as of which to report; None is now.
    :param tracker: None is the current app's.
    :param over: a range in words; `start`, `end` and `length` then say nothing.
    :param length: the number of periods where `start` is None.
    :raises ValueError: for an unknown grain, `end` before `start`, more than 1000 periods, a moment
        that is no date, or one outside the calendar of reports.
    """
    tracker = tracker or current_tracker()
    Choice(GRAINS).checked("by", by)
    period = tracker.settings.period
    moment = _moment("now", now, tracker)
    current = period(by, moment)
    last = current if end is None else period(by, _moment("end", end, tracker))
    if over is not None:
        first, last = Range.parse(over).periods(by, moment, period)
        if last < first:
            raise ValueError(f"the range {over!r} has not begun")
    elif start is None:
        first = last.shift(1 - (length or USUAL_LENGTH[by]))
    else:
        first = period(by, _moment("start", start, tracker))
    if first.start > last.start:
        raise ValueError(f"the end, {last.start:%Y-%m-%d}, is before the start, {first.start:%F}")
    if first.shift(MOST).start <= last.start:
        raise ValueError(
            f"from {first.start:%F} to {last.start:%F} are more than {MOST} {by}s: "
            "shorten the range or take longer periods"
        )
    return Scope(tracker, by, tuple(first.until(last)), current, moment)


def _moment(name: str, moment: object, tracker: Tracker) -> datetime:
    if moment is None:
        return tracker.now()
    return local(Moment().checked(name, moment), tracker.settings.timezone)


def check_length(what: str, number: object, least: int = 1, most: int = MOST) -> int:
    """`number`, if it is a whole number from `least` to `most`.

    :raises ValueError: naming `what`.
    """
    checked: int = Number(least, most).checked(what, number)
    return checked


def check_known(expressions: Iterable[Expression], known: Known) -> None:
    """:raises ValueError: for events and flags that were never marked, with the nearest names."""
    if unknown := sorted(unknown_terms(expressions, known), key=attrgetter("name")):
        hints = [did_you_mean(term, known) for term in unknown]
        told = (
            f"{term.name} ({hint})" if hint else term.name
            for term, hint in zip(unknown, hints, strict=True)
        )
        raise ValueError(f"unknown events or flags: {', '.join(told)}")


@dataclass(frozen=True)
class Users:
    """Those who did `what`, as far as they are in the segment `where`, period by period."""

    what: Expression
    where: Expression | None = None

    @classmethod
    def of(
        cls,
        what: str | Expression,
        where: str | Expression | None,
        asked: Scope,
        *,
        strict: bool = False,
    ) -> Users:
        """Errors are those of `each`."""
        return cls.each((what, where), asked=asked, strict=strict)[0]

    @classmethod
    def each(
        cls,
        *pairs: tuple[str | Expression, str | Expression | None],
        asked: Scope,
        strict: bool = False,
    ) -> list[Users]:
        """The users of each pair of `what` and `where`, whose sets one report combines.

        One round trip; none for a single name, once the process has compared the time zone.

        :raises ValueError: for a text that is no segment; for events whose ids are of different
            kinds, because equal offsets mean different people; with `strict`, for unknown events.
        """
        return cls._read(pairs, asked, strict)[0]

    @classmethod
    def mapped(
        cls,
        *pairs: tuple[str | Expression, str | Expression | None],
        asked: Scope,
        strict: bool = False,
    ) -> tuple[list[Users], str]:
        """The same as `each`, and the kind of the ids of these users."""
        return cls._read(pairs, asked, strict, needs_kind=True)[:2]

    @classmethod
    def recorded(
        cls,
        *pairs: tuple[str | Expression, str | Expression | None],
        asked: Scope,
        strict: bool = False,
    ) -> tuple[list[Users], str, date | None]:
        """The same as `mapped`, and the first day of what the first of these users did.

        In one round trip, whatever the process has marked; one more for events of others.
        """
        what = parse(pairs[0][0])
        done = what.dated() & what.events()
        users, kind, when = cls._read(pairs, asked, strict, needs_kind=True, begun=done)
        first_days = [when.first_days[name] for name in done if name in when.first_days]
        kept = (months for name in what.dimensions() if (months := when.months.get(name)))
        first_days += (months.first.start.date() for months in kept)
        return users, kind, min(first_days, default=None)

    @classmethod
    def _read(
        cls,
        pairs: Iterable[tuple[str | Expression, str | Expression | None]],
        asked: Scope,
        strict: bool,
        *,
        needs_kind: bool = False,
        begun: frozenset[str] = frozenset(),
    ) -> tuple[list[Users], str, AsOf]:
        """The users, as of the scope's moment; the kind of their ids; what ranges depend on.

        :param needs_kind: the kind is asked for where the names alone do not ask for it.
        :param begun: events whose first days are asked for besides those that ranges need.
        """
        users = [cls(parse(what), None if where is None else parse(where)) for what, where in pairs]
        parts = [part for one in users for part in one.parts()]
        names = frozenset[str]().union(*(one.names() for one in users))
        begun = begun.union(*(part.begun() for part in parts))
        dimensions = frozenset[str]().union(*(part.dimensions() for part in parts))
        settings = asked.tracker.settings
        when = AsOf(asked.now, settings, {}, {})
        in_hours = [] if settings.track_hourly else InHours.among(parts, when)
        if not (
            strict
            or needs_kind
            or begun
            or dimensions
            or in_hours
            or len(names) > 1
            or not asked.tracker.reader.has_compared_calendar
        ):
            return [one._as_of(when) for one in users], PLAIN, when
        # Those who lost their value share the bits of those who have one.
        names = names.union(flag_of(name, NONE) for name in dimensions)
        known = _known_of(asked, parts, names, begun, in_hours, strict=strict)
        days = {name: known.events[name].first_day for name in begun if name in known.events}
        months = months_of(dimensions, known.dimensions, known.dated, asked.present)
        when = replace(when, first_days=days, months=months)
        return [one._as_of(when) for one in users], known.shared_kind(names), when

    def _as_of(self, when: AsOf) -> Users:
        where = None if self.where is None else self.where.as_of(when)
        return Users(self.what.as_of(when), where)

    def parts(self) -> Iterator[Expression]:
        """The events or segments that tell who they are."""
        yield self.what
        if self.where is not None:
            yield self.where

    def names(self) -> frozenset[str]:
        return frozenset[str]().union(*(part.names() for part in self.parts()))

    def keys(self, periods: Sequence[Period]) -> Iterator[str]:
        """What must be fetched to know the users in each of `periods`, which are in time order.

        First what is read for several of them.
        """
        yield from self.lasting_keys(periods)
        yield from chain.from_iterable(self.passing_keys(periods))

    def passing_keys(self, periods: Sequence[Period]) -> Iterator[list[str]]:
        """For each of `periods` the keys that are read for no other one."""
        lasting = {*self.lasting_keys(periods)}
        events = [leaf for leaf in self._leaves() if isinstance(leaf, Event)]
        for period in periods:
            keys = (key for event in events for key in event.keys(period))
            yield [key for key in keys if key not in lasting]

    def lasting_keys(self, periods: Sequence[Period]) -> Iterator[str]:
        """What is read for several of `periods`."""
        # No later period needs a month that the first one does not need.
        for first in periods[:1]:
            for leaf in self._leaves():
                if not isinstance(leaf, Event):
                    yield from leaf.keys(first)

    def _leaves(self) -> Iterator[Leaf]:
        return chain.from_iterable(part.leaves() for part in self.parts())

    def in_period(self, sets: ByKey[S], period: Period) -> S:
        small_step()
        users = self.what.evaluate(sets, period)
        return users if self.where is None else users & self.where.evaluate(sets, period)

    def in_any(self, bitmaps: Bitmaps, periods: Iterable[Period]) -> Bitmap:
        """The users in at least one of `periods`."""
        return union(self.in_period(bitmaps, period) for period in periods)


def _known_of(
    asked: Scope,
    parts: Sequence[Expression],
    names: Iterable[str],
    begun: frozenset[str],
    in_hours: Iterable[InHours],
    *,
    strict: bool,
) -> Known:
    """What is known of `names`, which `parts` have, without what the scope has read already.

    One round trip, and one more for events of others.

    :param begun: the events whose first days are needed.
    :raises ValueError: for a range in hours of an event without any; with `strict`, for names that
        were never marked.
    """
    reader, keys = asked.tracker.reader, [key for one in in_hours for key in one.keys]
    known = asked.known() if strict else asked.already_known
    if known is None:
        known, there = reader.known_of(
            names, begun, with_dimensions=any(part.dimensions() for part in parts), keys=keys
        )
    else:
        unknown = {term.name for term in unknown_terms(parts, known)} if strict else set()
        strangers = unknown.union(begun - known.events.keys())
        known, there = reader.with_others(known, sorted(strangers), keys=keys)
    if strict and unknown_terms(parts, known):
        # A SCAN also finds those of whom no month is left, and names that were meant.
        check_known(parts, asked.everything)
    for one in in_hours:
        one.check(there)
    return known


def label(period: Period) -> date | datetime:
    """How a report names a period: its first day, or the moment at which an hour begins."""
    return period.start if period.grain == "hour" else period.start.date()


class Report:
    """A frozen dataclass with its figures, also as a dict, as CSV and as a DataFrame."""

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists, numbers, strings and None; dates as ISO text."""
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }

    def to_csv(self) -> str:
        """The report's table as CSV (see `csv_text`), with a header."""
        return csv_text(*self.exported())

    def to_dataframe(self) -> Any:
        """The report's table as a ``pandas.DataFrame``.

        :raises ImportError: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("pandas is missing: pip install pandas", name="pandas") from error
        header, rows = self.exported()
        return pd.DataFrame(rows, columns=header)

    def exported(self) -> tuple[list[str], list[list[Any]]]:
        """The header and the rows of the table in full."""
        return self.table()

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """The header and the rows of the report's table: by default, those of its first list."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            rows = getattr(self, field.name)
            if isinstance(rows, list | tuple):
                return flat_table(rows)
        raise NotImplementedError(f"{type(self).__name__} has no list: define its table()")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV (RFC 4180).

    Text that a spreadsheet would take for a formula gets an apostrophe in front. A text with a
    semicolon or a tab is quoted too: a spreadsheet that splits lines there would find another cell
    behind it, which may begin like a formula.
    """
    return csv_rows([header, *rows])


def csv_rows(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as lines of CSV, as in `csv_text`."""
    return "".join(f"{','.join(map(_field, row)) or _EMPTY}\r\n" for row in rows)


def flat_table(rows: Sequence[Any]) -> tuple[list[str], list[list[Any]]]:
    """The header and rows of a list of dataclasses of one kind."""
    header = [field.name for field in dataclasses.fields(rows[0])] if rows else []
    return header, [[getattr(row, name) for name in header] for row in rows]


_TO_BE_QUOTED = re.compile('[,;"\r\n\t]')
#: A line of one empty field, which would otherwise be no line.
_EMPTY = '""'
#: First characters of text that a spreadsheet runs (OWASP, CSV injection); also full-width signs.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", *"\uff1d\uff0b\uff0d\uff20")


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value


def _field(value: Any) -> str:
    text = str(_cell(value))
    return '"' + text.replace('"', '""') + '"' if _TO_BE_QUOTED.search(text) else text


def _cell(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value
