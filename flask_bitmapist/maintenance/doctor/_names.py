"""What the server knows of the events: their kinds of ids, their time zone, their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...config import Settings
from ...dimensions import DIMENSIONS, OTHER, values_in
from ...id_map import IdMap
from ...id_map.faults import IncompleteMapError
from ...id_map.keys import map_keys
from ...ids import PLAIN
from ...registry import (
    BELL,
    CALENDAR,
    KINDS,
    KINDS_COPY,
    LostKindError,
    Registry,
    slots_of,
    text,
)
from ._bitmaps import Survey
from ._findings import Finding, several

#: Names that are listed.
_LISTED = 3


class Names(NamedTuple):
    """What is registered."""

    #: The kind of ids of each event and flag.
    kinds: Mapping[str, str]
    #: The time zone in which days were recorded; None: nothing was.
    calendar: str | None
    #: The values of each dimension.
    dimensions: Mapping[str, Sequence[str]]


def read(client: Any) -> Names:
    """One round trip."""
    pipe = client.pipeline(transaction=False)
    pipe.hgetall(KINDS_COPY)
    pipe.hgetall(KINDS)
    pipe.get(CALENDAR)
    pipe.hgetall(DIMENSIONS)
    *held, calendar, slots = pipe.execute()
    kinds = {text(name): text(kind) for part in held for name, kind in part.items()}
    kinds.pop(BELL, None)
    dimensions = values_in(slots_of(slots), kinds)
    return Names(kinds, None if calendar is None else text(calendar), dimensions)


def check(client: Any, names: Names, told: Survey, settings: Settings) -> Iterator[Finding]:
    """Whether all of it fits together."""
    yield from _calendar(names, settings)
    yield from _lost(client, settings)
    yield from _mix(names, settings)
    yield from _maps(client, names, told)
    yield from _dimensions(names, settings)
    registered, held = names.kinds.keys(), told.found.keys()
    if emptied := sorted(registered - held):
        yield Finding(
            "data",
            "warning",
            f"{_listed(emptied)} registered, without a bitmap",
            "Run: flask bitmapist reindex, which forgets names without bitmaps",
        )
    if strange := sorted(held - registered):
        yield Finding(
            "data",
            "warning",
            f"{_listed(strange)} not registered, as others have marked them",
            "Run: flask bitmapist reindex, or reports look through all keys for them",
        )


def _dimensions(names: Names, settings: Settings) -> Iterator[Finding]:
    for dimension, values in names.dimensions.items():
        count = len({*values} - {OTHER})
        if OTHER in values and count >= settings.dimension_values:
            yield Finding(
                "data",
                "warning",
                f"the dimension {dimension!r} has {several(count, 'value')}, as many as "
                f"BITMAPIST_DIMENSION_VALUES allows: whoever got another one counts as {OTHER!r}",
                "Give it fewer values, or raise BITMAPIST_DIMENSION_VALUES and then run: flask "
                "bitmapist backfill",
            )


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_LISTED]))
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}"


def _calendar(names: Names, settings: Settings) -> Iterator[Finding]:
    zone = str(settings.timezone)
    if names.calendar in (None, zone):
        yield Finding("data", "ok", f"days begin in {zone}, as they are recorded")
    else:
        yield Finding(
            "data",
            "warning",
            f"BITMAPIST_TIMEZONE is {zone}, but this server's days were recorded in "
            f"{names.calendar}",
            f"Set it to {names.calendar!r}, or accept that periods at the seam disagree",
        )


def _lost(client: Any, settings: Settings) -> Iterator[Finding]:
    try:
        Registry(str(settings.timezone)).certain_kinds(client)
    except LostKindError as error:
        found, _, advice = str(error).partition(". ")
        yield Finding("data", "error", found, advice)


def _maps(client: Any, names: Names, told: Survey) -> Iterator[Finding]:
    """Whether the maps of ids can be read."""
    for kind in sorted({*names.kinds.values()} - {PLAIN}):
        keys = map_keys(kind)
        marked = [name for name in told.found if names.kinds.get(name) == kind]
        if marked and not any(client.exists(key) for key in keys.vital()):
            yield Finding(
                "data",
                "error",
                f"the id map is gone: {keys.index} and {keys.block(0)}",
                "Restore all keys of the map from a backup: nobody knows whose the bits of "
                f"{_listed(marked).rpartition(' ')[0]} are",
            )
            continue
        try:
            IdMap().lookup(client, "", [kind])
        except IncompleteMapError as error:
            found, _, advice = str(error).partition(". ")
            yield Finding("data", "error", found, advice)


def _mix(names: Names, settings: Settings) -> Iterator[Finding]:
    kinds = Counter(names.kinds.values())
    if not kinds:
        return
    counted = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
    found = f"{several(len(names.kinds), 'name')}, by the kind of ids: {counted}"
    if settings.id_map == "always" and kinds[PLAIN]:
        plain = sorted(name for name, kind in names.kinds.items() if kind == PLAIN)
        yield Finding(
            "data",
            "warning",
            f"{found}. BITMAPIST_ID_MAP is 'always', and {_listed(plain)} plain",
            "Give their marks new names: under the old ones they are refused",
        )
    else:
        yield Finding("data", "ok", found)
