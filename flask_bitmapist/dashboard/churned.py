"""Who left: those who were active in a period, and silent in the ones after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from functools import partial
from typing import Any, ClassVar

from ..analytics import Churned, ChurnedPoint
from ..questions import ChurnedFigure, ChurnedQuestion
from . import page
from .drawing import BarPlot, bar_plot, periods, when
from .page import ACTIVE, Behind
from .query import FIRST_REPORTED_YEAR, Query
from .range_form import ShownRange
from .ranged_page import RangedPage


class ChurnedPage(RangedPage):
    """How many did `event` in each period and not in the `silent` ones after it."""

    endpoint = "churned"
    template = "churned"
    asks = ChurnedQuestion
    usual_number = 21
    most: ClassVar[Mapping[str, int]] = {"rows": 120, "silent": 60}

    @classmethod
    def usual(cls, query: Query) -> Mapping[str, Any]:
        return {"event": ACTIVE, "by": "week", "silent": 4}

    def words_for(self, rows: int) -> str:
        """The range whose first `rows` periods are over, with their silence."""
        return super().words_for(rows + self["silent"] + 1)

    @property
    def last(self) -> date:
        """The last period whose silence is over."""
        return self._over.last.start

    @property
    def span(self) -> str:
        if self.range_problem or self._over.last < self._over.first:
            return super().span
        return self._over.adverb

    @property
    def _over(self) -> ShownRange:
        """Those periods of the range whose silence is over; there may be none."""
        latest = self.visit.period(self["by"], None).shift(-self["silent"] - 1)
        return replace(self.range, words="", last=min(self.range.last, latest))

    def behind(self, query: Query) -> Behind:
        by = self["by"]
        at = self.visit.period(by, query.day("at", FIRST_REPORTED_YEAR)).start
        active = query.choice("active", ("", "yes", "no"), "") == "yes"
        silence = "" if active else f", and not in the {periods(self['silent'], by)} after it"
        figure = ChurnedFigure.of(at=at, active=active)
        return Behind(f"did {self['event']} {when(at, by)}{silence}", figure)

    def bars(self, report: Churned) -> BarPlot[ChurnedPoint]:
        """One bar per period: those who left."""
        return bar_plot(report.points, [[("dormant", point.users)] for point in report.points])


view = partial(page.view, ChurnedPage)
