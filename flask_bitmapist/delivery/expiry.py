"""When bitmaps expire (``BITMAPIST_TTL``), and how the server is told only once.

Each EXPIREAT is a write, also to the append-only file and to replicas. So it is sent once per key.
Later trips only ask whether the expiry still stands: the server may have come back with older data,
or the key may have been created again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta, tzinfo
from functools import lru_cache
from typing import Any

from ..periods import Grain, Period

#: Keys whose expiry the process remembers.
_MOST_REMEMBERED = 10_000
#: Seconds by which an expiry may differ from what it should be.
_EXACT = 2


class Expiries:
    """The expiries of one application's bitmaps."""

    def __init__(self, ttl: Mapping[Grain, timedelta], zone: tzinfo) -> None:
        """
        :param ttl: how long after its end a period's bitmap is kept, by grain.
        :param zone: the time zone in which periods end.
        """
        self._ttl = ttl
        self._zone = zone
        self._sent: set[str] = set()
        self._moment = lru_cache(maxsize=4096)(self._computed_moment)

    def __bool__(self) -> bool:
        return bool(self._ttl)

    def covers(self, grain: Grain) -> bool:
        """Whether bitmaps of `grain` expire."""
        return grain in self._ttl

    def moment(self, period: Period) -> int | None:
        """When the bitmap of `period` expires, in seconds since the epoch; None: never."""
        return self._moment(period) if period.grain in self._ttl else None

    def has_passed(self, period: Period | None) -> bool:
        """Whether the bitmap of `period` (None: the undated one) is gone for good."""
        moment = None if period is None else self.moment(period)
        return moment is not None and moment <= time.time()

    def queue(
        self, pipe: Any, keys: Iterable[tuple[str, Period | None]]
    ) -> Callable[[Iterator[Any]], list[tuple[str, int]]]:
        """Queue on `pipe` what makes `keys` expire: each a name and its period.

        :returns: a function that takes the replies and returns the keys that lost their expiry,
            with the expiry.
        """
        if not self._ttl:
            return lambda replies: []
        queued: list[tuple[str, int, bool]] = []
        for name, period in dict.fromkeys(keys):
            if period is None or period.grain not in self._ttl:
                continue
            moment = self._moment(period)
            if moment is not None:
                known = name in self._sent
                queued.append((name, moment, known))
                pipe.execute_command(*(("TTL", name) if known else ("EXPIREAT", name, moment)))

        def lost(replies: Iterator[Any]) -> list[tuple[str, int]]:
            lacking = []
            for (name, moment, known), reply in zip(queued, replies, strict=False):
                if isinstance(reply, Exception):
                    continue
                if known and reply == -1:
                    lacking.append((name, moment))
                else:
                    self._remember(name)
            return lacking

        return lost

    def _remember(self, name: str) -> None:
        if len(self._sent) >= _MOST_REMEMBERED:
            self._sent.clear()
        self._sent.add(name)

    def forget_known(self) -> None:
        """Drop what the process remembers: the server may have come back with other data."""
        self._sent.clear()

    def _computed_moment(self, period: Period) -> int | None:
        """When the bitmap of `period` expires, as a timestamp; None: beyond the calendar."""
        try:
            end = period.end.replace(tzinfo=self._zone) + self._ttl[period.grain]
            return int(end.timestamp())
        except (OverflowError, ValueError):
            return None


def is_wrong(left: int, moment: int) -> bool:
    """Whether a bitmap that should expire at `moment` will not, or should be gone.

    :param left: what TTL says of it.
    """
    # -1: it never expires; -2: it is gone.
    now = time.time()
    return left != -2 and (left == -1 or moment <= now or abs(now + left - moment) > _EXACT)
