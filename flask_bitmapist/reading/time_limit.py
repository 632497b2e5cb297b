"""How long reports may take where somebody waits for them, as for the dashboard's pages.

What a report costs depends on how long its bitmaps are and how often it combines them, which
nobody can tell from the question alone: one stray id near ``BITMAPIST_MAX_ID`` makes a bitmap 130
times as long as a million users do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


class TimeLimitError(ValueError):
    """A report was not done within the `time_limit`."""


@dataclass(slots=True)
class _Limit:
    seconds: float
    #: When it is reached, by `time.monotonic`.
    ends: float
    #: Small steps since the clock was looked at.
    steps: int = 0


#: Combining two short bitmaps takes some microseconds: so many of them take some milliseconds, and
#: are answered whatever the time.
_STEPS = 1_000
_UNLIMITED = _Limit(math.inf, math.inf)
_limit: ContextVar[_Limit] = ContextVar("bitmapist_time_limit", default=_UNLIMITED)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Reports made inside end after about so many seconds, done or not.

    They look at the clock between two parts of the offsets' range, between two round trips, and
    once in about a thousand small steps, such as one cell of a table.

    :raises TimeLimitError: from a report that is not done by then.
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
            f"To answer this takes more than {limit.seconds:g} seconds: "
            "ask for fewer periods, fewer steps or a shorter segment."
        )


def small_step(size: int = 1) -> None:
    """Look at the clock, as `check_time` does, once in so many small steps.

    :param size: how many small steps this one is as long as.
    """
    limit = _limit.get()
    if limit is _UNLIMITED:
        return
    limit.steps += size
    if limit.steps >= _STEPS:
        limit.steps = 0
        check_time()
