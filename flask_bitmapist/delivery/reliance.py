"""What a batch relies on, and how the trip that writes it checks that it still holds.

A process remembers the kinds and first days of events and the offsets of ids. The server may have
lost them since, by coming back from an older snapshot or copy, and given the same offsets to
others. Asking before the trip is not enough: redis-py reconnects by itself, and a proxy keeps its
clients' connections when another server takes over. So each trip checks what it relies on together
with what it writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from ..ids import IdMap
from ..registry import FIRST_DAYS, KINDS, KINDS_COPY, Registry, space_of, text


class Reliance:
    """The kinds, first days and offsets that one batch takes for granted."""

    def __init__(
        self,
        registry: Registry,
        kinds: Mapping[str, str | None],
        days: Mapping[str, date],
    ) -> None:
        """
        :param kinds: event -> its kind in the registry; None: it is not there.
        :param days: event -> the earliest day on which the batch marks it.
        """
        self.kinds = kinds
        #: Kind -> id -> offset.
        self.offsets: dict[str, dict[str, int]] = {}
        self._registry = registry
        self._first_days = registry.days_to_enter(days)
        self._uncopied = registry.kinds_to_copy(kinds)
        self._days = days
        #: Events that had no first day.
        self._added: list[str] = []
        self._unregistered: set[str] = set()

    def enter(self, pipe: Any) -> None:
        """Queue what must be stored before the bits; `entered` takes the replies."""
        for event, kind in self._uncopied.items():
            pipe.execute_command("HSETNX", KINDS_COPY, event, kind)
        for event, day in self._first_days.items():
            pipe.execute_command("ZADD", FIRST_DAYS, "LT", day.toordinal(), event)

    def entered(self, replies: Iterator[Any]) -> None:
        for _ in self._uncopied:
            next(replies)
        self._added = [event for event in self._first_days if next(replies) == 1]

    def ask(self, pipe: Any) -> None:
        """Queue the questions; `holds` takes the replies.

        Put them last in the pipeline, so that they also notice if the server changes meanwhile.
        """
        pipe.execute_command("HMGET", KINDS, *self.kinds)
        if self._days:
            pipe.execute_command("ZMSCORE", FIRST_DAYS, *self._days)
        for kind, ids in self.offsets.items():
            pipe.execute_command("HMGET", IdMap.keys(space_of(kind))[0], *ids)

    def holds(self, replies: Iterator[Any]) -> bool:
        """Whether the server still agrees.

        :raises redis.RedisError: if it does not say.
        """
        kinds = [None if kind is None else text(kind) for kind in _list(next(replies))]
        self._unregistered = {
            event for event, kind in zip(self.kinds, kinds, strict=True) if kind is None
        }
        hold = kinds == [*self.kinds.values()]
        if self._days:
            first_days = zip(_list(next(replies)), self._days.values(), strict=True)
            hold &= all(
                first is not None and int(first) <= day.toordinal() for first, day in first_days
            )
        for ids in self.offsets.values():
            offsets = [None if held is None else int(held) for held in _list(next(replies))]
            hold &= offsets == [*ids.values()]
        return hold

    def withdraw(self, pipe: Any) -> None:
        """It did not hold: queue the removal of entries of events that nobody registered.

        A first day without a kind would look as if the kind had been lost.
        """
        if names := self._unregistered.intersection(self._added):
            pipe.execute_command("ZREM", FIRST_DAYS, *names)

    def remember(self) -> None:
        """It held: remember that the entries are made."""
        if self._uncopied or self._first_days:
            self._registry.remember(self._uncopied, self._first_days)


def _list(reply: Any) -> list[Any]:
    if isinstance(reply, Exception):
        raise reply
    return list(reply)
