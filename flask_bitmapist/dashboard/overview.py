"""Who was here: active users, their trend and lifecycle, and every event's figures.

The page answers in two parts. The first has what the server counts at once. The other one, with the
year's users and 30 days of each event shown, is asked for by htmx, or by a browser without
JavaScript as the page it is led to.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar, NamedTuple

from flask import Response

from ..analytics.lifecycle import Lifecycle
from ..analytics.overview import EventActivity, overview
from ..analytics.segments import Event
from ..analytics.trend import ActivePoint, ActiveUsers, active_users
from ..marking import current_tracker
from .drawing import LinePlot, line_plot
from .lifecycle import LifecycleQuestion
from .page import attempt, download, empty, open_query, render
from .query import Query, Segment

_PAGE = 50
_TREND_DAYS = 90
_LIFECYCLE_WEEKS = 12
#: How the events table can be sorted: by name, or by a column of figures from the largest down.
SORTS = ("event", "today", "week", "month", "year")


@dataclass(frozen=True, slots=True)
class Table:
    """What of the events table is shown.

    :ivar event: the event that tells who is active.
    :ivar find: a part of the names of the events to list.
    :ivar complete: ``1`` asks for the second part of the page, ``events`` for its table alone.
    """

    endpoint: ClassVar[str] = "index"

    event: str
    where: Segment
    find: str
    sort: str
    page: int
    complete: str

    @classmethod
    def read(cls, query: Query) -> Table:
        return cls(
            event=query.event("event", "user:logged_in") if query.catalogue.events else "",
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
        """The query string of this table with some things changed."""
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
    #: What the lifecycle page would ask for the same bars.
    question: LifecycleQuestion

    @classmethod
    def of(cls, question: LifecycleQuestion) -> Activity:
        """:raises ValueError: if the segment's ids are of another kind than the event's."""
        first = current_tracker().now().date() - timedelta(days=_TREND_DAYS - 1)
        active = active_users(Event(question.event), first, where=question.where.expression)
        return cls(active, question.report(), question)

    def before(self, days: int) -> ActivePoint:
        """The point so many days before today's."""
        return self.report.points[-1 - days]

    @property
    def segment(self) -> str:
        """The text form of the segment of those who are active."""
        where = self.question.where.expression
        active = Event(self.question.event)
        return str(active if where is None else active & where)

    @property
    def line(self) -> LinePlot[ActivePoint]:
        points = self.report.points
        return line_plot(points, [point.day for point in points], running=True)


def view() -> Response:
    """The overview, or as JSON or CSV every event's figures."""
    query = open_query()
    if query is None:
        return empty()
    table = Table.read(query)
    query.close()
    if query.form != "html":
        return download(overview(), "", query.form)
    if not any(query.catalogue):
        return empty()
    matching = [name for name in query.catalogue.events if table.find.lower() in name.lower()]
    report = overview(events=matching, complete=table.sort == "year")
    found = _sorted(report.events, table.sort)
    shown = found[_PAGE * (table.page - 1) : _PAGE * table.page]
    if table.complete and table.sort != "year":  # to sort by the year, all were counted already
        shown = [*overview(events=[one.event for one in shown]).events]
    activity, problem = None, ""
    if table.event and (table.complete == "1" or table.where.error):
        question = LifecycleQuestion(table.event, "week", _LIFECYCLE_WEEKS, None, table.where)
        activity, problem = attempt(question, partial(Activity.of, question))
    text = render(
        "overview",
        table=table,
        query=query,
        activity=activity,
        problem=problem,
        shown=shown,
        flags=report.flags,
        pages=-(-len(found) // _PAGE),
    )
    return Response(text, 400 if problem else 200, mimetype="text/html")


def _sorted(events: tuple[EventActivity, ...], sort: str) -> list[EventActivity]:
    if sort == "event":
        return [*events]
    return sorted(events, key=lambda one: (-getattr(one, sort), one.event))
