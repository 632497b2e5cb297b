"""Sets and clears the flags of many people at once; only those that differ are written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..ids import mapped_kind, normal_form
from ..periods import unique_key
from ..tracker import Tracker
from ..trip import replies
from .runs import Bulk


class Flags:
    """The flags of one application."""

    def __init__(self, tracker: Tracker, bulk: Bulk) -> None:
        self._tracker = tracker
        self._bulk = bulk

    def write(self, wanted: Mapping[tuple[str, object], bool], space: str) -> int:
        """Give each flag, by its event and id, the value `wanted`; returns how many changed."""
        changed = 0
        for event in dict.fromkeys(event for event, _ in wanted):
            of_event = {id_: on for (name, id_), on in wanted.items() if name == event}
            held = self._bulk.patiently(lambda: self._held(event, of_event.keys(), space))  # noqa: B023
            for value in (True, False):
                ids = [id_ for id_, on in of_event.items() if on is value is not (id_ in held)]
                self._bulk.write(event, ids, value, False, None, None, None, space)
                changed += len(ids)
        return changed

    def _held(self, event: str, ids: Collection[object], space: str) -> set[object]:
        """Those of `ids` that have the flag `event`."""
        offsets = offsets_of(self._tracker, ids, space)
        if not offsets:
            return set()
        first, last = min(offsets.values()) // 8, max(offsets.values()) // 8
        command = ("GETRANGE", unique_key(event), first, last)
        octets = replies(self._tracker.redis, [command])[0]
        return {
            id_
            for id_, offset in offsets.items()
            if (byte := offset // 8 - first) < len(octets) and octets[byte] & 128 >> (offset & 7)
        }


def offsets_of(tracker: Tracker, ids: Collection[Any], space: str) -> dict[Any, int]:
    """The offsets under which `ids` are marked; those without one are left out. Reads only."""
    if tracker.settings.id_map != "always" and {*map(type, ids)} <= {int}:
        return {id_: id_ for id_ in ids}
    kind = mapped_kind(space)
    known = tracker.reader.known_offsets([str(normal_form(id_)) for id_ in ids], kind)
    return {id_: known[text] for id_ in ids if (text := str(normal_form(id_))) in known}
