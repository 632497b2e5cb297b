"""How many users events have had in a year, and which of them the most, without reading all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from ..reading.bitmaps import Extent, counts, extents, union_sizes


class Years:
    """How many users each of some events has had in one year, known as closely as it must be.

    A year has no more users than there is room for where its bitmaps are not empty, and no more
    than its months together. It has no fewer than any of its months. The server tells all of this:
    most events need not be read to know that they are not among the first.
    """

    def __init__(self, client: Any, keys: Mapping[str, tuple[str, ...]]) -> None:
        """
        :param client: any redis-py compatible client.
        :param keys: those of the year's parts, in the order of time, by event.
        """
        self._client = client
        self._keys = keys
        self._placed = extents(client, chain.from_iterable(keys.values()))
        self._counted: dict[str, int] = {}
        self._most = {
            name: Extent.hull(self._placed[key] for key in parts).bits
            for name, parts in keys.items()
        }
        self._least: dict[str, int] = {}
        self._summed = set[str]()
        #: The users of those that have been read.
        self.exact: dict[str, int] = {}

    def read(self, names: Iterable[str]) -> Mapping[str, int]:
        """How many users each of `names` has had."""
        unread = {name: self._keys[name] for name in names if name not in self.exact}
        sizes = union_sizes(self._client, [*unread.values()], self._placed)
        self.exact |= dict(zip(unread, sizes, strict=True))
        self._most |= self.exact
        self._least |= self.exact
        return self.exact

    def busiest(self, number: int, latest: slice) -> list[str]:
        """The events with the most users, most first; those of equal rank keep their order.

        :param number: how many of them.
        :param latest: the parts of the year that are likely to tell which they are.
        """
        if len(self._keys) > number:
            self.read(self._likely(number, latest))
        while True:
            first = _highest(self._most, number)
            if not (unread := [name for name in first if name not in self.exact]):
                return first
            possible = self._possible(number)
            if len(possible) > number and (rest := [*filter(self._is_unknown, possible)]):
                self._sum(rest)
            else:
                self.read(unread)

    def _likely(self, number: int, latest: slice) -> list[str]:
        """Those that are likely to have the most."""
        self._count(_highest(self._most, number), latest)
        self._count(self._possible(number), latest)
        return _highest(self._least, number)

    def _possible(self, number: int) -> list[str]:
        """Those that may be among the `number` with the most."""
        sure = sorted(self._least.values(), reverse=True)[:number]
        floor = sure[-1] if len(sure) == number else 0
        return [name for name, most in self._most.items() if most >= floor]

    def _is_unknown(self, name: str) -> bool:
        return name not in self.exact and name not in self._summed

    def _sum(self, names: Sequence[str]) -> None:
        """Learn how many users each of `names` has had in each part, summed."""
        self._count(names, slice(None))
        self._summed.update(names)
        for name in names:
            together = sum(self._counted[key] for key in self._keys[name])
            self._most[name] = min(self._most[name], together)

    def _count(self, names: Iterable[str], parts: slice) -> None:
        """Learn how many users each of `names` has had in each of the `parts` of the year."""
        asked = {name: self._keys[name][parts] for name in names}
        keys = (key for key in chain.from_iterable(asked.values()) if key not in self._counted)
        self._counted |= counts(self._client, keys, self._placed)
        for name, counted in asked.items():
            self._least[name] = max((self._counted[key] for key in counted), default=0)


def _highest(figures: Mapping[str, int], number: int) -> list[str]:
    """The first `number` of the names with the highest figures."""
    return sorted(figures, key=lambda name: -figures[name])[:number]
