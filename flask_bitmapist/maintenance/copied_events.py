"""Events in a copy: the target knows them, with the same kinds of ids and the same offsets."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, tzinfo

from ..ids import PLAIN
from ..periods import local
from ..registry import FIRST_DAYS, KINDS_COPY, Registry, Wanted, mismatch, text
from ..trip import Trip
from .followed_map import FollowedMap
from .sides import Side


class Events:
    """The events of the source, as far as is known, and what the target knows of them."""

    def __init__(
        self, source: Side, target: Side, registry: Registry, zone: tzinfo, *, are_ours: bool
    ) -> None:
        """:param are_ours: False: the source has no registry, and so only plain ids."""
        self._source, self._target = source, target
        self._registry = registry
        self._zone = zone
        self._are_ours = are_ours
        #: The kind of ids of each event, where it is registered.
        self.kinds: dict[str, str] = {}
        self._days: dict[str, date] = {}
        #: By kind.
        self.maps: dict[str, FollowedMap] = {}
        #: Whether the target already had one of them when the copy began.
        self.are_known = False
        #: Those that the target knows to have the same kind of ids.
        self._admitted: set[str] = set()

    def check(self, events: Iterable[str]) -> None:
        """:raises ValueError: if the two servers do not fit together, as far as is known."""
        self._learn()
        held = self._target.patiently(lambda: self._registry.certain_kinds(self._target.client))
        self.are_known = not held.keys().isdisjoint(self.kinds)
        for event in sorted({*events, *self.kinds}):
            self._check_kind(event, held.get(event))
        for followed in self.maps.values():
            followed.check()

    def _check_kind(self, event: str, on_target: str | None) -> None:
        kind = self.kinds.get(event, PLAIN)
        if on_target is not None and on_target != kind:
            raise ValueError(mismatch(event, kind, on_target))

    def _learn(self) -> None:
        """Ask the source which events it has."""
        if not self._are_ours:
            return
        client = self._source.client
        kinds = self._source.patiently(lambda: self._registry.certain_kinds(client))
        days = self._source.patiently(lambda: client.zrange(FIRST_DAYS, 0, -1, withscores=True))
        self.kinds = kinds
        self._days = {text(name): date.fromordinal(int(day)) for name, day in days}
        for kind in {*kinds.values()} - {PLAIN} - self.maps.keys():
            self.maps[kind] = FollowedMap(self._source, self._target, kind)

    def admit(self, events: Iterable[str]) -> None:
        """Register `events` on the target, with their kinds and first days on the source."""
        new = {event for event in events if event not in self._admitted}
        if not new:
            return
        if not new <= self.kinds.keys():
            self._learn()
        client = self._target.client
        wanted = {
            event: Wanted(self.kinds.get(event, PLAIN), True, self._days.get(event))
            for event in new
        }
        kinds = self._target.patiently(lambda: self._registry.admit(client, wanted, self._now))
        for event, kind in kinds.items():
            self._check_kind(event, kind)
        days = [
            part
            for event in new & self._days.keys()
            for part in (self._days[event].toordinal(), event)
        ]
        pipe = Trip(client)
        for event, kind in kinds.items():
            pipe.execute_command("HSETNX", KINDS_COPY, event, kind)
        if days:
            pipe.execute_command("ZADD", FIRST_DAYS, "LT", *days)
        self._target.write(pipe)
        self._admitted |= new

    def _now(self) -> datetime:
        return local(None, self._zone)

    def follow(self, events: Iterable[str]) -> None:
        """Tell the target `events` and their ids, once their bits were read."""
        listed = {*events}
        self.admit(listed)
        for kind in {self.kinds.get(event, PLAIN) for event in listed} - {PLAIN}:
            self.maps[kind].follow()
