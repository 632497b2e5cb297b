"""Dimensions in a copy: the target knows their values, and nobody there has two of them.

Bitmaps are merged into those of the target. So whoever got another value between two copies has
both afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any

import numpy as np

from ..config import MOST_VALUES
from ..dimensions import DIMENSIONS, NONE, OTHER, Slots, month_key
from ..periods import Period, unique_key
from ..reading.bitmaps import slices
from ..registry import Registry, slots_of
from ..trip import Trip
from .parts import in_parts
from .sides import Side

#: People who are looked at in one round trip.
_PEOPLE = 200


def take_values(source: Side, target: Side, registry: Registry) -> Slots:
    """Have the target know the values of the source's dimensions; returns all that it knows."""
    slots = slots_of(source.patiently(lambda: source.client.hgetall(DIMENSIONS)))
    values = {dimension: slots.values(dimension) for dimension in slots.dimensions}
    registry.forget_values()
    known: Slots = target.patiently(
        lambda: registry.admit_values(target.client, values, MOST_VALUES, slots.dated)
    )
    return known


def settle_values(source: Side, target: Side, slots: Slots, until: date) -> None:
    """Take from whoever has several values of a dimension all but that of the source.

    :param until: the last day whose month may be kept.
    """
    for keys in _sets(slots, until):
        crowd = target.patiently(lambda: [*_with_several(target.client, keys)])  # noqa: B023
        for people in in_parts(iter(crowd), _PEOPLE):
            _settle(source, target, keys, people)


def _sets(slots: Slots, until: date) -> Iterator[list[str]]:
    """The keys of the values of each dimension: of now, and of each month that is kept."""
    last = Period.containing("month", datetime(until.year, until.month, 1))
    for dimension in slots.dimensions:
        yield [unique_key(flag) for flag in slots.flags(dimension)]
        if (first := slots.dated.get(dimension)) is not None:
            values = (*slots.values(dimension), OTHER, NONE)
            for month in Period("month", datetime(first.year, first.month, 1)).until(last):
                yield [month_key(dimension, value, month.start) for value in values]


def _with_several(client: Any, keys: Sequence[str]) -> Iterator[int]:
    """The offsets whose bits are set under several of `keys`."""
    for part in slices(client, keys):
        found = np.concatenate([part[key].ids() for key in keys])
        offsets, counts = np.unique(found, return_counts=True)
        yield from (offsets[counts > 1] + part.first_offset).tolist()


def _settle(source: Side, target: Side, keys: Sequence[str], people: Sequence[int]) -> None:
    asked = [("GETBIT", key, offset) for offset in people for key in keys]
    told = zip(asked, source.ask(asked), target.ask(asked), strict=True)
    pipe = Trip(target.client)
    for of_person in in_parts(told, len(keys)):
        held = [(key, offset, wanted) for (_, key, offset), wanted, is_set in of_person if is_set]
        # If the source has none of them now, nothing says which one was the last.
        kept = next((key for key, _, wanted in held if wanted), held[-1][0]) if held else ""
        for key, offset in ((key, offset) for key, offset, _ in held if key != kept):
            pipe.execute_command("SETBIT", key, offset, 0)
    target.write(pipe)
