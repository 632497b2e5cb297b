"""Which arm of an experiment does better."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import ClassVar, Self

from werkzeug.exceptions import BadRequest

from ..analytics._compare import Compare, compare, compare_people
from ..periods import Grain
from ..reading.segments import Event, Flag
from ..registry import Catalogue
from .page import ACTIVE, Behind, Question, first_period, of_one_kind, span
from .query import Query, Segment


@dataclass(frozen=True, slots=True)
class CompareQuestion(Question):
    """How many of each of `arm` did `goal`, against the first of them."""

    template: ClassVar[str] = "compare"
    endpoint: ClassVar[str] = "compare"
    LONGEST: ClassVar[int] = 366
    MOST_ARMS: ClassVar[int] = 6

    arm: list[Segment]
    goal: str
    by: Grain
    rows: int
    end: date | None
    where: Segment

    @classmethod
    def read(cls, query: Query) -> Self:
        usual = of_one_kind(query.known)
        arms = query.segments("arm") or [*map(Segment.read, _usual_arms(usual))]
        if len(arms) > cls.MOST_ARMS:
            raise BadRequest(f"At most {cls.MOST_ARMS} arms can be compared.")
        return cls(
            arm=arms,
            goal=query.event("goal", *(event for event in usual.events if event != ACTIVE)),
            by=query.by("day"),
            rows=query.number("rows", 30, 1, cls.LONGEST),
            end=query.day("end"),
            where=query.segment(),
        )

    def report(self) -> Compare:
        return compare(
            [arm.expression or arm.text for arm in self.arm],
            Event(self.goal),
            start=first_period(self.by, self.end, self.rows).start,
            end=self.end,
            by=self.by,
            where=self.where.expression,
        )

    def behind(self, query: Query) -> Behind:
        number = query.number("number", 1, 1, len(self.arm))
        converted = query.choice("converted", ("", "yes", "no"), "")
        arm = self.arm[number - 1]
        people = partial(
            compare_people,
            arm.expression or arm.text,
            Event(self.goal),
            first_period(self.by, self.end, self.rows).start,
            self.end,
            self.by,
            self.where.expression,
            converted={"": None, "yes": True, "no": False}[converted],
        )
        what = {"": "", "yes": f" and did {self.goal}", "no": f" and did not do {self.goal}"}
        range_ = span(self.by, self.end, self.rows)
        return Behind(f"match {arm.text}{what[converted]} {range_}", people)

    def top(self, report: Compare) -> float:
        """The rate at which the drawn scale ends."""
        return max((arm.high or 0.0 for arm in report.arms), default=0.0) or 1.0


def _usual_arms(catalogue: Catalogue) -> list[str]:
    """Of the active users those without a flag and those with it; or else two events, or flags."""
    events, flags = catalogue
    if flags and events:
        active, flag = Event(ACTIVE if ACTIVE in events else events[0]), Flag(flags[0])
        return [str(active - flag), str(active & flag)]
    return [*(str(Flag(flag)) for flag in flags), *(str(Event(event)) for event in events)][:2]
