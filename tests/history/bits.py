"""All bits that are on a server, by key, as the ids that they stand for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from flask_bitmapist.packed_periods import packed_keys
from flask_bitmapist.periods import marked_periods, unique_key
from flask_bitmapist.reading.bitmaps import slices
from flask_bitmapist.tracker import Tracker

Bits = dict[str, set[object]]


def bits_of(tracker: Tracker) -> Bits:
    """Every bitmap of ours or bitmapist's that has a bit, packed or not."""
    client = tracker.redis
    keys = {key.decode() for key in client.scan_iter(match="trackist_*")}
    keys |= {*packed_keys(client)}
    kinds = tracker.reader.known().kinds
    found: Bits = {key: set() for key in keys}
    for part in slices(client, keys):
        for key in keys:
            kind = kinds[key.removeprefix("trackist_").rpartition("_")[0]]
            offsets = (part[key].ids() + part.first_offset).tolist()
            found[key] |= {*tracker.reader.identifiers_at(offsets, kind)}
    return {key: ids for key, ids in found.items() if ids}


def bits_for(event: str, marks: Iterable[tuple[object, datetime]], *, hourly: bool = False) -> Bits:
    """The bits that `marks`, each an id and a local moment, set."""
    bits: Bits = {}
    for id_, when in marks:
        hour = when.replace(minute=0, second=0, microsecond=0)
        for period in marked_periods(hour, hourly):
            bits.setdefault(period.key(event), set()).add(id_)
    return bits


def flag_bits(event: str, ids: Iterable[object]) -> Bits:
    held = {*ids}
    return {unique_key(event): held} if held else {}
