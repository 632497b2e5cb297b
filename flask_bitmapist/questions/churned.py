"""Who was active and then silent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from ..reading.segments import Expression
from .base import Figure, Ranged
from .fields import Did, Moment, Number, Switch, asks


@dataclass(frozen=True, kw_only=True)
class ChurnedQuestion(Ranged):
    """How many did `event` in each period and not in the `silent` ones after it."""

    event: Expression = asks(Did(), help="The event that counts as active.")
    silent: int = asks(Number(), help="How many periods of silence.")


@dataclass(frozen=True, kw_only=True)
class ChurnedFigure(Figure):
    """Those active in the period of `at` who were silent afterwards; with `active`, all of them."""

    at: date | datetime | None = asks(Moment(), None)
    active: bool = asks(Switch(), False)
