"""How far people get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..reading.segments import Expression
from .base import Figure, Ranged
from .fields import Choice, Did, Index, Number, Several, Switch, asks

#: ``ordered``: each step in the period of the one before it, or later; ``strict``: later;
#: ``any``: in any order.
Order = Literal["ordered", "strict", "any"]


@dataclass(frozen=True, kw_only=True)
class FunnelQuestion(Ranged):
    """How many took the first of `steps`, and went on to the second, the third..."""

    steps: tuple[Expression, ...] = asks(Several(Did()), help="The events, in order.")
    within: int | None = asks(Number(0), None, help="Periods that the way may take from its entry.")
    order: Order = asks(Choice(get_args(Order)), "ordered", help="The order of the steps.")


@dataclass(frozen=True, kw_only=True)
class FunnelFigure(Figure):
    """Who took `step` (its index) and all before it; or, `dropped`, those but not it."""

    step: int = asks(Index())
    dropped: bool = asks(Switch(), False)
