"""Which periods may be packed, and where their packed form is kept.

Packing swaps a period's bitmap for a packed form under a key of ours. No period is packed that is
not over before one day, `PACKED_BEFORE`, which every process asks for now and then.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import date, timedelta
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from .periods import KEY_PREFIX
from .trip import replies

#: The first day, as ISO text, that no packed period reaches; absent while nothing is packed.
PACKED_BEFORE = "flask_bitmapist:packed_before"
#: How long periods must be over to be packed, without ``BITMAPIST_PACK_AFTER``.
USUAL_AGE = timedelta(days=35)
#: Keys asked for in one step of a SCAN.
_BATCH = 1_000
#: Seconds for which a process trusts what it knows of that day. Whoever moves it waits for longer
#: before the first swap.
TRUSTED = 10.0


def packed_key(key: str) -> str:
    """Where the packed form of the bitmap under `key` is kept: in a cluster, on the same node."""
    return f"flask_bitmapist:packed:{{{key}}}"


def is_packable(key: str) -> bool:
    """Whether `key` can have a packed form: that of a period, in the same slot of a cluster."""
    # A brace in a name makes another slot of it.
    return days_of(key) is not None and "{" not in key and "}" not in key


def days_of(key: str) -> tuple[date, date] | None:
    """The first day of the period of a bitmap, and the day after its last; None: it has no period.

    Those of an hour are its day's.
    """
    return _days(key.rpartition("_")[2])


def ends_by(key: str, day: date) -> bool:
    """Whether the period of the bitmap under `key` is over before `day` begins.

    :param key: one that `is_packable`.
    """
    days = days_of(key)
    return days is not None and days[1] <= day


def may_be_packed(client: Any, keys: Iterable[str]) -> set[str]:
    """Those of `keys` whose bitmaps may be packed. No round trip, but for one in ten seconds."""
    asked, day = _ASKED.get(client, (-TRUSTED, None))
    if time.monotonic() - asked >= TRUSTED:
        keys = [*filter(is_packable, keys)]
        if not keys:
            return set()
        note(client, replies(client, [("GET", PACKED_BEFORE)])[0])
        day = _ASKED[client][1]
    if day is None:
        return set()
    return {key for key in keys if is_packable(key) and ends_by(key, day)}


#: Client -> when it was asked, and the day.
_ASKED: WeakKeyDictionary[Any, tuple[float, date | None]] = WeakKeyDictionary()


def note(client: Any, told: bytes | str | None) -> None:
    """Trust what the server has just told about `PACKED_BEFORE`."""
    text = told.decode() if isinstance(told, bytes) else told
    _ASKED[client] = time.monotonic(), None if text is None else date.fromisoformat(text)


_SUFFIX = re.compile(r"W?\d+(-\d+){1,3}", re.ASCII)


@lru_cache(maxsize=16384)
def _days(suffix: str) -> tuple[date, date] | None:
    """The first day of a period that is named so in a key, and the day after its last one."""
    if not _SUFFIX.fullmatch(suffix):
        return None
    year, number, *rest = map(int, suffix.removeprefix("W").split("-"))
    try:
        if suffix.startswith("W"):
            first = date.fromisocalendar(year, number, 1)
            return first, first + timedelta(days=7)
        if rest:
            first = date(year, number, rest[0])
            return first, first + timedelta(days=1)
        return date(year, number, 1), date(year + number // 12, number % 12 + 1, 1)
    except (ValueError, OverflowError):
        return None


def packed_keys(client: Any) -> Iterator[str]:
    """The bitmaps' own keys of all that is packed."""
    begin, end = packed_key("|").split("|")
    for key in keys_of(client, f"{begin}{KEY_PREFIX}"):
        yield key.removeprefix(begin).removesuffix(end)


def keys_of(client: Any, prefix: str) -> Iterator[str]:
    """The keys that begin with `prefix`, some of them twice (SCAN)."""
    for key in client.scan_iter(match=f"{prefix}*", count=_BATCH, NEVER_DECODE=True):
        with suppress(UnicodeDecodeError):  # such a key is not ours
            yield key.decode() if isinstance(key, bytes) else key
