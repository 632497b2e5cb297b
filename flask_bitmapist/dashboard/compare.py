"""Which arm of an experiment does better."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from werkzeug.exceptions import BadRequest

from ..analytics import Compare
from ..questions import CompareFigure, CompareQuestion
from ..reading.segments import Event, Flag
from ..registry import Catalogue
from . import page
from .breakdown import BrokenDownPage
from .page import ACTIVE, Behind, Visit, of_one_kind
from .query import Query
from .ranged_page import RangedPage


class ComparePage(BrokenDownPage, RangedPage):
    """How many of each of `arms` did `goal`, against the first of them."""

    endpoint = "compare"
    template = "compare"
    asks = CompareQuestion
    MOST_ARMS: ClassVar[int] = 6

    @classmethod
    def usual(cls, query: Query) -> Mapping[str, Any]:
        usual = of_one_kind(query.known, *query.given("goal", "arm"))
        goals = [event for event in usual.events if event not in ACTIVE]
        return {"arms": _usual_arms(usual), "goal": (*goals, *usual.events)}

    def __init__(self, visit: Visit, values: Mapping[str, Any]) -> None:
        super().__init__(visit, values)
        if len(self["arms"]) > self.MOST_ARMS:
            raise BadRequest(f"At most {self.MOST_ARMS} arms can be compared.")

    def behind(self, query: Query) -> Behind:
        number = query.number("number", 1, 1, len(self["arms"]))
        converted = query.choice("converted", ("", "yes", "no"), "")
        goal = self["goal"]
        did = {"": "", "yes": f" and did {goal}", "no": f" and did not do {goal}"}[converted]
        figure = CompareFigure.of(
            arm=number - 1, converted={"": None, "yes": True, "no": False}[converted]
        )
        title = f"match {self['arms'][number - 1].text}{did} {self.span}"
        return Behind(title, figure)

    def size(self, report: Compare) -> int:
        return sum(arm.size for arm in report.arms)

    def top(self, report: Compare) -> float:
        """The rate at the end of the drawn scale."""
        return max((arm.high or 0.0 for arm in report.arms), default=0.0) or 1.0


def _usual_arms(catalogue: Catalogue) -> list[str]:
    """Active users with and without some flag; failing that, two events or flags."""
    events, flags = catalogue
    if flags and events:
        active = next(Event(event) for event in (*ACTIVE, *events) if event in events)
        flag = Flag(flags[0])
        return [str(active - flag), str(active & flag)]
    return [*(str(Flag(flag)) for flag in flags), *(str(Event(event)) for event in events)][:2]


view = partial(page.view, ComparePage)
