"""0.1.2's functions: get_event_data, get_cohort, chain_events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING, Any

from .analytics._report import Users, check_length
from .analytics._retention import Cohorts, Returns, count_returns
from .current import current_tracker
from .events import BitOpAnd, BitOpOr, DayEvents, MonthEvents, WeekEvents, YearEvents
from .periods import Grain, Period
from .reading.segments import Event, Expression
from .systems import reader_of

if TYPE_CHECKING:
    from .events import Events, GenericPeriodEvents

#: Events, standing for their union. A chain is the intersection of several groups.
Group = list[str]

_GRAINS: dict[str, Grain] = {"days": "day", "weeks": "week", "months": "month", "years": "year"}
_COLLECTIONS: dict[Grain, type[GenericPeriodEvents]] = {
    "day": DayEvents,
    "week": WeekEvents,
    "month": MonthEvents,
    "year": YearEvents,
}


def get_cohort(
    primary_event_name: str,
    secondary_event_name: str,
    additional_events: Sequence[Mapping[str, str]] | None = None,
    time_group: str = "days",
    num_rows: int = 10,
    num_cols: int = 10,
    system: str | None = "default",
    with_replacement: bool = False,
) -> tuple[list[list[int | None]], list[datetime], list[int]]:
    """How many of those who did the primary event did the secondary one k periods later.

    Unlike that of 0.1.2 it only reads, so several tables can be computed at the same time.

    :param primary_event_name: the event whose users in a period are the cohort of a row.
    :param secondary_event_name: the event that counts as their return.
    :param additional_events: what they must also have done in the period of return, as in
        `chain_events`.
    :param time_group: ``days``, ``weeks``, ``months`` or ``years``; the singular will do.
    :param num_rows: 1 to 1000; the last row is the current period.
    :param num_cols: 1 to 1000; the columns are k = 0, 1, ...
    :param system: another server, as for `mark_event`.
    :param with_replacement: count a user at every return, not only at the first.
    :returns: three lists with one entry for each row: the cohort, itself a list of how many users
        returned, with None for the future, and nothing but None if nobody did the primary event;
        the dates, naive local datetimes; the totals, how many users did the primary event.
    :raises ValueError: if an argument has a value that is not allowed.
    """
    check_length("rows", num_rows)
    check_length("columns", num_cols)
    tracker = current_tracker()
    now = tracker.now()
    last = tracker.settings.period(_grain(time_group), now)
    periods = list(last.shift(1 - num_rows).until(last))
    counted = count_returns(
        reader_of(system).redis,
        Returns(
            cohorts=Cohorts(Users(Event(primary_event_name)), None, periods),
            returned=_chained(_groups(secondary_event_name, additional_events)),
            followed=periods,
            columns=num_cols,
            mode="on" if with_replacement else "first_return",
        ),
    )
    cohort = [
        [users if size and i + k < num_rows else None for k, users in enumerate(row)]
        for i, (size, *row) in enumerate(counted)
    ]
    return cohort, [_date(period, now) for period in periods], [row[0] for row in counted]


def get_event_data(
    event_name: str,
    time_group: str = "days",
    now: datetime | date | None = None,
    system: Any = "default",
) -> GenericPeriodEvents:
    """Those who did one event in one period.

    :param event_name: the event.
    :param time_group: ``days``, ``weeks``, ``months`` or ``years``; the singular will do. A week is
        found under its ISO year, where bitmapist stores it.
    :param now: any moment in the period. Aware ones are converted to BITMAPIST_TIMEZONE, naive
        ones are in it.
    :param system: another server, as for `mark_event`.
    :returns: ``DayEvents``, ``WeekEvents``, ``MonthEvents`` or ``YearEvents``.
    :raises ValueError: for any other time group.
    """
    return _COLLECTIONS[_grain(time_group)].from_date(event_name, now, system or "default")


def chain_events(
    base_event_name: str,
    events_to_chain: Sequence[Mapping[str, str]] | None,
    now: datetime | date | None,
    time_group: str,
    system: Any = "default",
) -> Events:
    """A base event combined with further events of the same period.

    An ``or`` joins an event to the one just before it: A and B or C and D is A and (B or C) and D.

    :param base_event_name: the first event.
    :param events_to_chain: ``[{"name": "user:logged_in", "op": "and"}, ...]``; it is not changed.
    :param now: as in `get_event_data`.
    :param time_group: as in `get_event_data`.
    :param system: another server, as for `mark_event`.
    :returns: a set to count, list and combine further, which is false if it is empty. It is read
        each time you ask it something.
    :raises ValueError: if the time group is unknown, or an event to chain has no name, or its op
        is neither ``and`` nor ``or``.
    """

    def joined(group: Group) -> Events:
        events = [get_event_data(name, time_group, now, system) for name in group]
        return events[0] if len(events) == 1 else BitOpOr(*events)

    parts = [joined(group) for group in _groups(base_event_name, events_to_chain)]
    return parts[0] if len(parts) == 1 else BitOpAnd(*parts)


def _grain(time_group: str) -> Grain:
    for plural, grain in _GRAINS.items():
        if time_group in (plural, grain):
            return grain
    raise ValueError(f"unknown time group {time_group!r}: use one of {', '.join(_GRAINS)}")


def _groups(base: str, events_to_chain: Sequence[Mapping[str, str]] | None) -> list[Group]:
    groups = [[base]]
    for event in events_to_chain or ():
        name, op = event.get("name"), event.get("op")
        if not name:
            raise ValueError(f"an event to chain needs a name: {dict(event)!r}")
        if op == "or":
            groups[-1].append(name)
        elif op == "and":
            groups.append([name])
        else:
            raise ValueError(f"unknown op {op!r} of the event {name!r}: use 'and' or 'or'")
    return groups


def _chained(groups: list[Group]) -> Expression:
    unions = (reduce(or_, map(Event, group)) for group in groups)
    return reduce(and_, unions)


def _date(period: Period, now: datetime) -> datetime:
    """0.1.2's date of a row: as far into its period as now is; for months, their first day."""
    if period.grain == "month":
        return datetime.combine(period.start, now.time())
    if period.grain == "year":
        try:
            return now.replace(year=period.start.year)
        except ValueError:  # the 29th of February
            return now.replace(year=period.start.year, day=28)
    return period.start + (now - Period.containing(period.grain, now).start)
