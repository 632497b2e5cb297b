"""Who came back: the heat table of cohorts, and its curve."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import takewhile
from typing import Any, ClassVar

from ..analytics import Average, Retention
from ..questions import RetentionFigure, RetentionQuestion
from ..questions.retention import Mode
from . import page
from .drawing import LinePlot, line_plot, periods, when
from .page import ACTIVE, Behind, of_one_kind
from .query import FIRST_REPORTED_YEAR, Query
from .ranged_page import RangedPage


class RetentionPage(RangedPage):
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

    def curve(self, report: Retention) -> LinePlot[tuple[int, Average]]:
        """The averages that exist."""
        known = [*takewhile(lambda found: found[1].rate is not None, enumerate(report.average))]
        return line_plot(
            known,
            [average.rate or 0.0 for _, average in known],
            band=[(average.low or 0.0, average.high or 0.0) for _, average in known],
        )


view = partial(page.view, RetentionPage)
