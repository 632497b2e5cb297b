"""How much the bitmaps grow, and whether the server has room for a year of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime

from ...config import Settings
from ...periods import Period
from ._bitmaps import Survey
from ._findings import Finding, Growth, sized
from ._nodes import Node
from ._server import room_of

#: Whole months that are looked back.
_MONTHS = 3


def growth(told: Survey, settings: Settings, now: datetime) -> Growth:
    """What the last whole months have added. Periods that expire are not counted."""
    this = Period.containing("month", now)
    months = {this.shift(-back).start.date() for back in range(1, _MONTHS + 1)}
    grown: dict[date, int] = {}
    for (month, grain), size in told.by_month.items():
        if month in months and grain not in settings.ttl:
            grown[month] = grown.get(month, 0) + size
    return Growth(told.total, sum(grown.values()) // len(grown) if grown else None)


def check(told: Growth, nodes: Sequence[Node]) -> Iterator[Finding]:
    """Whether there will be room."""
    if told.monthly is None or told.in_a_year is None:
        yield Finding("data", "ok", "no whole month yet from which growth could be told")
        return
    found = f"bitmaps grow by {sized(told.monthly)} a month: {sized(told.in_a_year)} in a year"
    rooms = [room_of(node.info) for node in nodes]
    used = sum(int(node.info.get("used_memory", 0)) for node in nodes)
    if all(rooms) and used + 12 * told.monthly > sum(rooms):
        yield Finding(
            "data",
            "warning",
            f"{found}, for which the server's {sized(sum(rooms))} are not enough",
            "Pack old periods (flask bitmapist pack), set BITMAPIST_TTL, or give it more memory",
        )
    else:
        yield Finding("data", "ok", found)
