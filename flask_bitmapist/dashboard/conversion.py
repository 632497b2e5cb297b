"""Whether more of them get there: the conversion of a funnel, by the period of the first step."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import partial
from typing import Any, ClassVar, get_args

from ..analytics import Conversion, ConversionPoint
from ..questions import ConversionFigure, ConversionQuestion
from ..questions.conversion import Following
from ..questions.funnel import Order, Which
from . import page
from .drawing import LinePlot, line_plot, when
from .page import Behind
from .path_page import PathPage
from .query import FIRST_REPORTED_YEAR, Query
from .target_page import TargetPage


class ConversionPage(TargetPage, PathPage):
    """Of those who took the first of `steps` in each period, how many took the others in time."""

    endpoint = "conversion"
    template = "conversion"
    asks = ConversionQuestion
    most: ClassVar[Mapping[str, int]] = {"rows": 120, "within": 60}
    ORDERS: ClassVar[dict[Order, str]] = {
        order: PathPage.ORDERS[order] for order in get_args(Following)
    }

    @classmethod
    def usual(cls, query: Query) -> Mapping[str, Any]:
        return {**super().usual(query), "within": 7}

    def behind(self, query: Query) -> Behind:
        steps: list[str] = self["steps"]
        which = query.choice("which", get_args(Which), "reached")
        number = self.number_of_step(query, which)
        at = self.visit.period(self["by"], query.day("at", FIRST_REPORTED_YEAR)).start
        path = self.path(steps[:number] if which == "reached" else steps[:1])
        title = f"took {path}{self.way}{self.rest(number, which)} {self.began(at)}"
        return Behind(title, ConversionFigure.of(step=number - 1, at=at, which=which))

    def began(self, at: date) -> str:
        """When they took the first step, in words."""
        return f"and began {when(at, self['by'])}"

    def curve(self, report: Conversion) -> LinePlot[ConversionPoint]:
        """The rates; a period in which nobody began has none."""
        rates = [point.rate for point in report.points]
        running = sum(not point.complete for point in report.points)
        return line_plot(report.points, rates, running=running, whole=False, reach=self.reach)


view = partial(page.view, ConversionPage)
