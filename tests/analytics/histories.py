"""What a few users did, in as few words as a test can tell it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any

from flask_bitmapist import mark_event
from flask_bitmapist.current import current_tracker
from flask_bitmapist.marks import Mark

#: (event, day) -> who did it then.
Log = Mapping[tuple[str, int], frozenset[int]]
#: Day 0, a Monday; the year ends on day 3.
FIRST = date(2026, 12, 28)


def on(day: int) -> date:
    return FIRST + timedelta(days=day)


def log(users: Mapping[Any, str]) -> None:
    """Mark what {user: "a0 b3"} tells: the user did a on day 0 and b on day 3."""
    current_tracker().record(
        Mark(did[0], user, when=on(int(did[1:])))
        for user, history in users.items()
        for did in history.split()
    )


def mark_days(event: str, users_by_days_ago: Mapping[int, Iterable[Any]]) -> None:
    """Mark {days ago: users}."""
    now = current_tracker().now()
    for days, users in users_by_days_ago.items():
        mark_event(event, sorted(users), now=now - timedelta(days=days))
