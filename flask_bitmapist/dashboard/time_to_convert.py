"""How long they take: the periods from the first step of a path to the last."""

from __future__ import annotations

from functools import partial

from ..analytics import Taken, TimeToConvert
from ..questions import TimeToConvertFigure, TimeToConvertQuestion
from . import page
from .drawing import BarPlot, bar_plot, periods
from .page import Behind
from .path_page import PathPage
from .query import Query


class TimeToConvertPage(PathPage):
    """How many periods it took from the first of `steps` to the last."""

    endpoint = "time_to_convert"
    template = "time_to_convert"
    asks = TimeToConvertQuestion

    def behind(self, query: Query) -> Behind:
        k = query.number("k", 0, 0, self.most["rows"]) if query.text("k") else None
        path, by = self.path(self["steps"]), self["by"]
        took = "" if k is None else f" in the same {by}" if not k else f" in {periods(k, by)}"
        title = f"took {path}{took}{self.way}, {self.span}"
        return Behind(title, TimeToConvertFigure.of(k=k))

    def bars(self, report: TimeToConvert) -> BarPlot[Taken]:
        """One bar for each number of periods."""
        return bar_plot(report.times, [[("new", taken.users)] for taken in report.times])


view = partial(page.view, TimeToConvertPage)
