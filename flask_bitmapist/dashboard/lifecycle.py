"""Where the users of each period come from, and how many went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import ClassVar, Literal, Self

from ..analytics._lifecycle import (
    Lifecycle,
    LifecyclePoint,
    lifecycle,
    lifecycle_people,
)
from ..analytics._people import people
from ..periods import Grain
from ..questions.lifecycle import Group
from ..reading.segments import Event
from .drawing import BarPlot, bar_plot, when
from .page import ACTIVE, Behind, Question, first_period, last_period
from .query import FIRST_REPORTED_YEAR, LONGEST_SEGMENT, Query, Segment


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
            event=query.event("event", ACTIVE),
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
        at = last_period(self.by, query.day("at", FIRST_REPORTED_YEAR)).start
        did, event, where = f"did {self.event}", Event(self.event), self.where.expression
        groups: list[Group | Literal["active"]] = [*self.GROUPS, "active"]
        group = query.choice("group", groups, "new")
        if group == "active":
            active = partial(people, event, self.by, at, where=where)
            return Behind(f"{did} {when(at, self.by)}", active)
        found = partial(lifecycle_people, event, group, self.by, at, where)
        title = {
            "new": f"{did} for the first time ever",
            "returning": f"{did}, as in the {self.by} before,",
            "resurrected": f"{did}, not in the {self.by} before but earlier,",
            "dormant": f"{did} in the {self.by} before but not",
        }[group]
        return Behind(f"{title} {when(at, self.by)}", found)

    @property
    def active(self) -> str:
        """The text form of the segment of those who are active.

        :raises ValueError: if with the event the segment is too long to be one.
        """
        event, where = Event(self.event), self.where.expression
        text = str(event if where is None else event & where)
        if len(text) > LONGEST_SEGMENT or Segment.read(text).error is not None:
            raise ValueError("The segment is too long to be joined with the event.")
        return text

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
