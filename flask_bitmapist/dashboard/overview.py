"""Who was here: active users, their trend and lifecycle, and every event's figures.

The page comes in two parts. The first has what the server counts at once. The second adds the
year's users and 30 days of each event shown: htmx requests it, and a browser without JavaScript is
redirected to it.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from ..analytics._overview import busiest_of_year
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
        return download(report, problem, query.form)
    if not any(query.catalogue):
        return empty()
    events, flags = (
        [name for name in names if table.find.lower() in name.lower()] for names in query.catalogue
    )
    shown, problem = in_time(partial(_page, table, events, visit.now))
    if shown is None:
        shown = _page(replace(table, complete=""), events, visit.now)
    activity = None
    if table.event and table.complete == "1":
        activity, no_activity = _activity(visit, table)
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
    values = {
        "event": table.event,
        "by": "week",
        "rows": _LIFECYCLE_WEEKS,
        "end": None,
        "where": table.where,
    }
    page = LifecyclePage(visit, values)
    return attempt(page, partial(Activity.of, page))


def _active(visit: Visit, table: Table) -> tuple[Report | None, str]:
    if not table.event:
        raise BadRequest("No event that shows who is active has been recorded yet.")
    activity, problem = _activity(visit, table)
    return activity and activity.report, problem


def _page(table: Table, events: Sequence[str], now: datetime) -> Sequence[EventActivity]:
    """The `events` that the table shows; with their years and days, if it is complete."""
    counted = partial(overview, flags=(), now=now)
    page = slice(_PAGE * (table.page - 1), _PAGE * table.page)
    complete = table.complete != ""
    if table.sort == "event":
        return counted(events=events[page], complete=complete).events
    if complete and table.sort == "year":
        return busiest_of_year(events, page, now=now)
    # Until the years are counted, the month is the closest known figure.
    by = "month" if table.sort == "year" else table.sort
    known = counted(events=events, complete=False).events
    shown = sorted(known, key=lambda one: -getattr(one, by))[page]
    if complete:
        return counted(events=[one.event for one in shown]).events
    return shown
