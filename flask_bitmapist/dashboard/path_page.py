"""The page of a report on the steps of a path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from werkzeug.exceptions import BadRequest

from ..questions.funnel import Order, Which
from ..registry import Known
from .drawing import periods
from .page import ACTIVE, Visit, of_one_kind
from .query import Query
from .ranged_page import RangedPage

#: What all pages about the same steps ask.
_SHARED = ("step", "order", "within", "by", "over", "start", "end", "where")


class PathPage(RangedPage):
    """A form with the steps of a path, their order, and how fast they are to be taken."""

    most: ClassVar[Mapping[str, int]] = {**RangedPage.most, "within": 365}
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
    def views(self) -> dict[str, dict[str, Any]]:
        """The pages about the same steps, by endpoint: their query strings."""
        asked = {name: told for name, told in self.arguments.items() if name in _SHARED}
        ordered = asked if asked["order"] != "any" else {**asked, "order": "ordered"}
        told = {"funnel": asked, "time_to_convert": asked, "conversion": ordered}
        return {**told, self.endpoint: self.arguments}

    @property
    def way(self) -> str:
        """In which order, and how fast, the steps are to be taken, in words."""
        within = f", within {periods(self['within'], self['by'])}" * (self["within"] is not None)
        return f", {self.ORDERS[self['order']].replace('period', self['by'])}{within}"

    def number_of_step(self, query: Query, which: Which) -> int:
        """Which step a figure is about, from 1."""
        # The first step is open to nobody, and nobody is lost before it.
        least = 1 + int(which != "reached")
        return query.number("number", least, least, len(self["steps"]))

    def path(self, steps: list[str]) -> str:
        """Steps, in words."""
        return (" and " if self["order"] == "any" else " → ").join(steps)

    def rest(self, number: int, which: Which) -> str:
        """What became of them, in words.

        :param number: that of a step, from 1.
        """
        return {
            "reached": ",",
            "dropped": f", and did not go on to {self['steps'][number - 1]},",
            "open": f", and have time left to get to {self['steps'][number - 1]},",
        }[which]


def _usual_steps(known: Known) -> list[str]:
    """From signing up, via logging in, to the first event about something other than users."""
    events = of_one_kind(known).events
    other = [event for event in events if not event.startswith("user:")]
    active = [event for event in ACTIVE if event in events][:1]
    steps = ["user:created", *active, *other[:1]]
    return [step for step in steps if step in events] or events[:1]
