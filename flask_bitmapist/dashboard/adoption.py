"""Who uses it: the share of the active users who use a feature, and who are new to it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from ..analytics import Adoption, AdoptionPoint
from ..questions import AdoptionFigure, AdoptionQuestion
from ..questions.adoption import USERS
from . import page
from .drawing import BarPlot, bar_plot, when
from .page import ACTIVE, Behind, of_one_kind
from .query import FIRST_REPORTED_YEAR, Query
from .ranged_page import RangedPage


class AdoptionPage(RangedPage):
    """How many of those who did `active` in each period also did `feature`."""

    endpoint = "adoption"
    template = "adoption"
    asks = AdoptionQuestion
    usual_number = 12
    most: ClassVar[Mapping[str, int]] = {"rows": 120}

    @classmethod
    def usual(cls, query: Query) -> Mapping[str, Any]:
        alike = of_one_kind(query.known, *query.given("feature", "active")).events
        other = [event for event in alike if not event.startswith("user:")]
        return {
            "feature": (*other, *alike),
            "active": (*(event for event in ACTIVE if event in alike), *alike),
            "by": "week",
        }

    def behind(self, query: Query) -> Behind:
        by, feature = self["by"], self["feature"]
        at = self.visit.period(by, query.day("at", FIRST_REPORTED_YEAR)).start
        which = query.choice("which", USERS, "users")
        used = {
            "active": "",
            "users": f" and {feature}",
            "new": f" and, for the first time ever, {feature}",
        }[which]
        figure = AdoptionFigure.of(which=which, at=at)
        return Behind(f"did {self['active']}{used} {when(at, by)}", figure)

    def bars(self, report: Adoption) -> BarPlot[AdoptionPoint]:
        """One bar per period: those who are new to it, and those who are not."""
        return bar_plot(
            report.points,
            [[("returning", p.users - p.new), ("new", p.new)] for p in report.points],
        )


view = partial(page.view, AdoptionPage)
