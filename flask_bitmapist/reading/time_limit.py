"""A time limit for reports that somebody waits for, such as the dashboard's pages.

The cost of a report depends on how long its bitmaps are and how often it combines them. The
question alone does not show it: one stray id near ``BITMAPIST_MAX_ID`` makes a bitmap 130 times as
long as a million users do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


class TimeLimitError(ValueError):
    """A report took longer than its `time_limit`."""


@dataclass(slots=True)
class _Limit:
    seconds: float
    #: When time is up, by `time.monotonic`.
    ends: float
    #: Small steps since the last look at the clock.
    steps: int = 0


#: Combining two short bitmaps takes some microseconds: this many take some milliseconds, and need
#: no look at the clock.
_STEPS = 1_000
_UNLIMITED = _Limit(math.inf, math.inf)
_limit: ContextVar[_Limit] = ContextVar("bitmapist_time_limit", default=_UNLIMITED)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Stop reports made inside after about this many seconds.

    They check the clock between two parts of the offsets' range, between two round trips, and about
    every thousand small steps, such as the cells of a table.

    :raises TimeLimitError: from a report that is not finished by then.
    """
    token = _limit.set(_Limit(seconds, time.monotonic() + seconds))
    try:
        yield
    finally:
        _limit.reset(token)


def check_time() -> None:
    """:raises TimeLimitError: when the time limit is over."""
    limit = _limit.get()
    if time.monotonic() > limit.ends:
        raise TimeLimitError(
            f"This report takes longer than {limit.seconds:g} seconds: "
            "ask for fewer periods, fewer steps or a shorter segment."
        )


def small_step(size: int = 1) -> None:
    """Check the time, as `check_time` does, but only once in many small steps.

    :param size: how many small steps this one counts as.
    """
    limit = _limit.get()
    if limit is _UNLIMITED:
        return
    limit.steps += size
    if limit.steps >= _STEPS:
        limit.steps = 0
        check_time()
