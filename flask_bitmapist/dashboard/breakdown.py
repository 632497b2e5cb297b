"""Reports that are broken down, on their pages: the parts, their curves and where they lead."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, NamedTuple

from ..analytics import NO_VALUE, part_of
from ..questions import BrokenDown, PartFigure
from ..reading.segments import parse
from .drawing import MOST_CURVES
from .page import Behind, Page
from .query import LONGEST_SEGMENT, MOST_VALUES, Query, TypedSegment


class Part(NamedTuple):
    """One of the reports of a page, or that of everybody."""

    #: None: the whole.
    name: str | None
    title: str
    report: Any
    #: The class of its curve; empty if it has none.
    kind: str
    #: The query string of the same page about these people alone; empty if that is too long.
    arguments: dict[str, Any]


class BrokenDownPage(Page):
    """The page of a report that may be broken down."""

    MOST_VALUES = MOST_VALUES

    @abstractmethod
    def size(self, report: Any) -> int:
        """How many people are in a part: the largest parts are drawn."""

    @property
    def dimension(self) -> str:
        """The name of the dimension by which it is broken down; empty if it is not by one."""
        text = self["breakdown"]
        return next(iter(parse(text).names())) if isinstance(text, str) else ""

    @property
    def asked_values(self) -> list[TypedSegment]:
        """The segments by which it is broken down."""
        values: str | list[TypedSegment] = self["breakdown"]
        return [] if isinstance(values, str) else values

    @property
    def is_dated(self) -> bool:
        """Whether some segment depends on the period."""
        return any(one.expression and one.expression.dated() for one in self.asked_values)

    @property
    def broken_down_by(self) -> str:
        """What its parts differ in, in words."""
        return self.dimension or ("segment" if len(self.asked_values) > 1 else "the segment")

    def parts(self, report: Any) -> list[Part]:
        """The whole and its parts, in order; empty if it has none."""
        if not report.parts:
            return []
        sizes = {name: self.size(part) for name, part in report.parts.items()}
        drawn = sorted(sizes, key=lambda name: -sizes[name])[:MOST_CURVES]
        kinds = {
            name: f"c{number}"
            for number, name in enumerate((one for one in sizes if one in drawn), start=1)
        }
        return [
            Part(None, "everybody", report, "c0", {}),
            *(
                Part(name, name, part, kinds.get(name, ""), self._alone(name))
                for name, part in report.parts.items()
            ),
        ]

    def _alone(self, name: str) -> dict[str, Any]:
        question = part_of(self.question, name, lambda: self.visit.query.known)
        where = str(question.where)
        if len(where) > LONGEST_SEGMENT or TypedSegment.read(where).error is not None:
            return {}
        return {**self.arguments, "where": where, "breakdown": None}

    def in_part(self, behind: Behind, query: Query) -> Behind:
        """The same figure of the part that `query` names, if it names any."""
        value = query.text("value")
        if not value or not isinstance(behind.figure, PartFigure):
            return behind
        if self.dimension:
            who = (
                f"without a {self.dimension}" if value == NO_VALUE else f"{self.dimension} {value}"
            )
        else:
            who = f"in {value}"
        figure, question = replace(behind.figure, value=value), behind.question
        if isinstance(question, BrokenDown) and isinstance(self.question, BrokenDown):
            question = replace(question, breakdown=self.question.breakdown)
        return behind._replace(title=f"{behind.title}, {who}", figure=figure, question=question)
