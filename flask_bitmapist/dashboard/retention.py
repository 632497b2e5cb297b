"""Who came back: the heat table of cohorts, and its curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, ClassVar

from ..analytics import Average, Retention
from ..questions import RetentionFigure, RetentionQuestion
from ..questions.retention import Mode
from . import page
from .breakdown import BrokenDownPage, Part
from .drawing import CurvePlot, LinePlot, curve_plot, line_plot, percent, periods, polyline, when
from .page import ACTIVE, Behind, of_one_kind
from .query import FIRST_REPORTED_YEAR, Query
from .target_page import TargetPage


class RetentionPage(BrokenDownPage, TargetPage):
    """Of those who did `cohort` in a period, how many did `returned` k periods later."""

    endpoint = "cohort"
    template = "retention"
    asks = RetentionQuestion
    usual_number = 12
    most: ClassVar[Mapping[str, int]] = {"rows": 92, "periods": 60}
    #: The modes in the page's words.
    MODES: ClassVar[dict[Mode, str]] = {
        "on": "in just that period",
        "on_or_after": "in that period or later",
        "on_or_before": "by that period at the latest",
        "streak": "in every period up to then",
        "first_return": "for the first time since",
    }

    @classmethod
    def usual(cls, query: Query) -> Mapping[str, Any]:
        alike = of_one_kind(query.known, *query.given("cohort", "returned")).events
        return {
            "cohort": (*(event for event in alike if event == "user:created"), *alike),
            "returned": (*(event for event in ACTIVE if event in alike), *alike),
            "periods": 11,
        }

    def behind(self, query: Query) -> Behind:
        at = self.visit.period(self["by"], query.day("at", FIRST_REPORTED_YEAR)).start
        k = query.number("k", 0, 0, self.most["periods"]) if query.text("k") else None
        first = " for the first time" if self["members"] == "first" else ""
        title = f"did {self['cohort']}{first} {when(at, self['by'])}"
        if k is not None:
            title += f" and {self['returned']} {periods(k, self['by'])} later, {self.when}"
        return Behind(title, RetentionFigure.of(at=at, k=k))

    @property
    def when(self) -> str:
        """When they must have returned to be counted, in words."""
        return self.MODES[self["mode"]].replace("period", self["by"])

    def size(self, report: Retention) -> int:
        return report.size

    def columns(self, report: Retention) -> int:
        """How many columns there is anything in: what is still to come for all cohorts is left out.

        The cohorts before have come further.
        """
        cells = report.rows[0].cells
        if report.previous is not None:
            return len(cells)
        return sum(cell.state != "future" for cell in cells)

    def curves(self, parts: Sequence[Part]) -> CurvePlot[int]:
        """The averages that exist, of the whole and of the largest parts."""
        known = {part.kind: _known(part.report) for part in parts if part.kind}
        number = max(map(len, known.values()))
        for part in parts:
            if part.kind and part.report.previous is not None:
                known[f"{part.kind} before"] = _known(part.report.previous)[:number]
        return curve_plot(range(number), known, rates=True, reach=self.reach)

    def tips(self, parts: Sequence[Part], plot: CurvePlot[int]) -> list[str]:
        """What is told of all curves at each point."""
        return [self._told(parts, slot.point) for slot in plot.slots]

    def _told(self, parts: Sequence[Part], k: int) -> str:
        """The averages of all curves after `k` periods."""
        rates = [(part.title, _rates(part.report)[k]) for part in parts if part.kind]
        shown = [f"{title}: {percent(rate)} %" for title, rate in rates if rate is not None]
        return "\n".join([f"{periods(k, self['by'])} later", *shown])

    def curve(self, report: Retention) -> LinePlot[tuple[int, Average]]:
        """The averages that exist."""
        known = [*takewhile(lambda found: found[1].rate is not None, enumerate(report.average))]
        return line_plot(
            known,
            [average.rate or 0.0 for _, average in known],
            band=[(average.low or 0.0, average.high or 0.0) for _, average in known],
            reach=max((*_before(report, len(known)), self.reach)),
        )

    def curve_before(self, report: Retention, plot: LinePlot[Any]) -> str:
        """The line of the cohorts before on the same axes, as far as these have come."""
        rates = _before(report, len(plot.slots))
        return polyline([(at.x, plot.y(r)) for at, r in zip(plot.slots, rates, strict=False)])


def _before(report: Retention, number: int) -> list[float]:
    """The first averages of the cohorts before."""
    return [] if report.previous is None else _known(report.previous)[:number]


def _known(report: Retention) -> list[float]:
    """The averages that exist."""
    return [rate or 0.0 for rate in takewhile(lambda rate: rate is not None, _rates(report))]


def _rates(report: Retention) -> list[float | None]:
    return [average.rate for average in report.average]


view = partial(page.view, RetentionPage)
