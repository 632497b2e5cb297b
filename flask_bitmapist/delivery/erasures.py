"""Marks that were made before their person was erased: they are dropped when they come late.

Each trip finds out whether anybody has been erased since this process last heard (`Reliance`). Only
then, and for marks that have waited, are the server's erasures looked at. They are dated by its
clock; with the news comes how far that of this machine is off.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import redis

from ..erased import ERASED, LAST, SALT, Erasure, digest, erasures_held, server_time
from ..marks import ONE, Id, Settled, singles
from ..registry import BELL, KINDS, Registry, text
from ..trip import replies

#: How often the server's clock is looked at, unless a look takes fewer seconds.
_LOOKS, _EXACT = 5, 0.005
#: Marks, and a moment before which none of them was made, in seconds since the epoch.
Waited = tuple[float, Sequence[Settled]]


class Since(NamedTuple):
    """Since when marks are there."""

    #: A moment before which none of them was made, in seconds since the epoch.
    made: float
    #: The last erasure for which they were sifted since, as in `Erasures.last`.
    heard: int = 0
    #: Ids that somebody new has since: all marks of them are theirs.
    new: frozenset[Id] = frozenset()
    #: A moment before which none was made, whatever they were sifted for; None: `made`.
    first: float | None = None


class Erasures:
    """What this process knows of the server's erasures."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        #: What `BELL` told last.
        self.bell: str | None = None
        self._salt = ""
        #: The moment of the last erasure, by the server's clock; 0: there was none.
        self.last = 0
        #: By how many seconds that clock is ahead, at least: rather too many marks count as earlier
        #: than an erasure than too few.
        self._ahead = 0.0

    def hear(self, client: Any) -> None:
        """Ask the server for news.

        :raises redis.RedisError: if it does not answer.
        """
        asked = [("HGET", KINDS, BELL), ("HMGET", ERASED, SALT, LAST)]
        bell, (salt, last) = replies(client, asked)
        if salt is None or last is None:
            self.last = 0
        else:
            self._salt = text(salt)
            self._ahead = ahead(client)
            self.last = int(last)
        self.bell = bell and text(bell)
        if self.bell != self._registry.history.bell:
            self._registry.ring(self.bell)

    def may_concern(self, since: Since) -> bool:
        """Whether anybody was erased whose marks of then are to be dropped."""
        return self.last > since.heard and self._is_earlier(since, self.last)

    def _is_earlier(self, since: Since, moment: int) -> bool:
        made = since.made if since.first is None else since.first
        return made + self._ahead <= moment / 1e6

    def living(self, client: Any, waited: Iterable[Waited]) -> tuple[list[Settled], Since]:
        """Those marks that were not made before their person was erased, and since when they live.

        Errors are those of `hear`.
        """
        heard, living, first = self.last, list[Settled](), time.time()
        for made, marks in waited:
            living += self.sifted(client, marks, Since(made))
            first = min(first, made)
        return living, Since(heard / 1e6 - self._ahead + _EXACT, heard, first=first)

    def sifted(self, client: Any, marks: Sequence[Settled], since: Since) -> Sequence[Settled]:
        """Those of `marks` that were not made before their person was erased.

        Errors are those of `hear`.
        """
        if not self.may_concern(since):
            return marks
        return [*self._sifted(client, marks, since)]

    def _sifted(self, client: Any, marks: Sequence[Settled], since: Since) -> Iterable[Settled]:
        found = {
            id_: erasure
            for id_, erasure in self._of(client, {id_ for _, id_ in singles(marks)} - since.new)
            if erasure.moment > since.heard and self._is_earlier(since, erasure.until)
        }
        for what, who in marks:
            lost = {id_ for id_, erasure in found.items() if what.event not in erasure.kept}
            if isinstance(who, ONE):
                if who not in lost:
                    yield what, who
            elif left := [id_ for _, id_ in singles([(what, who)]) if id_ not in lost]:
                yield what, left if len(left) < len(who) else who  # type: ignore[misc]

    def _of(self, client: Any, ids: Iterable[Id]) -> Iterable[tuple[Id, Erasure]]:
        """The erasures of those of `ids` that were erased."""
        listed = [*ids]
        held = erasures_held(client, [digest(self._salt, id_) for id_ in listed])
        for id_, erasure in zip(listed, held, strict=True):
            if erasure is not None:
                yield id_, erasure


def ahead(client: Any) -> float:
    """By how many seconds the server's clock is ahead, at least; 0, if it does not say."""
    found: list[tuple[float, float]] = []
    try:
        for _ in range(_LOOKS):
            asked = time.time()
            told = server_time(client) / 1e6
            now = time.time()
            found.append((now - asked, told - now))
            if now - asked < _EXACT:
                break
    except redis.ResponseError:  # a user may lack the right, or a proxy the command
        return 0.0
    return min(found)[1]
