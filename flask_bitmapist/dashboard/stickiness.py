"""How often users come: on exactly how many of the last periods they were active."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import ClassVar, Literal, Self

from ..analytics._stickiness import Stickiness, stickiness, stickiness_people
from ..periods import Grain
from ..reading.segments import Event
from .drawing import BarPlot, bar_plot, full_label
from .page import ACTIVE, Behind, Question, last_period
from .query import Query, Segment


@dataclass(frozen=True, slots=True)
class StickinessQuestion(Question):
    """How many users did `event` in exactly k periods of a window."""

    template: ClassVar[str] = "stickiness"
    endpoint: ClassVar[str] = "stickiness"
    BY: ClassVar[tuple[Grain, ...]] = ("day", "week", "month")
    #: The windows, and what the page calls them.
    WITHIN: ClassVar[dict[str, str]] = {
        "7": "the last 7",
        "12": "the last 12",
        "28": "the last 28",
        "week": "the calendar week's",
        "month": "the calendar month's",
    }

    event: str
    by: Grain
    within: str
    end: date | None
    where: Segment

    @classmethod
    def read(cls, query: Query) -> Self:
        return cls(
            event=query.event("event", ACTIVE),
            by=query.choice("by", cls.BY, "day"),
            within=query.choice("within", [*cls.WITHIN], "28"),
            end=query.day("end"),
            where=query.segment(),
        )

    @property
    def window(self) -> int | Literal["week", "month"]:
        """The window as the report takes it."""
        match self.within:
            case "week" | "month":
                return self.within
            case _:
                return int(self.within)

    @property
    def window_text(self) -> str:
        """The window in words: the last 28 days, the 28 days up to 1 Mar 2026."""
        if self.within in ("week", "month") or self.end is None:
            return f"{self.WITHIN[self.within]} {self.by}s"
        last = full_label(last_period(self.by, self.end).start, self.by)
        return f"the {self.within} {self.by}s up to {last}"

    def report(self) -> Stickiness:
        return stickiness(
            Event(self.event),
            self.by,
            self.window,
            self.end,
            self.where.expression,
        )

    def behind(self, query: Query) -> Behind:
        k = query.number("k", 1, 1, 31) if query.text("k") else None
        times = "in any of" if k is None else f"in exactly {k} of"
        people = partial(
            stickiness_people,
            Event(self.event),
            k,
            self.by,
            self.window,
            self.end,
            self.where.expression,
        )
        return Behind(f"did {self.event} {times} {self.window_text}", people)

    def bars(self, report: Stickiness) -> BarPlot[tuple[int, int]]:
        """A bar for each number of periods."""
        counts = [*report.counts.items()]
        return bar_plot(counts, [[("new", users)] for _, users in counts])
