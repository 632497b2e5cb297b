"""Months of a dated dimension, written without what marks them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from flask_bitmapist.dimensions import (
    DIMENSIONS,
    NONE,
    OTHER,
    dated_field,
    flag_of,
    month_key,
    month_text,
    slot,
)
from flask_bitmapist.ids import PLAIN
from flask_bitmapist.periods import unique_key
from flask_bitmapist.registry import KINDS, KINDS_COPY

#: Month as ``2026-11`` -> value (`NONE`: they lost theirs) -> the offsets of the people.
Months = Mapping[str, Mapping[str, Iterable[int]]]


def write_months(
    client: Any,
    dimension: str,
    months: Months,
    now: Mapping[str, Iterable[int]],
    *,
    kind: str = PLAIN,
) -> None:
    """Keep `months` of `dimension`, the first of which is the first that is kept.

    :param now: who has which value now.
    """
    values = dict.fromkeys([*now, *(value for sets in months.values() for value in sets)])
    for number, value in enumerate(value for value in values if value not in (NONE, OTHER)):
        client.hset(DIMENSIONS, slot(dimension, number), value)
    for value in values:
        for key in (KINDS, KINDS_COPY):
            client.hset(key, flag_of(dimension, value), kind)
    for value, people in now.items():
        _set(client, unique_key(flag_of(dimension, value)), people)
    for told, sets in months.items():
        month = date.fromisoformat(f"{told}-01")
        for value, people in sets.items():
            _set(client, month_key(dimension, value, month), people)
    client.hset(
        DIMENSIONS, dated_field(dimension), month_text(date.fromisoformat(f"{min(months)}-01"))
    )


def _set(client: Any, key: str, people: Iterable[int]) -> None:
    for person in people:
        client.setbit(key, person, 1)


def held_months(
    client: Any, dimension: str = "user:plan", *, at_once: bool = False
) -> dict[str, dict[str, set[int]]]:
    """Who had which value last in each month, as bitmapist's keys have it: ``2026-11``.

    :param at_once: as it is at one moment, where others write meanwhile.
    """
    begin = f"trackist_{dimension}="
    keys = [key.decode() for key in client.keys(f"{begin}*") if not key.endswith(b"_u")]
    held = client.mget(keys) if at_once and keys else [client.get(key) for key in keys]
    months: dict[str, dict[str, set[int]]] = {}
    for key, bitmap in zip(keys, held, strict=True):
        value, _, month = key.removeprefix(begin).rpartition("_")
        bits = int.from_bytes(bitmap)
        length = 8 * len(bitmap)
        people = {bit for bit in range(length) if bits >> (length - 1 - bit) & 1}
        if people:
            months.setdefault(month, {})[value] = people
    return months
