"""What a batch relies on, and how the trip that writes it checks that it still holds.

A process remembers the kinds and first days of events and the offsets of ids. The server may have
lost them since, by coming back from an older snapshot or copy, and given the same offsets to
others; and somebody whose marks are among the batch's may have been erased. Asking before the trip
is not enough: redis-py reconnects by itself, and a proxy keeps its clients' connections when
another server takes over. So each trip checks what it relies on together with what it writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import redis

from ..dimensions import DIMENSIONS
from ..entering import NewNames
from ..registry import BELL, FIRST_DAYS, KINDS, KINDS_COPY, Registry, text
from ..trip import Entries, Questions, Trip
from .relied_offsets import ReliedOffsets

#: What is asked about each event.
_QUESTIONS = (("HMGET", KINDS, BELL), ("ZMSCORE", FIRST_DAYS))


class Reliance:
    """The kinds and first days that a batch takes for granted, and with them its offsets."""

    def __init__(
        self,
        registry: Registry,
        kinds: Mapping[str, str | None],
        days: Mapping[str, date],
        new: NewNames | None = None,
    ) -> None:
        """
        :param kinds: event -> its kind in the registry; None: it is not there.
        :param days: event -> the earliest day on which the batch marks it.
        :param new: others, which are to be there once the batch is written.
        """
        self.kinds = kinds if new is None else {**kinds, **new.kinds}
        #: What `BELL` tells as long as nobody else is erased.
        self.bell = registry.history.bell
        self._days = days if new is None else {**days, **new.days}
        self._registry = registry
        self._new = new
        self._first_days = registry.days_to_enter(days)
        self._uncopied = registry.kinds_to_copy(kinds)
        #: Replies of which is known that all holds.
        self._held: Sequence[Any] = ()

    @property
    def is_entered(self) -> bool:
        """Whether there is nothing that must be stored before the bits."""
        return not self._first_days and not self._uncopied and self._new is None

    def enter(self, pipe: Trip) -> None:
        """Queue what must be stored before the bits; `entered` takes the replies."""
        if self._new is not None:
            self._new.enter(pipe)
        pipe.queue_many(Entries(KINDS_COPY, self._uncopied))
        for event, day in self._first_days.items():
            pipe.execute_command("ZADD", FIRST_DAYS, "LT", day.toordinal(), event)

    def entered(self, replies: Iterator[Any]) -> list[str]:
        """The events that had a kind but no first day."""
        if self._new is not None:
            try:
                self._entered = self._new.entered(replies)
            except redis.ResponseError:  # that they are not there will show
                self._registry.runs_scripts = False
                self._new = None
        for _ in self._uncopied:
            next(replies)
        return [event for event in self._first_days if next(replies) == 1]

    def ask(self, pipe: Trip, offsets: ReliedOffsets) -> None:
        """Queue the questions; `holds` takes the replies.

        Put them last in the pipeline, so that they also notice if the server changes meanwhile.
        """
        pipe.queue_many(self.questions)
        offsets.ask(pipe)

    @property
    def questions(self) -> Questions:
        """The commands that ask for the kinds and first days."""
        return Questions(_QUESTIONS if self._days else _QUESTIONS[:1], self.kinds)

    def holds(self, replies: Sequence[Any], offsets: ReliedOffsets) -> bool:
        """Whether the server still agrees.

        :raises redis.RedisError: if it does not say.
        """
        asked = len(replies) - offsets.questions
        told = replies[:asked]
        if told != self._held:
            if not self._still_holds([*map(_checked, told)]):
                return False
            self._held = told
        return offsets.hold([*map(_list, replies[asked:])])

    def _still_holds(self, replies: list[Any]) -> bool:
        (bell, *kinds), *first_days = replies
        if (bell and text(bell)) != self.bell or _texts(kinds) != [*self.kinds.values()]:
            return False
        days = map(self._days.get, self.kinds)
        # Of thousands of events, most have the same ones.
        pairs = {pair for told in first_days for pair in zip(told, days, strict=True)}
        return not any(
            day is not None and (first is None or int(first) > day.toordinal())
            for first, day in pairs
        )

    def withdraw(self, pipe: Trip, entered: Sequence[str], replies: Sequence[Any]) -> None:
        """It did not hold: queue the removal of what was `entered` of events nobody registered.

        A first day without a kind would look as if the kind had been lost.

        :param replies: those that `holds` took.
        """
        told = zip((BELL, *self.kinds), _list(replies[0]), strict=True)
        if names := {event for event, kind in told if kind is None}.intersection(entered):
            pipe.execute_command("ZREM", FIRST_DAYS, *names)

    def remember(self) -> None:
        """It held: remember that the entries are made."""
        if self._new is not None:
            self._registry.remember(self._entered, self._new.days, self._new.kinds)
            self._new = None
        if not self.is_entered:
            self._registry.remember(self._uncopied, self._first_days, {})
            self._uncopied, self._first_days = {}, {}


class ValueReliance(Reliance):
    """The kinds of the flags of dimensions, and that these have no more values than are known."""

    def __init__(
        self, registry: Registry, kinds: Mapping[str, str | None], slots: Mapping[str, str], of: int
    ) -> None:
        """
        :param slots: those of the dimensions in question, with their values; and since when months
            are kept, '' if they are not.
        :param of: how many slots all dimensions have: any new one may be of one of these.
        """
        super().__init__(registry, kinds, {})
        self.slots = slots
        self.of = of
        #: Whether the server turned out to have more values, or marks of one that had none.
        self.is_outgrown = False

    def ask(self, pipe: Trip, offsets: ReliedOffsets) -> None:
        """Also ask for the slots."""
        pipe.queue_many(self.questions)
        pipe.execute_command("HLEN", DIMENSIONS)
        if self.slots:
            pipe.execute_command("HMGET", DIMENSIONS, *self.slots)
        offsets.ask(pipe)

    def _still_holds(self, replies: list[Any]) -> bool:
        kinds, of, *slots = replies
        bell, *kinds = _texts(kinds)
        named = zip(self.kinds.values(), kinds, strict=True)
        changed = [known for known, told in named if known != told]
        held = ["" if value is None else text(value) for value in (slots[0] if slots else ())]
        has_grown = of != self.of or held != [*self.slots.values()] or bool(changed)
        self.is_outgrown = has_grown and bell == self.bell and not any(changed)
        return not has_grown and bell == self.bell


def _texts(values: Sequence[Any]) -> list[str | None]:
    found = {value: value and text(value) for value in {*values}}
    return [*map(found.__getitem__, values)]


def _checked(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply


def _list(reply: Any) -> list[Any]:
    return list(_checked(reply))
