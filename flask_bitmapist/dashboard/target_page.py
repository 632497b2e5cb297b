"""The page of a report whose chart may have a target, drawn as a line."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple, Self

from .page import Visit
from .ranged_page import RangedPage

#: The largest target of people.
_MOST_PEOPLE = 10**10


class Target(NamedTuple):
    """A value that is to be reached.

    :ivar value: as the axis has it: a share of 1, or a number of people.
    """

    value: float
    text: str


class TargetPage(RangedPage):
    """A form with a target; it changes no figure, so it is no part of the question."""

    @classmethod
    def read(cls, visit: Visit) -> Self:
        read = super().read(visit)
        most = 100 if read.is_share else _MOST_PEOPLE
        return cls(visit, {**read.values, "target": visit.query.decimal("target", most)})

    @property
    def is_share(self) -> bool:
        """Whether the axis of its chart has shares; the target is then in per cent."""
        return True

    @property
    def target(self) -> Target | None:
        """The line to be drawn; None: there is none."""
        value: float | None = self["target"]
        if value is None:
            return None
        if self.is_share:
            return Target(value / 100, f"target {_decimal(value)} %")
        return Target(value, f"target {_decimal(value)}")

    @property
    def reach(self) -> float:
        """What the axis has to reach for it."""
        return 0.0 if self.target is None else self.target.value

    @cached_property
    def arguments(self) -> dict[str, Any]:
        return {**super().arguments, **spelt(self["target"])}

    @property
    def target_of_chart(self) -> float | None:
        """The target of a chart of this question on a board, as `boards.chart` takes it."""
        return None if self.target is None else self.target.value


def spelt(target: float | None) -> dict[str, str]:
    """What a query string has of a target, which is in per cent if it is a share."""
    return {} if target is None else {"target": _decimal(target).replace(",", "")}


def _decimal(value: float) -> str:
    return f"{value:,.6f}".rstrip("0").rstrip(".")
