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
from typing import NamedTuple


class TimeLimitError(ValueError):
    """A report was not done within the `time_limit`."""


class _Limit(NamedTuple):
    seconds: float
    #: When it is reached, by `time.monotonic`.
    ends: float


_UNLIMITED = _Limit(math.inf, math.inf)
_limit: ContextVar[_Limit] = ContextVar("bitmapist_time_limit", default=_UNLIMITED)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Reports made inside end after about so many seconds, done or not.

    They look at the clock between two parts of the offsets' range, and between two round trips.

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
