"""Flags and dimensions of many people at once; only what differs is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..dimensions import OTHER, flag_of
from ..ids import mapped_kind, normal_form
from ..periods import unique_key
from ..tracker import Tracker
from ..trip import replies
from .runs import Bulk

#: Of a flag, by its event and an id, whether it is set; of a dimension, its value.
States = dict[tuple[str, object], bool | str]


class Flags:
    """The flags and dimensions of one application."""

    def __init__(self, tracker: Tracker, bulk: Bulk) -> None:
        self._tracker = tracker
        self._bulk = bulk

    def write(self, wanted: States, space: str) -> int:
        """Make the states `wanted`; returns how many changed."""
        flags: dict[str, dict[object, bool]] = {}
        dimensions: dict[str, dict[object, str]] = {}
        for (name, id_), state in wanted.items():
            if isinstance(state, bool):
                flags.setdefault(name, {})[id_] = state
            else:
                dimensions.setdefault(name, {})[id_] = state
        chosen = sum(self._choose(name, states, space) for name, states in dimensions.items())
        return self._set(flags, space) + chosen

    def _choose(self, dimension: str, wanted: Mapping[object, str], space: str) -> int:
        """Give each of `wanted` a value; returns how many had not exactly this one."""
        read = self._bulk.patiently(lambda: HeldDimension(self._tracker, dimension))
        fitted = {id_: read.fitted(value) for id_, value in wanted.items()}
        held = self._bulk.patiently(lambda: self._values(read, fitted.keys(), space))
        left: dict[tuple[str, bool], list[object]] = {}
        for id_, value in fitted.items():
            if held[id_] != [*filter(None, [value])]:
                left.setdefault((value, not held[id_]), []).append(id_)
        for (value, is_old_news), ids in left.items():
            # Who had another value has got this one lately; of others nothing says since when.
            rest = (bool(value), False, None, None, None, space, True, value)
            self._bulk.write(dimension, ids, *rest, is_old_news=is_old_news)
        return sum(map(len, left.values()))

    def _values(
        self, read: HeldDimension, ids: Collection[object], space: str
    ) -> dict[object, list[str]]:
        """The values that each of `ids` has: one or none, unless somebody has interfered."""
        held: dict[object, list[str]] = {id_: [] for id_ in ids}
        for value in read.values:
            for id_ in self._held(flag_of(read.name, value), ids, space):
                held[id_].append(value)
        return held

    def _set(self, flags: Mapping[str, Mapping[object, bool]], space: str) -> int:
        changed = 0
        for event, of_event in flags.items():
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


class HeldDimension:
    """A dimension as it is now."""

    def __init__(self, tracker: Tracker, name: str) -> None:
        self.name = name
        #: Its values, in the order in which they came, `OTHER` last.
        self.values = tracker.reader.known(scanned=False).dimensions.get(name, ())
        has_room = len({*self.values} - {OTHER}) < tracker.settings.dimension_values
        self._has_no_room = not has_room

    def fitted(self, value: str) -> str:
        """`value`; `OTHER`, if there is no room for it."""
        return OTHER if self._has_no_room and value and value not in self.values else value


def offsets_of(tracker: Tracker, ids: Collection[Any], space: str) -> dict[Any, int]:
    """The offsets under which `ids` are marked; those without one are left out. Reads only."""
    if tracker.settings.id_map != "always" and {*map(type, ids)} <= {int}:
        return {id_: id_ for id_ in ids}
    kind = mapped_kind(space)
    known = tracker.reader.known_offsets([str(normal_form(id_)) for id_ in ids], kind)
    return {id_: known[text] for id_ in ids if (text := str(normal_form(id_))) in known}
