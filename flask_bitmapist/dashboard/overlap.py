"""Who does both: how much the users of several events overlap."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from werkzeug.exceptions import BadRequest

from ..questions import OverlapFigure, OverlapQuestion
from ..reading.segments import Event
from . import page
from .drawing import when
from .page import Behind, Page, Visit, of_one_kind
from .query import Query


class OverlapPage(Page):
    """For each pair of `events`, how many did both in one period."""

    endpoint = "overlap"
    template = "overlap"
    asks = OverlapQuestion
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

    @property
    def span(self) -> str:
        return when(self.visit.period(self["by"], self["at"]).start, self["by"])


view = partial(page.view, OverlapPage)
