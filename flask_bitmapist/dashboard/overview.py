"""Who was here: active users, their trend and lifecycle, and every event's figures.

The page comes in two parts. The first has what the server counts at once. The second adds the
year's users and 30 days of each event shown: htmx requests it, and a browser without JavaScript is
redirected to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
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
from ..reading.segments import Event
from .answers import download, empty
from .drawing import LinePlot, line_plot
from .lifecycle import LifecyclePage
from .page import ACTIVE, Visit, attempt, in_time
from .query import Query, TypedSegment
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
    :ivar complete: ``1`` asks for the second part of the page, ``events`` only for its table.
    """

    endpoint: ClassVar[str] = "index"

    event: str
    where: TypedSegment
    find: str
    sort: str
    page: int
    complete: str

    @classmethod
    def read(cls, query: Query) -> Table:
        return cls(
            event=query.event("event", *ACTIVE) if query.catalogue.events else "",
            where=query.segment(),
            find=query.text("find"),
            sort=query.choice("sort", SORTS, "event"),
            page=query.number("page", 1, 1, 10_000),
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
        usual = {"where": "", "find": "", "sort": "event", "page": 1}
        told = {
            "event": self.event,
            "where": self.where.text,
            "find": self.find,
            "sort": self.sort,
            "page": 1,
            **changed,
        }
        return {name: value for name, value in told.items() if value != usual.get(name)}


class Activity(NamedTuple):
    """The second part of the page: who was active."""

    report: ActiveUsers
    lifecycle: Lifecycle
    #: The text form of the segment of the active users.
    segment: str
    #: The lifecycle page that would show the same bars.
    page: LifecyclePage

    @classmethod
    def of(cls, page: LifecyclePage) -> Activity:
        """:raises ValueError: if the segment cannot be combined with the event."""
        event, where, now = Event(page["event"]), page["where"].expression, page.visit.now
        first = now.date() - timedelta(days=_TREND_DAYS - 1)
        active = active_users(event, first, where=where, now=now)
        return cls(active, page.report(), page.active, page)

    def before(self, days: int) -> ActivePoint:
        """The point `days` days before today's."""
        return self.report.points[-1 - days]

    @property
    def line(self) -> LinePlot[ActivePoint]:
        points = self.report.points
        return line_plot(points, [point.day for point in points], running=True)


def view() -> Response:
    """The overview; or every event's figures, or those of the active users, as JSON or CSV."""
    visit = Visit.of_request()
    if visit.asks_nothing:
        return empty()
    query = visit.query
    table = Table.read(query)
    told = query.choice("table", TABLES, "events")
    query.close()
    if table.where.error is not None:
        # The second part is not needed.
        table = replace(table, complete="1")
    if query.form != "html":
        report, problem = (
            in_time(partial(overview, now=visit.now)) if told == "events" else _active(visit, table)
        )
        return download(report, problem, query.form, "day" if told == "days" else None)
    if not any(query.catalogue):
        return empty()
    events, flags = (
        [name for name in names if table.find.lower() in name.lower()] for names in query.catalogue
    )
    activity, no_activity = None, ""
    with ExitStack() as begun:
        rows, problem = in_time(partial(_page, table, events, visit.now, begun))
        # While the server counts what the table shows.
        if table.event and table.complete == "1":
            activity, no_activity = _activity(visit, table)
        shown = None
        if rows is not None:
            shown, problem = in_time(rows)
    if shown is None:
        shown = _incomplete(table, events, visit.now)
    problem = no_activity or problem
    text = render(
        "overview",
        as_of=visit.now,
        table=table,
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
        "breakdown": [],
    }
    page = LifecyclePage(visit, values)
    return attempt(page, partial(Activity.of, page))


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
