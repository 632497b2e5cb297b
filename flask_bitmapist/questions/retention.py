"""Who came back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, get_args

from ..periods import GRAINS, Grain
from ..reading.segments import Expression
from .base import BrokenDown, PartFigure, Ranged
from .fields import MOST, Choice, Did, Moment, Number, Switch, asks

Mode = Literal["on", "on_or_after", "on_or_before", "streak", "first_return"]
Members = Literal["first", "every"]


@dataclass(frozen=True, kw_only=True)
class RetentionQuestion(BrokenDown, Ranged):
    """Of those who did `cohort` in a period, how many did `returned` k periods later."""

    cohort: Expression = asks(Did(), help="The event that defines the cohort.")
    returned: Expression = asks(Did(), help="The event by which they come back.")
    by: Grain = asks(Choice(GRAINS), "week", help="The period.")
    periods: int = asks(Number(0, MOST - 1), 12, help="Columns after the first.")
    mode: Mode = asks(Choice(get_args(Mode)), "on", help="When they must come back.")
    members: Members = asks(Choice(get_args(Members)), "first", help="Which time counts.")
    previous: bool = asks(
        Switch(), False, help="Beside them the cohorts of as many periods right before."
    )

    @property
    def whom(self) -> Expression:
        return self.cohort


@dataclass(frozen=True, kw_only=True)
class RetentionFigure(PartFigure):
    """A cell: who of the cohort of `at` came back `k` periods later; None: the whole cohort."""

    at: date | datetime | None = asks(Moment(), None)
    k: int | None = asks(Number(0, MOST - 1), None)
