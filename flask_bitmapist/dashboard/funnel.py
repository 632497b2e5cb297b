"""How far users go: the steps of a path."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, get_args

from werkzeug.exceptions import BadRequest

from ..analytics import Funnel
from ..questions import FunnelFigure, FunnelQuestion
from ..questions.funnel import Order, Which
from ..registry import Known
from . import page
from .breakdown import BrokenDownPage
from .drawing import periods
from .page import ACTIVE, Behind, Visit, of_one_kind
from .query import Query
from .ranged_page import RangedPage


class FunnelPage(BrokenDownPage, RangedPage):
    """How many took the first of `steps`, then the second, the third..."""

    endpoint = "funnel"
    template = "funnel"
    asks = FunnelQuestion
    most: ClassVar[Mapping[str, int]] = {"rows": 366, "within": 365}
    MOST_STEPS: ClassVar[int] = 8
    ORDERS: ClassVar[dict[Order, str]] = {
        "ordered": "in this order",
        "strict": "in this order, one per period",
        "any": "in any order",
    }

    @classmethod
    def usual(cls, query: Query) -> Mapping[str, Any]:
        return {"steps": _usual_steps(query.known)}

    def __init__(self, visit: Visit, values: Mapping[str, Any]) -> None:
        super().__init__(visit, values)
        if len(self["steps"]) > self.MOST_STEPS:
            raise BadRequest(f"A funnel has at most {self.MOST_STEPS} steps.")

    @property
    def way(self) -> str:
        """In which order, and how fast, the steps are to be taken, in words."""
        within = f", within {periods(self['within'], self['by'])}" * (self["within"] is not None)
        return f", {self.ORDERS[self['order']].replace('period', self['by'])}{within}"

    def size(self, report: Funnel) -> int:
        return report.steps[0].users

    def behind(self, query: Query) -> Behind:
        steps: list[str] = self["steps"]
        which = query.choice("which", get_args(Which), "reached")
        # The first step is open to nobody, and nobody is lost before it.
        short = int(which != "reached")
        number = query.number("number", 1 + short, 1 + short, len(steps))
        taken = steps[:1] if which == "open" else steps[: number - short]
        path = (" and " if self["order"] == "any" else " → ").join(taken)
        rest = {
            "reached": ",",
            "dropped": f", and did not go on to {steps[number - 1]},",
            "open": f", and have time left to get to {steps[number - 1]},",
        }[which]
        figure = FunnelFigure.of(step=number - 1, which=which)
        title = f"took {path}{self.way}{rest} {self.span}"
        return Behind(title, figure)


def _usual_steps(known: Known) -> list[str]:
    """From signing up, via logging in, to the first event about something other than users."""
    events = of_one_kind(known).events
    other = [event for event in events if not event.startswith("user:")]
    active = [event for event in ACTIVE if event in events][:1]
    steps = ["user:created", *active, *other[:1]]
    return [step for step in steps if step in events] or events[:1]


view = partial(page.view, FunnelPage)
