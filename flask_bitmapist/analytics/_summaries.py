"""What is known of each of several people: when they were last seen, dimensions, flags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from itertools import chain, compress
from typing import TYPE_CHECKING, Any

from ..dimensions import flag_of
from ..ids import normal_form
from ..periods import KEY_PREFIX, Grain, Period, unique_key
from ..registry import Known
from ._bits import Keys, Periods, bits_of
from ._report import Report, Scope, check_length, periods_of
from ._sets import MOST_LISTED

if TYPE_CHECKING:
    from ..tracker import Tracker

#: The events that tell that somebody was there.
SEEN = ("user:seen", "user:logged_in")
#: Flags that are looked at for each.
_MOST_FLAGS = 200
#: The normal form of an id.
_User = int | str
#: One bit of a user, and what it tells of under each of its keys: a period or a flag.
_Keys = Keys[tuple[_User, Sequence[Any]]]
#: Before each day that anybody was seen.
_BEFORE: tuple[date, Grain] = (date.min, "day")
_NEVER = (None, None)


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known of one user.

    :ivar last: the last day on which they were seen; the first day of the month, where `last_by`
        says that the day itself is not known any more; None: never.
    :ivar dimensions: their value of each dimension that has one, now.
    :ivar flags: the other flags that are set now, by name.
    """

    id: int | str
    last: date | None
    last_by: Grain | None
    dimensions: dict[str, str]
    flags: list[str]


@dataclass(frozen=True, slots=True)
class Summaries(Report):
    """What is known of several users.

    :ivar seen: the events that tell when they were last seen: those of the given ones that have
        been marked.
    :ivar dimensions: those that any of them has a value of.
    :ivar people: in the order in which they were asked for.
    """

    seen: list[str]
    dimensions: list[str]
    people: list[Summary]

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """One row a user."""
        rows = [
            [
                one.id,
                one.last,
                one.last_by,
                *(one.dimensions.get(dimension) for dimension in self.dimensions),
                " ".join(one.flags),
            ]
            for one in self.people
        ]
        return ["id", "last", "last_by", *self.dimensions, "flags"], rows


def summaries(
    users: Iterable[object],
    seen: Sequence[str] = SEEN,
    *,
    now: date | datetime | None = None,
    tracker: Tracker | None = None,
) -> Summaries:
    """When each of `users` was last seen, their dimensions, and which flags are set for them.

    Of more than 200 flags, the first 200 by name are looked at. The number of round trips does not
    depend on how many users there are.

    :param users: at most 1000, each as for `profile`.
    :param seen: the events that tell that somebody was there.
    :param now: the moment as of which to report.
    :param tracker: whose events; by default the current app's.
    :raises ValueError: for something that identifies nobody.
    :raises redis.RedisError: if the server does not answer.
    """
    asked = periods_of("day", None, None, now, tracker, length=1)
    forms = [*map(normal_form, users)]
    check_length("the number of users", len(forms), least=0, most=MOST_LISTED)
    known = asked.tracker.reader.known()
    told = [event for event in seen if event in known.events]
    bits = _Bits(asked, known, told, forms)
    months, flags = bits.months_and_flags()
    last = bits.last(months)
    valued = {
        flag_of(dimension, value): (dimension, value)
        for dimension, values in known.dimensions.items()
        for value in values
    }
    people = []
    for form in forms:
        day, by = last.get(form, _NEVER)
        is_set = flags.get(form, [])
        dimensions = dict(valued[flag] for flag in is_set if flag in valued)
        others = [flag for flag in is_set if flag not in valued]
        people.append(Summary(form, day, by, dimensions, others))
    known_of_any = {dimension for one in people for dimension in one.dimensions}
    return Summaries(told, sorted(known_of_any), people)


class _Bits:
    """The bits of several users, in the bitmaps that tell what is known of them."""

    def __init__(
        self, asked: Scope, known: Known, seen: Sequence[str], forms: Sequence[_User]
    ) -> None:
        reader = asked.tracker.reader
        flags = sorted(known.flags)[:_MOST_FLAGS]
        kinds = {known.flags[flag] for flag in flags} | {known.events[event].kind for event in seen}
        offsets = reader.offsets_of_each(forms, kinds)
        self._redis = reader.redis
        self._today = asked.current
        self._lets_days_go = "day" in asked.tracker.settings.ttl
        self._months = {event: _months(known.events[event].first_day, asked) for event in seen}
        #: The bits of each event and flag, by the users who have one.
        self._events = {event: offsets[known.events[event].kind] for event in seen}
        self._flags = {flag: offsets[known.flags[flag]] for flag in flags}

    def months_and_flags(self) -> tuple[dict[_User, set[Period]], dict[_User, list[str]]]:
        """For each user, the months in which they were seen, and the flags, in one round trip."""
        months: dict[_User, set[Period]] = {}
        flags: dict[_User, list[str]] = {}
        in_months = (
            _keys(event, self._months[event], user, offset)
            for event, users in self._events.items()
            for user, offset in users.items()
        )
        of_flags: Iterable[_Keys] = (
            Keys((user, [flag]), offset, unique_key(flag), ("",))
            for flag, users in self._flags.items()
            for user, offset in users.items()
        )
        for (user, told), bits in bits_of(self._redis, chain(in_months, of_flags)):
            for one in compress(told, bits):
                if isinstance(one, Period):
                    months.setdefault(user, set()).add(one)
                else:
                    flags.setdefault(user, []).append(one)
        return months, flags

    def last(self, months: Mapping[_User, set[Period]]) -> dict[_User, tuple[date, Grain]]:
        """When each user was seen for the last time, in one more round trip.

        Days are looked at in the last past month that tells of one, and in the present month, which
        bitmapist's unmarks may have cleared while days of it are left.
        """
        present = Period.containing("month", self._today.start)
        in_present = _days(present, self._today)
        past = {user: max(told - {present}, default=present) for user, told in months.items()}
        in_past = {month: _days(month, self._today) for month in {*past.values()} - {present}}
        keys = (
            _keys(event, days, user, offset)
            for event, users in self._events.items()
            for user, offset in users.items()
            for days in (in_present, in_past.get(past.get(user, present)))
            if days is not None
        )
        found = {user: _first_of(month) for user, month in past.items() if month != present}
        if self._lets_days_go:
            found |= {user: _first_of(present) for user, told in months.items() if present in told}
        for (user, each), bits in bits_of(self._redis, keys):
            for day in compress(each, bits):
                if day.start.date() >= found.get(user, _BEFORE)[0]:
                    found[user] = day.start.date(), "day"
        return found


def _first_of(month: Period) -> tuple[date, Grain]:
    """What stands for a month that none of its days is left to tell of."""
    return month.start.date(), "month"


def _months(first_day: date, asked: Scope) -> Periods:
    """The months from that of `first_day` until now."""
    first = Period.containing("month", datetime.combine(first_day, time()))
    return Periods([*first.until(Period.containing("month", asked.current.start))])


def _days(month: Period, today: Period) -> Periods:
    """The days of `month` until `today`."""
    last = min(Period.containing("day", month.end).shift(-1), today)
    return Periods([*Period.containing("day", month.start).until(last)])


def _keys(event: str, periods: Periods, user: _User, offset: int) -> _Keys:
    """The bit of `user` in all of `periods`."""
    return Keys((user, periods.each), offset, f"{KEY_PREFIX}{event}", periods.suffixes)
