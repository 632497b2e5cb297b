"""Bits that are only set: which bitmaps get the same ones.

A batch may have thousands of events, each with bitmaps of the same day, week and month. So what
they have in common is found out once, and there is no object for each bitmap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from ..marks import Deed
from ..periods import KEY_PREFIX, Grain, Period, marked_periods, unique_key
from .bits import Packed, Rows, Run
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


class _Cuts:
    """Bits as commands set them: cut and packed once for a day, its week and its month."""

    def __init__(self) -> None:
        self._parts: dict[int, list[list[int]]] = {}
        #: Of each of these parts, by its identity.
        self.packed: dict[int, Packed] = {}

    def of(self, chunk: Chunk) -> list[list[int]]:
        """The parts of `chunk`, as many bits together as one command sets."""
        parts = self._parts.get(id(chunk))
        if parts is None:
            parts = self._parts[id(chunk)] = [*in_commands(chunk)]
        return parts


class SameBits:
    """Bits of one or more events, and the bitmaps in which just these are set."""

    __slots__ = ("_chunks", "_cuts", "_endings", "_rows")

    def __init__(self, endings: Sequence[Ending], chunks: Chunks, cuts: _Cuts | None) -> None:
        """
        :param endings: those of the bitmaps: days before weeks and months.
        :param cuts: None: no other bitmaps get any of `chunks`.
        """
        self._endings = endings
        self._chunks = chunks
        self._cuts = cuts
        self._rows: Rows | None = None

    def take_merges(self, *, alone: bool) -> Iterator[tuple[list[Key], list[Chunk], int]]:
        """Bits that are better merged than set, as `bunches` takes them; they are gone from here.

        :param alone: as `worth_merging`.
        """
        for event, length in worth_merging(self._chunks, alone=alone).items():
            bitmaps = [ending.key(event) for ending in self._endings]
            yield bitmaps, self._chunks.pop(event), length

    def runs(self, *, longer: bool) -> Iterator[Run]:
        """What sets the bits of weeks and months, or all others."""
        if not self._chunks:
            return
        if self._rows is None:
            self._rows = self._each()
        for ending in self._endings:
            if _is_longer(ending) == longer:
                yield Run(ending.period, self._rows, KEY_PREFIX, ending.text)

    def _each(self) -> Rows:
        cut = in_commands if self._cuts is None else self._cuts.of
        rows = [
            (event, offsets)
            for event, chunks in self._chunks.items()
            for chunk in chunks
            for offsets in cut(chunk)
        ]
        names, offsets = [event for event, _ in rows], [offsets for _, offsets in rows]
        return Rows(names, offsets, known=None if self._cuts is None else self._cuts.packed)


def in_order(
    places: Mapping[Place, Chunks], has_passed: Callable[[Period | None], bool]
) -> list[SameBits]:
    """The bits that are set in the bitmaps of `places`: days before weeks and months.

    `Unmarking` relies on that order.

    :param has_passed: whether a period's bitmap is gone for good.
    """
    # By its text: to hash a period takes longer.
    sources: dict[str, tuple[Ending, list[Chunks]]] = {}
    for place, chunks in places.items():
        for ending in endings(*place):
            if ending.text in sources:
                sources[ending.text][1].append(chunks)
            elif not has_passed(ending.period):
                sources[ending.text] = ending, [chunks]
    alike: dict[tuple[int, ...], tuple[list[Ending], list[Chunks]]] = {}
    for ending, parts in sorted(sources.values(), key=lambda source: _is_longer(source[0])):
        alike.setdefault((*map(id, parts),), ([], parts))[0].append(ending)
    cuts = _Cuts() if len(alike) > 1 else None
    return [SameBits(listed, _together(parts), cuts) for listed, parts in alike.values()]


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
