"""What changed: every event in a range, beside as many periods right before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any, ClassVar

from ..analytics import Change, Changes
from ..annotations import Annotation
from ..questions import ChangesFigure, ChangesQuestion
from ..reading.segments import Event
from . import page
from .addresses import url_for
from .notes import changes_since, of_request
from .page import Behind
from .query import Query
from .ranged_page import RangedPage


class ChangesPage(RangedPage):
    """How many more or fewer did each event in a range than in as many periods right before."""

    endpoint = "changes"
    template = "changes"
    asks = ChangesQuestion
    usual_number = 28
    #: How many events the page lists.
    MOST_LISTED: ClassVar[int] = 200

    @classmethod
    def usual(cls, query: Query) -> Mapping[str, Any]:
        return {}

    @property
    def number_of_periods(self) -> int:
        return 2 * self.number

    @property
    def bitmaps(self) -> int:
        where = self["where"].expression
        if where is None or not where.dated():
            return super().bitmaps
        # Every event is combined with the segment, period by period.
        return super().bitmaps + len(self.visit.query.known.events) * self.number_of_periods

    def behind(self, query: Query) -> Behind:
        event = query.event("event")
        before = query.choice("before", ("", "yes"), "") == "yes"
        span = f"in {self.before}, {self.range_before.dates}" if before else self.span
        return Behind(f"did {event} {span}", ChangesFigure.of(event=event, before=before))

    def summary(self, report: Changes) -> str:
        """How many events rose and fell."""
        so_far = "" if report.complete else " so far"
        return (
            f"Of {len(report.events)} events, {report.rising} have more people{so_far} than in "
            f"{self.before}, and {report.falling} fewer"
        )

    def trend(self, event: str) -> str:
        """The address of the trend of `event`, beside the periods before."""
        told = {name: text for name, text in self.arguments.items() if name != "rows"}
        return url_for("bitmapist.trends", **told, event=str(Event(event)), previous="yes")

    def bars(self, report: Changes) -> list[tuple[Change, float]]:
        """The largest changes, and how long the bar of each is: 50 is half the width."""
        listed = report.events[: self.MOST_LISTED]
        most = max((abs(one.change) for one in listed), default=0)
        return [(one, 50 * abs(one.change) / most if most else 0.0) for one in listed]

    @property
    def noted(self) -> Sequence[Annotation]:
        """What is noted, the latest first."""
        return [one for one in reversed(of_request()) if one.date <= self.visit.now.date()]

    def since(self, day: date) -> dict[str, Any]:
        return {**changes_since(day), "where": self.arguments.get("where")}


view = partial(page.view, ChangesPage)
