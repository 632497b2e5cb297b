"""How far users go: the steps of a path."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import ClassVar, Self, get_args

from werkzeug.exceptions import BadRequest

from ..analytics._funnel import Funnel, funnel, funnel_people
from ..periods import Grain
from ..questions.funnel import Order
from ..reading.segments import Event
from ..registry import Known
from .page import ACTIVE, Behind, Question, first_period, of_one_kind, span
from .query import Query, Segment


@dataclass(frozen=True, slots=True)
class FunnelQuestion(Question):
    """How many took the first of `step`, and went on to the second, the third..."""

    template: ClassVar[str] = "funnel"
    endpoint: ClassVar[str] = "funnel"
    LONGEST: ClassVar[int] = 366
    MOST_STEPS: ClassVar[int] = 8
    ORDERS: ClassVar[dict[Order, str]] = {
        "ordered": "in this order",
        "strict": "in this order, one a period",
        "any": "in any order",
    }

    step: list[str]
    by: Grain
    rows: int
    end: date | None
    within: int | None
    order: Order
    where: Segment

    @classmethod
    def read(cls, query: Query) -> Self:
        steps = query.events("step", *_usual_steps(query.known)) or [query.event("step")]
        if len(steps) > cls.MOST_STEPS:
            raise BadRequest(f"A funnel has at most {cls.MOST_STEPS} steps.")
        return cls(
            step=steps,
            by=query.by("day"),
            rows=query.number("rows", 30, 1, cls.LONGEST),
            end=query.day("end"),
            within=query.number("within", 0, 0, 365) if query.text("within") else None,
            order=query.choice("order", get_args(Order), "ordered"),
            where=query.segment(),
        )

    def report(self) -> Funnel:
        return funnel(
            [Event(step) for step in self.step],
            self.by,
            start=first_period(self.by, self.end, self.rows).start,
            end=self.end,
            within=self.within,
            order=self.order,
            where=self.where.expression,
        )

    def behind(self, query: Query) -> Behind:
        dropped = bool(query.choice("dropped", ("", "1"), ""))
        # Nobody is lost before the first step.
        number = query.number("number", 1 + dropped, 1 + dropped, len(self.step))
        path = (" and " if self.order == "any" else " → ").join(self.step[: number - dropped])
        people = partial(
            funnel_people,
            [Event(step) for step in self.step],
            number - 1,
            self.by,
            first_period(self.by, self.end, self.rows).start,
            self.end,
            self.within,
            self.order,
            self.where.expression,
            dropped=dropped,
        )
        stop = f", and did not go on to {self.step[number - 1]}," if dropped else ""
        return Behind(f"took {path}{stop} {span(self.by, self.end, self.rows)}", people)


def _usual_steps(known: Known) -> list[str]:
    """From signing up by logging in to the first thing that users do with something else."""
    events = of_one_kind(known).events
    other = [event for event in events if not event.startswith("user:")]
    return ["user:created", ACTIVE, *other[:1]]
