"""The people who are erased: what is known of each, and which bits are theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..erased import Erasure
from ..ids import PLAIN
from ..marks import Id
from ..wishes import Wish, wishes
from .stored import name_and_period


@dataclass(eq=False)
class Person:
    """Somebody who is erased."""

    #: In its normal form.
    id: Id
    #: Events and flags whose bits stay.
    kept: frozenset[str]
    #: Their row was deleted, and this is to be done for it; the latest one comes last.
    wishes: list[Wish] = field(default_factory=list)
    #: Those of `kept` whose late marks are accepted.
    late: frozenset[str] = frozenset()
    #: Kind -> the offset in the map.
    entries: dict[str, int] = field(default_factory=dict)
    #: How many of the entries are gone.
    gone: int = 0
    #: Kind -> all offsets whose bits are to be cleared.
    offsets: dict[str, set[int]] = field(default_factory=dict)
    #: What the server calls them.
    name: str = ""
    #: The last erasure of which the server told.
    earlier: Erasure | None = None
    #: When they are erased, by the server's clock; as in `Erasure`.
    moment: int = 0
    #: The visitors who have become them.
    visitors: set[str] = field(default_factory=set)

    @property
    def since(self) -> datetime | None:
        """Since when somebody new has the id: see `Wish`."""
        return self.wishes[-1].since if self.wishes else None

    @property
    def unfinished(self) -> dict[str, list[int]]:
        """The offsets, for whoever goes on; but for the plain one, which would tell the id."""
        return {
            kind: [] if kind == PLAIN else sorted(offsets) for kind, offsets in self.offsets.items()
        }


class Persons:
    """Whose bits `Clearing` looks for."""

    def __init__(self, people: Sequence[Person]) -> None:
        self._people = people
        #: Of an event: the offsets, each with the moment since when it is somebody else's.
        self._known: dict[tuple[str, str | None], dict[int, datetime | None]] = {}
        self._tuples: dict[tuple[str, str | None], tuple[int, ...]] = {}

    def offsets(self, event: str, kind: str | None, key: str) -> tuple[int, ...]:
        """As `clearing.Whose`."""
        name = (event, kind)
        if name not in self._known:
            self._known[name] = known = {
                offset: person.since if kind == PLAIN else None
                for person in self._people
                if event not in person.kept
                for offset in person.offsets.get(kind or PLAIN, ())
            }
            self._tuples[name] = (*known,)
        known, every = self._known[name], self._tuples[name]
        if not any(known.values()):
            return every
        period = name_and_period(key)[1]
        return tuple(
            offset
            for offset, since in known.items()
            if since is None or (period is not None and period.end <= since)
        )

    def all_offsets(self) -> tuple[int, ...]:
        """As `clearing.Whose`."""
        return tuple(
            {each for one in self._people for offsets in one.offsets.values() for each in offsets}
        )

    @property
    def may_lose_some(self) -> bool:
        """As `clearing.Whose`: somebody new may get an id."""
        return any(self._open())

    def _open(self) -> Iterator[Person]:
        """Those whose ids somebody new may get."""
        return (person for person in self._people if person.wishes and person.since is None)

    def news(self, client: Any) -> bool:
        """As `clearing.Whose`."""
        if not self.may_lose_some:
            return False
        now = {wish.field: wish for wish in wishes(client) if wish.since is not None}
        found = False
        for person in [*self._open()]:
            taken = [now.get(wish.field, wish) for wish in person.wishes]
            found |= taken != person.wishes
            person.wishes = taken
        if found:
            self.forget()
        return found

    def forget(self) -> None:
        """More is known of the people now."""
        self._known.clear()
        self._tuples.clear()
