"""Bits that are only set: which bitmaps get the same ones.

A batch may have thousands of events, each with bitmaps of the same day, week and month. So what
they have in common is found out once, and there is no object for each bitmap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from typing import NamedTuple

from ..marks import Deed
from ..periods import KEY_PREFIX, Grain, Period, marked_periods, unique_key
from .bits import Rows, Run
from .merging import Chunk, in_commands, worth_merging
from .unmarking import Key


class Ending(NamedTuple):
    """How the keys of some bitmaps end, behind the event; and their period, None: undated."""

    text: str
    period: Period | None

    def key(self, event: str) -> Key:
        """The bitmap of `event`."""
        return Key(f"{KEY_PREFIX}{event}{self.text}", self.period)


@lru_cache(maxsize=4096)
def endings(
    hour: datetime | None, hourly: bool, unique: bool, only: Grain | None
) -> tuple[Ending, ...]:
    """The bitmaps of a mark; the day's comes first, which `Unmarking` relies on."""
    periods: list[Period | None] = []
    if hour is not None:
        periods += marked_periods(hour, hourly) if only is None else [Period.containing(only, hour)]
    if hour is None or (unique and only is None):
        periods.append(None)
    keys = (unique_key("") if period is None else period.key("") for period in periods)
    return tuple(
        Ending(key.removeprefix(KEY_PREFIX), period)
        for key, period in zip(keys, periods, strict=True)
    )


@lru_cache(maxsize=4096)
def keys(what: Deed) -> tuple[Key, ...]:
    """The bitmaps of a mark, as in `endings`."""
    listed = endings(what.hour, what.hourly, what.unique, what.only)
    return tuple(ending.key(what.event) for ending in listed)


#: What tells the `endings` of a mark.
Place = tuple[datetime | None, bool, bool, Grain | None]
#: Event -> bits to set in its bitmaps.
Chunks = dict[str, list[Chunk]]


class SameBits:
    """Bits of one or more events, and the bitmaps in which just these are set."""

    def __init__(self, endings: Iterable[Ending], chunks: Chunks) -> None:
        """:param endings: those of the bitmaps."""
        #: Days before weeks and months, as `Unmarking` relies on.
        self.endings = sorted(endings, key=_is_longer)
        self._chunks = chunks

    def take_merges(self, *, alone: bool) -> Iterator[tuple[list[Key], list[Chunk]]]:
        """Bits that are better merged than set, and their bitmaps; they are gone from here.

        :param alone: as `worth_merging`.
        """
        for event in worth_merging(self._chunks, alone=alone):
            yield [ending.key(event) for ending in self.endings], self._chunks.pop(event)

    def runs(self, *, longer: bool) -> Iterator[Run]:
        """What sets the bits of weeks and months, or all others."""
        for ending in self.endings:
            if self._chunks and _is_longer(ending) == longer:
                yield Run(ending.period, self._rows, KEY_PREFIX, ending.text)

    @cached_property
    def _rows(self) -> Rows:
        rows = [
            (event, offsets)
            for event, chunks in self._chunks.items()
            for chunk in chunks
            for offsets in in_commands(chunk)
        ]
        return Rows([event for event, _ in rows], [offsets for _, offsets in rows])


def in_order(
    places: Mapping[Place, Chunks], has_passed: Callable[[Period | None], bool]
) -> list[SameBits]:
    """The bits that are set in the bitmaps of `places`: days before weeks and months.

    :param has_passed: whether a period's bitmap is gone for good.
    """
    sources: dict[Ending, list[Place]] = {}
    for place in places:
        for ending in endings(*place):
            if not has_passed(ending.period):
                sources.setdefault(ending, []).append(place)
    alike: dict[tuple[Place, ...], list[Ending]] = {}
    for ending, of_ending in sources.items():
        alike.setdefault(tuple(of_ending), []).append(ending)
    found = [
        SameBits(listed, _together([places[place] for place in of_all]))
        for of_all, listed in alike.items()
    ]
    return sorted(found, key=lambda bits: _is_longer(bits.endings[0]))


def _together(parts: Sequence[Chunks]) -> Chunks:
    if len(parts) == 1:
        return dict(parts[0])
    together: Chunks = {}
    for part in parts:
        for event, chunks in part.items():
            together.setdefault(event, []).extend(chunks)
    return together


def _is_longer(ending: Ending) -> bool:
    """Whether the bitmaps are those of a week or a month."""
    return ending.period is not None and ending.period.grain in ("week", "month")
