"""What people do more, and what they do less."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Figure, Ranged
from .fields import Switch, Word, asks


@dataclass(frozen=True, kw_only=True)
class ChangesQuestion(Ranged):
    """How many more or fewer did each event in a range than in as many periods right before."""


@dataclass(frozen=True, kw_only=True)
class ChangesFigure(Figure):
    """Who did `event`, by its name, in the range; or in the periods before."""

    event: str = asks(Word())
    before: bool = asks(Switch(), False)
