"""Markup of which a page has hundreds of pieces: a template takes ten times as long to make it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup, escape

from .drawing import Slot


def options(names: Iterable[str], chosen: str | None) -> Markup:
    """The options of a picker of `names`."""
    found = []
    for name in names:
        text, selected = escape(name), " selected" if name == chosen else ""
        found.append(f'<option value="{text}"{selected}>{text}</option>')
    return Markup("\n".join(found))


def hits(slots: Iterable[Slot[Any]], tips: Iterable[str]) -> Markup:
    """What shows the tip of each point of a plot of several lines, where the mouse is."""
    found = []
    for slot, tip in zip(slots, tips, strict=True):
        left, width, x = round(slot.left, 2), round(slot.width, 2), round(slot.x, 2)
        found.append(
            f'<g class="hit"><rect x="{left}%" width="{width}%" height="100%"/>'
            f'<line class="cursor" x1="{x}%" x2="{x}%" y1="0" y2="100%"/>'
            f"<title>{escape(tip)}</title></g>"
        )
    return Markup("\n".join(found))
