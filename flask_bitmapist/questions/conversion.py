"""How fast people get through a funnel, and how its conversion changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, get_args

from ..reading.segments import Expression
from .base import Figure, Ranged
from .fields import Choice, Did, Index, Moment, Number, Several, asks
from .funnel import Order, Which, check_steps

#: The orders in which a step begins a path: there is none in any order.
Following = Literal["ordered", "strict"]


@dataclass(frozen=True, kw_only=True)
class TimeToConvertQuestion(Ranged):
    """How many periods it took from the first of `steps` to the last."""

    steps: tuple[Expression, ...] = asks(Several(Did()), help="The events, in order.", spelt="step")
    within: int | None = asks(
        Number(0), None, help="How many periods the steps may take from the first one."
    )
    order: Order = asks(Choice(get_args(Order)), "ordered", help="The order of the steps.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, self.order)


@dataclass(frozen=True, kw_only=True)
class TimeToConvertFigure(Figure):
    """Who took the last step `k` periods after the first one; None: at all."""

    k: int | None = asks(Number(0), None)


@dataclass(frozen=True, kw_only=True)
class ConversionQuestion(Ranged):
    """Of those who took the first of `steps` in each period, how many took the others in time."""

    steps: tuple[Expression, ...] = asks(Several(Did()), help="The events, in order.", spelt="step")
    within: int = asks(Number(0), help="How many periods the steps may take from the first one.")
    order: Following = asks(Choice(get_args(Following)), "ordered", help="The order of the steps.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, self.order)


@dataclass(frozen=True, kw_only=True)
class ConversionFigure(Figure):
    """Of those who began in the period of `at`, who reached `step` (an index), or did not.

    Who did not is ``dropped`` once their time is over; until then the step is ``open`` to them.
    """

    step: int = asks(Index(), spelt="number")
    at: date | datetime | None = asks(Moment(), None)
    which: Which = asks(Choice(get_args(Which)), "reached")
