"""The page of a report on a range of periods."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cached_property
from typing import Any, ClassVar, Self

from ..current import current_tracker
from . import range_form
from .drawing import periods
from .page import Page, Visit, sentence_of
from .range_form import MOST_PERIODS, PRESETS, ShownRange


class RangedPage(Page):
    """A form whose range is one in words, or has a first and a last day.

    Addresses of before, with a number of periods (``rows``) up to a last day, are read as well.
    """

    most: ClassVar[Mapping[str, int]] = {"rows": MOST_PERIODS}
    #: How many periods it shows, up to the present one, unless it is told.
    usual_number: ClassVar[int] = 30

    @classmethod
    def read(cls, visit: Visit) -> Self:
        read = super().read(visit)
        return cls(visit, {**read.values, **read._range_of_before()})

    def _range_of_before(self) -> Mapping[str, Any]:
        """The range of an address that does not say where it begins."""
        over, start, end, rows = (self[name] for name in ("over", "start", "end", "rows"))
        if over is not None or start is not None:
            return {}
        rows = rows or self.usual_number
        if end is None:
            return {"over": self.words_for(rows), "rows": None}
        return {"start": range_form.up_to(rows, self.visit.period(self["by"], end)), "rows": None}

    def words_for(self, rows: int) -> str:
        """The range of so many periods, if nothing says where they end."""
        return range_form.up_to_now(rows, self["by"])

    @property
    def presets(self) -> list[str]:
        """The ranges in words that the form offers: the one that is shown, and the usual ones."""
        over = self["over"]
        return [*([over] if over and over not in PRESETS else []), *PRESETS]

    @cached_property
    def range(self) -> ShownRange:
        """The range that it shows; the usual one if it asks for none that can be shown."""
        return self._range[0]

    @cached_property
    def _range(self) -> tuple[ShownRange, str]:
        """The range, and what is wrong with that of the form."""
        over, start, end = self["over"], self["start"], self["end"]
        try:
            shown = self._range_called(range_form.words_of(over, start, end))
            shown.check(self.most["rows"])
        except ValueError as error:
            return self._range_called(self.words_for(self.usual_number)), sentence_of(error)
        if self["rows"] is not None or (over is not None and (start or end)):
            problem = "Choose a range in words, or a first and a last day: nothing beside them."
            return shown, problem
        return shown, ""

    def _range_called(self, words: str) -> ShownRange:
        containing = current_tracker().settings.period
        return ShownRange.of(words, self["by"], self.visit.now, containing)

    def _typed_values(self) -> Mapping[str, Any]:
        """The fields of the question, of whose range only the words are told."""
        range_ = {"over": self.range.words, "start": None, "end": None, "rows": None}
        return {**super()._typed_values(), **range_}

    @property
    def range_problem(self) -> str:
        """Why the range that the form asks for is not shown; empty: it is."""
        return self._range[1]

    @property
    def problem(self) -> str:
        return self.range_problem or super().problem

    @property
    def fixed_arguments(self) -> dict[str, Any]:
        """The query string that asks for the same days, on any day."""
        first, last = (str(day) for day in self.range.days)
        rest = {name: told for name, told in self.arguments.items() if name != "over"}
        return {**rest, "start": first, "end": last}

    @property
    def number(self) -> int:
        """How many periods are shown."""
        return self.range.number(self.most["rows"])

    @property
    def number_of_periods(self) -> int:
        return self.number * (2 if self.values.get("previous") else 1)

    @property
    def range_before(self) -> ShownRange:
        """The range of as many periods right before these."""
        first = self.range.first
        return ShownRange("", first.shift(-self.number), first.shift(-1), self.range.now)

    @property
    def arguments_before(self) -> dict[str, Any]:
        """The query string that asks for them."""
        rest = {
            name: told
            for name, told in self.arguments.items()
            if name not in ("over", "end", "previous")
        }
        first, last = (str(day) for day in self.range_before.days)
        return {**rest, "start": first, "end": last}

    @property
    def before(self) -> str:
        """The range before in words, after "in": the 28 days before, the month before."""
        number, by = self.number, self["by"]
        return f"the {by if number == 1 else periods(number, by)} before"

    def since(self, day: date) -> dict[str, Any]:
        """The query string that asks for what has come since `day`, beside what was before."""
        rest = {n: told for n, told in self.arguments.items() if n not in ("start", "end")}
        return {**rest, "over": f"since {day}", "previous": "yes"}

    @property
    def last(self) -> date:
        return self.range.last.start

    @property
    def span(self) -> str:
        if self.range_problem:
            asked = range_form.words_of(self["over"], self["start"], self["end"])
            return f"in the range {asked}"
        return self.range.adverb
