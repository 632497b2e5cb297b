"""Where the users of each period come from, and how many left."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

from ..analytics import Lifecycle, LifecyclePoint
from ..questions import LifecycleFigure, LifecycleQuestion, TrendFigure, TrendQuestion
from ..questions.lifecycle import Group
from ..reading.segments import Event
from . import page
from .breakdown import BrokenDownPage
from .drawing import BarPlot, bar_plot, when
from .page import ACTIVE, Behind
from .query import FIRST_REPORTED_YEAR, LONGEST_SEGMENT, Query, TypedSegment
from .ranged_page import RangedPage


class LifecyclePage(BrokenDownPage, RangedPage):
    """Who is new, returning, resurrected or dormant in `event`, period by period."""

    endpoint = "lifecycle"
    template = "lifecycle"
    asks = LifecycleQuestion
    usual_number = 26
    most: ClassVar[Mapping[str, int]] = {"rows": 190}
    #: The groups in the order of the bar's pieces, with the page's names for them.
    GROUPS: ClassVar[dict[Group, str]] = {
        "returning": "returning",
        "resurrected": "resurrected",
        "new": "new",
        "dormant": "gone quiet",
    }

    @classmethod
    def usual(cls, query: Query) -> Mapping[str, Any]:
        return {"event": ACTIVE, "by": "week"}

    def behind(self, query: Query) -> Behind:
        event, by, where = self["event"], self["by"], self["where"].expression
        at = self.visit.period(by, query.day("at", FIRST_REPORTED_YEAR)).start
        groups: list[Group | Literal["active"]] = [*self.GROUPS, "active"]
        group = query.choice("group", groups, "new")
        if group == "active":
            active = TrendQuestion.of(event=Event(event), by=by, where=where, now=self.visit.now)
            return Behind(f"did {event} {when(at, by)}", TrendFigure.of(at=at), active)
        title = {
            "new": f"did {event} for the first time ever",
            "returning": f"did {event}, as in the {by} before,",
            "resurrected": f"did {event}, not in the {by} before but earlier,",
            "dormant": f"did {event} in the {by} before but not",
        }[group]
        figure = LifecycleFigure.of(group=group, at=at)
        return Behind(f"{title} {when(at, by)}", figure)

    @property
    def active(self) -> str:
        """The text form of the segment of the active users.

        :raises ValueError: if the segment, joined with the event, is too long.
        """
        event, where = Event(self["event"]), self["where"].expression
        text = str(event if where is None else event & where)
        if len(text) > LONGEST_SEGMENT or TypedSegment.read(text).error is not None:
            raise ValueError("The segment is too long to combine with the event.")
        return text

    def size(self, report: Lifecycle) -> int:
        return sum(point.active for point in report.points)

    def last_complete(self, report: Lifecycle) -> int:
        """The index of the last point whose period is over; else of the last one."""
        over = [number for number, point in enumerate(report.points) if point.complete]
        return over[-1] if over else len(report.points) - 1

    def bars(self, report: Lifecycle) -> BarPlot[LifecyclePoint]:
        """Returning, resurrected and new users above the axis, dormant ones below."""
        return bar_plot(
            report.points,
            [
                [("returning", p.returning), ("resurrected", p.resurrected), ("new", p.new)]
                for p in report.points
            ],
            [[("dormant", p.dormant)] for p in report.points],
        )


view = partial(page.view, LifecyclePage)
