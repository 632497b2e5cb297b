"""Who came back: the heat table of cohorts, and its curve."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import takewhile
from typing import ClassVar, Self, get_args

from ..analytics._retention import (
    Average,
    Retention,
    retention,
    retention_people,
)
from ..periods import Grain
from ..questions.retention import Members, Mode
from ..reading.segments import Event
from .drawing import LinePlot, line_plot, periods, when
from .page import ACTIVE, Behind, Question, first_period, last_period
from .query import FIRST_REPORTED_YEAR, Query, Segment


@dataclass(frozen=True, slots=True)
class RetentionQuestion(Question):
    """Of those who did `cohort` in a period, how many did `returned` k periods later."""

    template: ClassVar[str] = "retention"
    endpoint: ClassVar[str] = "cohort"
    #: The most rows, and the most columns, that still make a page.
    LONGEST: ClassVar[int] = 60
    #: How the page speaks of the modes.
    MODES: ClassVar[dict[Mode, str]] = {
        "on": "in just that period",
        "on_or_after": "in that period or later",
        "on_or_before": "in that period or before",
        "streak": "in every period until then",
        "first_return": "for the first time since",
    }

    cohort: str
    returned: str
    by: Grain
    rows: int
    columns: int
    end: date | None
    mode: Mode
    members: Members
    where: Segment

    @classmethod
    def read(cls, query: Query) -> Self:
        return cls(
            cohort=query.event("cohort", "user:created"),
            returned=query.event("returned", ACTIVE),
            by=query.by("week"),
            rows=query.number("rows", 12, 1, cls.LONGEST),
            columns=query.number("columns", 12, 1, cls.LONGEST),
            end=query.day("end"),
            mode=query.choice("mode", get_args(Mode), "on"),
            members=query.choice("members", get_args(Members), "first"),
            where=query.segment(),
        )

    def report(self) -> Retention:
        return retention(
            Event(self.cohort),
            Event(self.returned),
            self.by,
            periods=self.columns - 1,
            start=first_period(self.by, self.end, self.rows).start,
            end=self.end,
            mode=self.mode,
            members=self.members,
            where=self.where.expression,
        )

    def behind(self, query: Query) -> Behind:
        at = last_period(self.by, query.day("at", FIRST_REPORTED_YEAR)).start
        k = query.number("k", 0, 0, self.LONGEST) if query.text("k") else None
        first = " for the first time" if self.members == "first" else ""
        title = f"did {self.cohort}{first} {when(at, self.by)}"
        if k is not None:
            title += f" and {self.returned} {periods(k, self.by)} later, {self.when}"
        people = partial(
            retention_people,
            Event(self.cohort),
            Event(self.returned),
            self.by,
            at,
            k,
            mode=self.mode,
            members=self.members,
            where=self.where.expression,
        )
        return Behind(title, people)

    @property
    def when(self) -> str:
        """When those who are counted returned, in words."""
        return self.MODES[self.mode].replace("period", self.by)

    def curve(self, report: Retention) -> LinePlot[tuple[int, Average]]:
        """The averages, as far as there are any."""
        known = [*takewhile(lambda found: found[1].rate is not None, enumerate(report.average))]
        return line_plot(
            known,
            [average.rate or 0.0 for _, average in known],
            band=[(average.low or 0.0, average.high or 0.0) for _, average in known],
        )
