"""Where the users of each period come from, and how many went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import ClassVar, Self

from ..analytics.lifecycle import (
    Group,
    Lifecycle,
    LifecyclePoint,
    lifecycle,
    lifecycle_people,
)
from ..analytics.segments import Event
from ..periods import Grain
from .drawing import BarPlot, bar_plot, when
from .page import Behind, Question, first_period, last_period
from .query import REPORTED_YEARS, Query, Segment


@dataclass(frozen=True, slots=True)
class LifecycleQuestion(Question):
    """Who is new, returning, resurrected or dormant in `event`, period by period."""

    template: ClassVar[str] = "lifecycle"
    endpoint: ClassVar[str] = "lifecycle"
    LONGEST: ClassVar[int] = 120
    #: The groups in the order of the bars' pieces, and what the page calls them.
    GROUPS: ClassVar[dict[Group, str]] = {
        "returning": "returning",
        "resurrected": "resurrected",
        "new": "new",
        "dormant": "gone quiet",
    }

    event: str
    by: Grain
    rows: int
    end: date | None
    where: Segment

    @classmethod
    def read(cls, query: Query) -> Self:
        return cls(
            event=query.event("event", "user:logged_in"),
            by=query.by("week"),
            rows=query.number("rows", 26, 1, cls.LONGEST),
            end=query.day("end"),
            where=query.segment(),
        )

    def report(self) -> Lifecycle:
        return lifecycle(
            Event(self.event),
            self.by,
            start=first_period(self.by, self.end, self.rows).start,
            end=self.end,
            where=self.where.expression,
        )

    def behind(self, query: Query) -> Behind:
        at = last_period(self.by, query.day("at", REPORTED_YEARS)).start
        group = query.choice("group", [*self.GROUPS], "new")
        people = partial(
            lifecycle_people, Event(self.event), group, self.by, at, self.where.expression
        )
        did = f"did {self.event}"
        title = {
            "new": f"{did} for the first time ever",
            "returning": f"{did}, as in the {self.by} before,",
            "resurrected": f"{did}, not in the {self.by} before but earlier,",
            "dormant": f"{did} in the {self.by} before but not",
        }[group]
        return Behind(f"{title} {when(at, self.by)}", people)

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
