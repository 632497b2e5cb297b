"""How many do what: several events or segments on one axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any, ClassVar, NamedTuple

from markupsafe import Markup, escape
from werkzeug.exceptions import BadRequest

from ..analytics import Trends, TrendsPoint
from ..periods import GRAINS
from ..questions import TrendsFigure, TrendsQuestion
from ..reading.segments import Event
from . import page
from .addresses import url_for
from .breakdown import BrokenDownPage
from .drawing import (
    MOST_CURVES,
    CurvePlot,
    curve_plot,
    full_label,
    label,
    percent,
    periods,
    thousands,
    when,
)
from .page import ACTIVE, Behind, Visit
from .query import FIRST_REPORTED_YEAR, Query
from .target_page import TargetPage


class Curve(NamedTuple):
    """One event, of everybody or of the people of one value of a breakdown."""

    title: str
    #: The event's number, from 1.
    number: int
    #: The value's name; None: everybody.
    value: str | None
    points: list[TrendsPoint]
    #: Those of the whole range, each counted once.
    total: TrendsPoint
    #: The class of its line; empty if it is not drawn.
    kind: str
    #: The address of the people behind its points, to which the moment is still to be added.
    people: str


class Row(NamedTuple):
    """A period's row of the table."""

    start: date
    title: str
    complete: bool
    #: A cell for each figure of each line.
    cells: Markup


class TrendsPage(BrokenDownPage, TargetPage):
    """How many did each of `events` in each period."""

    endpoint = "trends"
    template = "trends"
    asks = TrendsQuestion
    usual_number = 28
    most: ClassVar[Mapping[str, int]] = {"rows": 750, "rolling": 90}
    offered: ClassVar[Mapping[str, Sequence[str]]] = {"by": GRAINS}
    MOST_EVENTS: ClassVar[int] = MOST_CURVES
    #: How many periods a point may count, as the form offers it.
    ROLLING: ClassVar[tuple[int, ...]] = (1, 7, 28)

    @classmethod
    def usual(cls, query: Query) -> Mapping[str, Any]:
        events = query.catalogue.events
        usual = next((event for event in (*ACTIVE, *events) if event in events), None)
        return {"events": [str(Event(usual))] if usual is not None else []}

    def __init__(self, visit: Visit, values: Mapping[str, Any]) -> None:
        super().__init__(visit, values)
        if not self["events"]:
            raise BadRequest("This page needs an event, and none has been recorded yet.")
        if len(self["events"]) > self.MOST_EVENTS:
            raise BadRequest(f"At most {self.MOST_EVENTS} events can be shown.")

    def behind(self, query: Query) -> Behind:
        number = query.number("number", 1, 1, len(self["events"]))
        by, rolling = self["by"], self["rolling"]
        did = f"match {self['events'][number - 1].text}"
        if query.choice("whole", ("", "yes"), ""):
            return Behind(f"{did} {self.span}", TrendsFigure.of(number=number - 1, whole=True))
        at = self.visit.period(by, query.moment("at", FIRST_REPORTED_YEAR)).start
        during = (
            when(at, by)
            if rolling == 1
            else f"in the {periods(rolling, by)} up to {full_label(at, by)}"
        )
        figure = TrendsFigure.of(number=number - 1, at=at)
        return Behind(f"{did} {during}", figure)

    def size(self, report: Trends) -> int:
        return sum(point.users for series in report.series for point in series.points)

    @property
    def number_of_periods(self) -> int:
        return int(super().number_of_periods + self["rolling"] - 1)

    @property
    def rollings(self) -> list[tuple[int, str]]:
        """How many periods a point may count, in words."""
        numbers = sorted({*self.ROLLING, self["rolling"]})
        return [
            (n, f"each {self['by']} alone" if n == 1 else f"{periods(n, self['by'])} rolling")
            for n in numbers
        ]

    def curves(self, report: Trends) -> list[Curve]:
        """Every line of the report; those of the most people are drawn."""
        parts: list[tuple[str | None, Trends]] = [*report.parts.items()] or [(None, report)]
        found = [
            Curve(
                self._title(one.event, value),
                number,
                value,
                one.points,
                one.total,
                "",
                url_for(
                    "bitmapist.people",
                    of=self.endpoint,
                    **self.arguments,
                    number=number,
                    value=value,
                ),
            )
            for number in range(1, len(report.series) + 1)
            for value, part in parts
            for one in [part.series[number - 1]]
        ]
        people = [sum(point.users for point in curve.points) for curve in found]
        largest = sorted(range(len(found)), key=lambda index: -people[index])[:MOST_CURVES]
        kinds = {index: f"c{number}" for number, index in enumerate(sorted(largest), start=1)}
        return [curve._replace(kind=kinds.get(i, "")) for i, curve in enumerate(found)]

    def _title(self, event: str, value: str | None) -> str:
        if value is None:
            return event
        return value if len(self["events"]) == 1 else f"{event}, {value}"

    def plot(self, curves: Sequence[Curve]) -> CurvePlot[TrendsPoint]:
        """The lines of the largest, each with the dashed one of the periods before."""
        rows: dict[str, list[float | None]] = {}
        for curve in curves:
            if curve.kind:
                rows[curve.kind] = [self.height(point) for point in curve.points]
                if self["previous"]:
                    before = [self.height_before(point) for point in curve.points]
                    rows[f"{curve.kind} before"] = before
        points = curves[0].points
        running = not points[-1].complete
        return curve_plot(points, rows, running=running, rates=self.is_share, reach=self.reach)

    @property
    def is_share(self) -> bool:
        return bool(self["active"])

    @property
    def target_of_chart(self) -> float | None:
        # A chart of a board shows people, also where the page shows their share.
        return None if self.is_share else super().target_of_chart

    def height(self, point: TrendsPoint) -> float | None:
        """How high a line is at a point; None: nobody was active."""
        return point.share if self.is_share else point.users

    def height_before(self, point: TrendsPoint) -> float | None:
        return point.previous_share if self.is_share else point.previous

    def tips(self, curves: Sequence[Curve]) -> list[str]:
        """The figures of all lines at each point."""
        named = ((full_label(one.period_start, self["by"]), one) for one in curves[0].points)
        told = [f"{name}{'' if one.complete else ', so far'}" for name, one in named]
        lines = [
            [f"{curve.title}: {self.figure(point)}" for point in curve.points]
            for curve in curves
            if curve.kind
        ]
        return ["\n".join(tip) for tip in zip(told, *lines, strict=True)]

    def figure(self, point: TrendsPoint) -> str:
        """What a line shows at a point, and what it was before."""
        now = self._written(point.users, point.share)
        if point.previous is None:
            return now
        return f"{now}, before: {self._written(point.previous, point.previous_share)}"

    def _written(self, users: int, share: float | None) -> str:
        if not self.is_share:
            return thousands(users)
        return "nobody was active" if share is None else f"{percent(share)} %"

    def rows(self, curves: Sequence[Curve]) -> list[Row]:
        """Those of the table, in time order."""
        by, year = self["by"], self.visit.now.year
        starts = [point.period_start for point in curves[0].points]
        titles = [full_label(at, by) if by == "hour" else label(at, by, year) for at in starts]
        complete = [point.complete for point in curves[0].points]
        return [*map(Row, starts, titles, complete, self._cells(curves))]

    def _cells(self, curves: Sequence[Curve]) -> list[Markup]:
        """The cells of each row of the table.

        There are thousands, and a template takes ten times as long to make them.
        """
        rows: list[list[str]] = [[] for _ in curves[0].points]
        moments = [point.period_start for point in curves[0].points]
        begins = [moment.isoformat() for moment in moments]
        beside = [self.beside(moment) if self["previous"] else None for moment in moments]
        is_share = self.is_share
        for curve in curves:
            link = f'<a href="{escape(curve.people)}&amp;at='
            for row, point, at, then in zip(rows, curve.points, begins, beside, strict=True):
                row.append(f'<td>{link}{at}">{thousands(point.users)}</a></td>')
                if is_share:
                    row.append(f"<td>{_percent(point.share)}</td>")
                if point.previous is not None:
                    before = thousands(point.previous)
                    if then is not None:
                        before = f'{link}{then.isoformat()}">{before}</a>'
                    row.append(f'<td class="quiet">{before}</td>')
                    if is_share:
                        row.append(f'<td class="quiet">{_percent(point.previous_share)}</td>')
        return [Markup("\n".join(row)) for row in rows]

    def beside(self, at: date) -> date | None:
        """The period beside that of `at`; None if it is too long ago to be listed."""
        start = self.visit.period(self["by"], at).shift(-self.number).start
        if start.year < FIRST_REPORTED_YEAR:
            return None
        return start if self["by"] == "hour" else start.date()


def _percent(share: float | None) -> str:
    return "" if share is None else percent(share)


view = partial(page.view, TrendsPage)
