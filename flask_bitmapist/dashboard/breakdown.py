"""Reports that are broken down, on their pages: the parts, their curves and where they lead."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from ..analytics import NO_VALUE, part_of
from ..questions import BrokenDown, PartFigure
from ..reading.segments import parse
from .drawing import MOST_CURVES
from .page import Behind, Page, Visit
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
    AS_OF: ClassVar[Mapping[str, str]] = {
        "now": "now",
        "then": "each month's end",
    }

    def __init__(self, visit: Visit, values: Mapping[str, Any]) -> None:
        # A form keeps the choice when its breakdown is taken back.
        super().__init__(visit, values if values["breakdown"] else {**values, "as_of": "now"})

    @abstractmethod
    def size(self, report: Any) -> int:
        """How many people are in a part: the largest parts are drawn."""

    @property
    def dimension(self) -> str:
        """The name of the dimension by which it is broken down; empty if it is not by one."""
        text = self["breakdown"]
        return next(iter(parse(text).names())) if isinstance(text, str) else ""

    @property
    def kept_since(self) -> date | None:
        """The first of the months for which the dimension's values are kept; None: for none."""
        return self.visit.query.known.dated.get(self.dimension)

    @property
    def is_then(self) -> bool:
        """Whether people count under the value that they had then."""
        return bool(self["as_of"] == "then")

    @property
    def problem(self) -> str:
        if self.is_then and not self.dimension:
            return (
                "The parameter as_of is then for the values of a dimension alone: break it down by "
                "one, or take a segment such as was(user:plan=pro)."
            )
        return super().problem

    @cached_property
    def arguments(self) -> dict[str, Any]:
        told = super().arguments
        return told if self.is_then else {n: text for n, text in told.items() if n != "as_of"}

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
        return {**self.arguments, "where": where, "breakdown": None, "as_of": None}

    def in_part(self, behind: Behind, query: Query) -> Behind:
        """The same figure of the part that `query` names, if it names any."""
        value = query.text("value")
        if not value or not isinstance(behind.figure, PartFigure):
            return behind
        figure, question = replace(behind.figure, value=value), behind.question
        if isinstance(question, BrokenDown) and isinstance(self.question, BrokenDown):
            whole = self.question
            question = replace(question, breakdown=whole.breakdown, as_of=whole.as_of)
        title = f"{behind.title}, {self._who(value)}"
        return behind._replace(title=title, figure=figure, question=question)

    def _who(self, value: str) -> str:
        """Who is in the part called `value`."""
        if not self.dimension:
            return f"in {value}"
        who = f"without a {self.dimension}" if value == NO_VALUE else f"{self.dimension} {value}"
        return f"{who} then" if self.is_then else who
