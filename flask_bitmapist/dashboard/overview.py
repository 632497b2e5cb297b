"""Who was here: active users, their trend and lifecycle, and every event's figures.

The page comes in two parts. The first has what the server counts at once. The second adds the
year's users and 30 days of each event shown: htmx requests it, and a browser without JavaScript is
redirected to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from functools import partial
from typing import Any, ClassVar, NamedTuple

from flask import Response, request, url_for
from werkzeug.exceptions import BadRequest

from ..analytics import (
    ActivePoint,
    ActiveUsers,
    EventActivity,
    Lifecycle,
    Report,
    active_users,
    overview,
)
from ..analytics._overview import begin_busiest_of_year, begin_overview
from ..periods import Grain, Period
from ..reading.segments import Event
from .answers import download, empty
from .drawing import LinePlot, full_label, line_plot
from .lifecycle import LifecyclePage
from .page import ACTIVE, Visit, attempt, in_time
from .query import FIRST_YEAR, TypedSegment
from .range_form import up_to
from .rendering import render

_PAGE = 50
_TREND_DAYS = 90
_LIFECYCLE_WEEKS = 12
#: The status that ends htmx's polling (https://htmx.org/docs/#polling).
_STOP_POLLING = 286
#: The page's tables, each of which can be downloaded as JSON or CSV.
TABLES = ("events", "days")
#: How the events table can be sorted: by name, or by a column of figures from the largest down.
SORTS = ("event", "today", "week", "month", "year")


@dataclass(frozen=True, slots=True)
class Table:
    """Which part of the events table is shown.

    :ivar event: the event that counts as active.
    :ivar find: a part of the names of the events to list.
    :ivar end: the day as of which all is told, which is over; None: today.
    :ivar complete: ``1`` asks for the second part of the page, ``events`` only for its table.
    """

    endpoint: ClassVar[str] = "index"

    event: str
    where: TypedSegment
    find: str
    sort: str
    page: int
    end: date | None
    complete: str

    @classmethod
    def read(cls, visit: Visit) -> Table:
        query = visit.query
        return cls(
            event=query.event("event", *ACTIVE) if query.catalogue.events else "",
            where=query.segment(),
            find=query.text("find"),
            sort=query.choice("sort", SORTS, "event"),
            page=query.number("page", 1, 1, 10_000),
            end=_past(query.day("end"), visit.now),
            complete=query.choice("complete", ("", "1", "events"), ""),
        )

    @property
    def ranks(self) -> slice:
        """Which of the events are on its page."""
        return slice(_PAGE * (self.page - 1), _PAGE * self.page)

    @property
    def arguments(self) -> dict[str, Any]:
        """The query string of this table."""
        return self.link()

    def link(self, **changed: Any) -> dict[str, Any]:
        """The query string of this table with some values `changed`."""
        usual = {"where": "", "find": "", "sort": "event", "end": None, "page": 1}
        told = {
            "event": self.event,
            "where": self.where.text,
            "find": self.find,
            "sort": self.sort,
            "end": self.end,
            "page": 1,
            **changed,
        }
        return {name: value for name, value in told.items() if value != usual.get(name)}


def _past(day: date | None, now: datetime) -> date | None:
    """The `day`, unless it is today."""
    return None if day == now.date() else day


class ShownDay(NamedTuple):
    """The day as of which the overview tells.

    :ivar end: that day, if it is over; None: it is today.
    """

    now: datetime
    end: date | None

    @property
    def day(self) -> date:
        return self.end or self.now.date()

    @property
    def is_over(self) -> bool:
        return self.end is not None

    @property
    def moment(self) -> datetime:
        """Its last second, or now."""
        return datetime.combine(self.end, time(23, 59, 59)) if self.end else self.now

    @property
    def name(self) -> str:
        return full_label(self.day, "day")

    def called(self, by: Grain) -> str:
        """The name of the period that contains it, as a heading."""
        start = Period.containing(by, self.moment).start
        if start == Period.containing(by, self.now).start:
            return "Today" if by == "day" else f"This {by}"
        name = full_label(start, by)
        return name[0].upper() + name[1:]

    @property
    def before(self) -> date | None:
        """The day before; None if no report ends there."""
        found = self.day - timedelta(days=1)
        return found if found.year >= FIRST_YEAR else None

    @property
    def after(self) -> date | None:
        """The day after, if that is over as well."""
        found = self.day + timedelta(days=1)
        return found if found < self.now.date() else None

    @property
    def since_whole(self) -> int:
        """How many days before it the last day that is over is."""
        return 0 if self.is_over else 1

    def range_of(self, days: int) -> dict[str, Any]:
        """The query string of so many days up to it."""
        if self.end is None:
            return {"over": f"last {days} days"}
        return {"start": self.end - timedelta(days=days - 1), "end": self.end}


class Activity(NamedTuple):
    """The second part of the page: who was active."""

    report: ActiveUsers
    lifecycle: Lifecycle
    #: The text form of the segment of the active users.
    segment: str
    #: The lifecycle page that would show the same bars.
    page: LifecyclePage

    @classmethod
    def of(cls, page: LifecyclePage, day: date) -> Activity:
        """As of `day`.

        :raises ValueError: if the segment cannot be combined with the event."""
        event, where, now = Event(page["event"]), page["where"].expression, page.visit.now
        first = day - timedelta(days=_TREND_DAYS - 1)
        active = active_users(event, first, day, where, now=now)
        return cls(active, page.report(), page.active, page)

    def before(self, days: int) -> ActivePoint:
        """The point `days` days before the last one."""
        return self.report.points[-1 - days]

    @property
    def line(self) -> LinePlot[ActivePoint]:
        points = self.report.points
        running = not points[-1].complete
        return line_plot(points, [point.day for point in points], running=running)


def view() -> Response:
    """The overview; or every event's figures, or those of the active users, as JSON or CSV."""
    visit = Visit.of_request()
    if visit.asks_nothing:
        return empty()
    query = visit.query
    table = Table.read(visit)
    shown_day = ShownDay(visit.now, table.end)
    told = query.choice("table", TABLES, "events")
    query.close()
    if table.where.error is not None:
        # The second part is not needed.
        table = replace(table, complete="1")
    if query.form != "html":
        report, problem = (
            in_time(partial(overview, now=shown_day.moment))
            if told == "events"
            else _active(visit, table)
        )
        return download(report, problem, query.form, "day" if told == "days" else None)
    if not any(query.catalogue):
        return empty()
    events, flags = (
        [name for name in names if table.find.lower() in name.lower()] for names in query.catalogue
    )
    activity, no_activity = None, ""
    with ExitStack() as begun:
        rows, problem = in_time(partial(_page, table, events, shown_day.moment, begun))
        # While the server counts what the table shows.
        if table.event and table.complete == "1":
            activity, no_activity = _activity(visit, table)
        shown = None
        if rows is not None:
            shown, problem = in_time(rows)
    if shown is None:
        shown = _incomplete(table, events, shown_day.moment)
    problem = no_activity or problem
    text = render(
        "overview",
        as_of=visit.now,
        up_to=shown_day.name if shown_day.is_over else "",
        table=table,
        shown_day=shown_day,
        query=query,
        activity=activity,
        problem=problem,
        shown=shown,
        found=len(events),
        pages=-(-len(events) // _PAGE),
        flags=overview(events=(), flags=flags[:_PAGE], complete=False, now=visit.now).flags,
        more_flags=len(flags[_PAGE:]),
    )
    status = 400 if problem else 200
    if request.headers.get("HX-Trigger") == "live" and not query.is_new:
        status = _STOP_POLLING
    answer = Response(text, status, mimetype="text/html")
    if table.complete == "events":
        # The browser's address bar keeps the URL of the whole page.
        change = "Replace" if request.headers.get("HX-Trigger") == "find" else "Push"
        address = url_for("bitmapist.index", **table.link(page=table.page))
        answer.headers[f"HX-{change}-Url"] = address
    return answer


def _activity(visit: Visit, table: Table) -> tuple[Activity | None, str]:
    values: dict[str, Any] = {
        "event": table.event,
        "by": "week",
        "over": f"last {_LIFECYCLE_WEEKS} weeks",
        "start": None,
        "end": None,
        "rows": None,
        "where": table.where,
        "previous": False,
        "breakdown": [],
    }
    if table.end is not None:
        start = up_to(_LIFECYCLE_WEEKS, visit.period("week", table.end))
        values |= {"over": None, "start": start, "end": table.end}
    page = LifecyclePage(visit, values)
    return attempt(page, partial(Activity.of, page, table.end or visit.now.date()))


def _active(visit: Visit, table: Table) -> tuple[Report | None, str]:
    if not table.event:
        raise BadRequest("No event that shows who is active has been recorded yet.")
    activity, problem = _activity(visit, table)
    return activity and activity.report, problem


def _page(
    table: Table, events: Sequence[str], now: datetime, begun: ExitStack
) -> Callable[[], Sequence[EventActivity]]:
    """What tells the `events` that the table shows; with their years and days, if it is complete.

    :param begun: closes what the server has begun to count.
    """
    if not table.complete:
        return partial(_incomplete, table, events, now)
    if table.sort == "year":
        figures = begin_busiest_of_year(events, table.ranks, now)
    else:
        names = events[table.ranks]
        if table.sort != "event":
            names = [one.event for one in _incomplete(table, events, now)]
        figures = begin_overview(names, now)
    return begun.enter_context(closing(figures)).events


def _incomplete(table: Table, events: Sequence[str], now: datetime) -> Sequence[EventActivity]:
    """The `events` that the table shows, with what the server counts at once."""
    counted = partial(overview, flags=(), complete=False, now=now)
    if table.sort == "event":
        return counted(events=events[table.ranks]).events
    # Until the years are counted, the month is the closest known figure.
    by = "month" if table.sort == "year" else table.sort
    known = counted(events=events).events
    return sorted(known, key=lambda one: -getattr(one, by))[table.ranks]
