"""How often users come: in exactly how many periods of a range they were active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import partial
from typing import Any, ClassVar, Literal

from ..analytics import Stickiness
from ..questions import StickinessFigure, StickinessQuestion
from . import page, range_form
from .breakdown import BrokenDownPage, Part
from .drawing import BarPlot, CurvePlot, bar_plot, curve_plot, percent, periods
from .page import ACTIVE, Behind, Visit
from .query import Query
from .ranged_page import RangedPage


class StickinessPage(BrokenDownPage, RangedPage):
    """How many users did `event` in exactly k periods of a range.

    Addresses of before, with a window (``within``) up to a last day, are read as well.
    """

    endpoint = "stickiness"
    template = "stickiness"
    asks = StickinessQuestion
    usual_number = 28
    offered: ClassVar[Mapping[str, Sequence[str]]] = {
        "by": ("day", "week", "month"),
        "within": ("", "7", "12", "28", "week", "month"),
    }

    def __init__(self, visit: Visit, values: Mapping[str, Any]) -> None:
        super().__init__(visit, {"rows": None, **values})

    @classmethod
    def usual(cls, query: Query) -> Mapping[str, Any]:
        return {"event": ACTIVE, "within": ""}

    def _range_of_before(self) -> Mapping[str, Any]:
        within, end = self["within"], self["end"]
        if not within:
            return super()._range_of_before()
        if self["over"] is not None or self["start"] is not None:
            return {"within": "", "rows": 1}  # which is too much
        return {"within": "", **self._window(within, end)}

    def _window(self, within: str, end: date | None) -> Mapping[str, Any]:
        """The range of a window up to the day `end`, or of the calendar as far as it has come."""
        if within.isdecimal():
            if end is None:
                return {"over": self.words_for(int(within))}
            return {"start": range_form.up_to(int(within), self.visit.period(self["by"], end))}
        whole: Literal["week", "month"] = "week" if within == "week" else "month"
        if end is None:
            return {"over": f"this {whole}"}
        calendar = self.visit.period(whole, end)
        last = calendar.shift(1).start.date() - timedelta(days=1)
        return {"start": calendar.start.date(), "end": min(last, self.visit.now.date())}

    def _typed_values(self) -> Mapping[str, Any]:
        typed = super()._typed_values()
        return {name: value for name, value in typed.items() if name not in ("rows", "within")}

    def behind(self, query: Query) -> Behind:
        k = query.number("k", 1, 1, self.most["rows"]) if query.text("k") else None
        times = "" if k is None else f"{self.on} exactly {periods(k, self['by'])} "
        title = f"did {self['event']} {times}{self.span}"
        return Behind(title, StickinessFigure.of(k=k))

    @property
    def on(self) -> str:
        """The word before a number of periods."""
        return "on" if self["by"] == "day" else "in"

    def size(self, report: Stickiness) -> int:
        return report.users

    def curves(self, parts: Sequence[Part]) -> CurvePlot[int]:
        """The shares of the whole and the largest parts; those of nobody have none."""
        shares = {part.kind: [*part.report.shares.values()] for part in parts if part.kind}
        drawn = {kind: row for kind, row in shares.items() if None not in row}
        return curve_plot([*parts[0].report.counts], drawn, rates=True)

    def tips(self, parts: Sequence[Part], plot: CurvePlot[int]) -> list[str]:
        """What is told of all curves at each point."""
        return [self._told(parts, slot.point) for slot in plot.slots]

    def _told(self, parts: Sequence[Part], k: int) -> str:
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
