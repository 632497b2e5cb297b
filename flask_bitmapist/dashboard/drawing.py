"""How figures are drawn and written: sparklines, heat steps, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from ..periods import Grain

#: The stylesheet has the classes q0 .. q20.
HEAT_STEPS = 20


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A line of daily counts; its last piece, to today, is drawn apart as today is not over.

    The points are SVG's: ``x,y`` pairs in a box of `width` by `height`.
    """

    closed: str
    running: str
    x: float
    y: float
    width: int
    height: int


def sparkline(days: Sequence[int], width: int = 120, height: int = 28) -> Sparkline:
    """Draw at least two days' counts, scaled to the smallest and the largest of the closed days.

    Today, not over yet, would press the others flat: below their smallest it is drawn at the floor.
    """
    floor, top, margin = min(days[:-1]), max(days), 4
    scale = (height - 2 * margin) / (top - floor) if top > floor else 0.0
    step = (width - 2 * margin) / (len(days) - 1)
    points = [
        (margin + i * step, height - margin - max(0, count - floor) * scale)
        for i, count in enumerate(days)
    ]
    drawn = [f"{x:.1f},{y:.1f}" for x, y in points]
    x, y = points[-1]
    line, running = " ".join(drawn[:-1]), " ".join(drawn[-2:])
    return Sparkline(line, running, round(x, 1), round(y, 1), width, height)


def heat(rate: float, largest: float) -> str:
    """The class of a cell, from q0 for nothing to q20 for the largest rate of the table."""
    return f"q{round(HEAT_STEPS * min(1.0, rate / largest)) if largest else 0}"


def label(start: date, by: Grain) -> str:
    """The name of a period, without its year except for months."""
    return f"{start:%b %Y}" if by == "month" else f"{start.day} {start:%b}"


def thousands(number: int) -> str:
    """A count with separators: 12,480."""
    return f"{number:,}"


def percent(rate: float) -> str:
    """A share of 1 as a number of per cent: 34.3."""
    return f"{100 * rate:.1f}"
