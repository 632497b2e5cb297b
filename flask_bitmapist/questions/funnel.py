"""How far people get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from ..reading.segments import Expression
from .base import BrokenDown, PartFigure, Ranged
from .fields import Choice, Did, Index, Number, Several, Switch, asks

#: ``ordered``: each step in the period of the one before it, or later; ``strict``: later;
#: ``any``: in any order.
Order = Literal["ordered", "strict", "any"]
#: ``reached``: who took the step and all before it; ``dropped``: who took all before it, but not
#: the step in time; ``open``: who took the first step, not yet this one, and have time for it.
Which = Literal["reached", "dropped", "open"]


@dataclass(frozen=True, kw_only=True)
class FunnelQuestion(BrokenDown, Ranged):
    """How many took the first of `steps`, then the second, the third..."""

    steps: tuple[Expression, ...] = asks(Several(Did()), help="The events, in order.", spelt="step")
    within: int | None = asks(
        Number(0), None, help="How many periods the steps may take from the first one."
    )
    order: Order = asks(Choice(get_args(Order)), "ordered", help="The order of the steps.")
    previous: bool = asks(
        Switch(), False, help="Beside them those of as many periods right before."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, self.order)

    @property
    def whom(self) -> Expression:
        return self.steps[0]


@dataclass(frozen=True, kw_only=True)
class FunnelFigure(PartFigure):
    """The people who took `step` (an index), or may still take it, or did not."""

    step: int = asks(Index(), spelt="number")
    which: Which = asks(Choice(get_args(Which)), "reached")


def check_steps(steps: Sequence[Expression], order: Order) -> None:
    """:raises ValueError: if doing an event once takes two of `steps`."""
    if order == "any" and len({*steps}) < len(steps):
        raise ValueError("in any order, each step must be a different event")
    if order == "ordered":
        for step, following in pairwise(steps):
            if step == following:
                raise ValueError(
                    f"two steps in a row are {step}, and doing it once takes both: use "
                    "order='strict' to ask who did it in a second period"
                )
