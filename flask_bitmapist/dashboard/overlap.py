"""Who does both: how much the users of several events overlap."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from werkzeug.exceptions import BadRequest

from ..questions import OverlapFigure, OverlapQuestion
from ..reading.segments import Event
from . import page
from .page import Behind, Visit, of_one_kind
from .query import Query
from .ranged_page import RangedPage


class OverlapPage(RangedPage):
    """For each pair of `events`, how many did both in a range."""

    endpoint = "overlap"
    template = "overlap"
    asks = OverlapQuestion
    usual_number = 1
    MOST_EVENTS: ClassVar[int] = 8

    @classmethod
    def usual(cls, query: Query) -> Mapping[str, Any]:
        alike = of_one_kind(query.known).events
        return {"events": [str(Event(event)) for event in alike[:4]], "by": "month"}

    def __init__(self, visit: Visit, values: Mapping[str, Any]) -> None:
        super().__init__(visit, values)
        if len(self["events"]) > self.MOST_EVENTS:
            raise BadRequest(f"At most {self.MOST_EVENTS} events can be compared.")

    def behind(self, query: Query) -> Behind:
        events = [event.text for event in self["events"]]
        one = query.number("one", 1, 1, len(events)) - 1
        other = query.number("other", 1, 1, len(events)) - 1
        both = "" if one == other else f" and {events[other]}"
        figure = OverlapFigure.of(one=one, other=other)
        return Behind(f"match {events[one]}{both} {self.span}", figure)


view = partial(page.view, OverlapPage)
