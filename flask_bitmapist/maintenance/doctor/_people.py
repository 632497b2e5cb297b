"""People who wait on the server to be erased, as their rows were deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ...wishes import wishes
from ._findings import Finding

_PART = "data"
#: Seconds in which whoever waits is erased, as a rule.
_SOON = 600


def check(client: Any) -> Iterator[Finding]:
    """Those who are to be erased, as their rows were deleted."""
    waiting = wishes(client)
    if not waiting:
        return
    people = len({wish.whose for wish in waiting})
    seconds = time.time() - waiting[0].asked / 1e6
    told = f"{people:,} people" if people > 1 else "1 person"
    hours = f"{seconds / 3600:.1f} hours"
    if seconds < _SOON:
        yield Finding(_PART, "ok", f"{told} {'are' if people > 1 else 'is'} about to be erased")
        return
    yield Finding(
        _PART,
        "warning",
        f"{told} wait{'' if people > 1 else 's'} to be erased, the first for {hours}",
        "Run flask bitmapist erase --due --yes: the process that was to do it has ended",
    )
