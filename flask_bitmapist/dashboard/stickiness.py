"""How often users come: in exactly how many of the last periods they were active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from ..analytics import Stickiness
from ..questions import StickinessFigure, StickinessQuestion
from . import page
from .breakdown import BrokenDownPage, Part
from .drawing import BarPlot, CurvePlot, bar_plot, curve_plot, full_label, percent
from .page import ACTIVE, Behind
from .query import Query


class StickinessPage(BrokenDownPage):
    """How many users did `event` in exactly k periods of a window."""

    endpoint = "stickiness"
    template = "stickiness"
    asks = StickinessQuestion
    #: The windows, with the page's names for them.
    WITHIN: ClassVar[dict[str, str]] = {
        "7": "the last 7",
        "12": "the last 12",
        "28": "the last 28",
        "week": "the calendar week's",
        "month": "the calendar month's",
    }
    offered: ClassVar[Mapping[str, Sequence[str]]] = {
        "by": ("day", "week", "month"),
        "within": tuple(WITHIN),
    }

    @classmethod
    def usual(cls, query: Query) -> Mapping[str, Any]:
        return {"event": ACTIVE}

    @property
    def window_text(self) -> str:
        """The window in words: the last 28 days, the 28 days up to 1 Mar 2026."""
        within, by, end = self["within"], self["by"], self["end"]
        if within in ("week", "month"):
            calendar = full_label(self.visit.period(within, end).start, within)
            return f"the {by}s of {'the ' * (within == 'week')}{calendar}"
        if end is None:
            return f"{self.WITHIN[within]} {by}s"
        last = full_label(self.visit.period(by, end).start, by)
        return f"the {within} {by}s up to {last}"

    def behind(self, query: Query) -> Behind:
        k = query.number("k", 1, 1, 31) if query.text("k") else None
        times = "in any of" if k is None else f"in exactly {k} of"
        title = f"did {self['event']} {times} {self.window_text}"
        return Behind(title, StickinessFigure.of(k=k))

    def size(self, report: Stickiness) -> int:
        return report.users

    def curves(self, parts: Sequence[Part]) -> CurvePlot[int]:
        """The shares of the whole and the largest parts; those of nobody have none."""
        shares = {part.kind: [*part.report.shares.values()] for part in parts if part.kind}
        drawn = {kind: row for kind, row in shares.items() if None not in row}
        return curve_plot([*parts[0].report.counts], drawn, rates=True)

    def told(self, parts: Sequence[Part], k: int) -> str:
        """The shares of all curves for `k` periods."""
        lines = [f"{k} of {len(parts[0].report.counts)} {self['by']}s"]
        for part in parts:
            if part.kind and part.report.users:
                lines.append(f"{part.title}: {percent(part.report.shares[k])} %")
        return "\n".join(lines)

    def bars(self, report: Stickiness) -> BarPlot[tuple[int, int]]:
        """One bar for each number of periods."""
        counts = [*report.counts.items()]
        return bar_plot(counts, [[("new", users)] for _, users in counts])


view = partial(page.view, StickinessPage)
