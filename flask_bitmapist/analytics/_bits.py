"""One bit under each of many keys, for few people: no bitmap is fetched as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

from ..periods import KEY_PREFIX, Period
from ..reading.bitmaps import octets_of
from ..reading.replies import Octets
from ..reading.time_limit import check_time

_Name = TypeVar("_Name")

# Commands of one round trip: 2 MB.
_BATCH = 20_000
#: By a bit's number, the bytes in which it is set. The first bit is the most significant one.
_WITH_BIT = [
    frozenset(bytes([octet]) for octet in range(256) if octet & (0x80 >> bit)) for bit in range(8)
]


class Keys(NamedTuple, Generic[_Name]):
    """The keys under which one bit is looked at.

    :ivar name: what the caller calls them.
    :ivar offset: the bit.
    :ivar prefix: how the keys begin.
    :ivar suffixes: how each of them ends.
    """

    name: _Name
    offset: int
    prefix: str
    suffixes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Periods:
    """Periods in which many events are looked for.

    Events share them: to work out the same 365 keys for each of 2,000 events takes seconds.
    """

    each: Sequence[Period]

    @cached_property
    def suffixes(self) -> tuple[str, ...]:
        """What follows the event's name in the key of each."""
        return tuple(period.key("")[len(KEY_PREFIX) :] for period in self.each)


def bits_of(client: Any, keys: Iterable[Keys[_Name]]) -> Iterator[tuple[_Name, list[bool]]]:
    """Each name, and whether the bit is set under each of its keys; one round trip a batch."""
    for batch in _batches(keys):
        check_time()
        places = [divmod(each.offset, 8) for each in batch]
        octets = iter(
            octets_of(
                client,
                [
                    Octets(each.prefix, each.suffixes, byte)
                    for each, (byte, _) in zip(batch, places, strict=True)
                ],
            )
        )
        for each, (_, bit) in zip(batch, places, strict=True):
            is_set = _WITH_BIT[bit].__contains__
            yield each.name, [*map(is_set, islice(octets, len(each.suffixes)))]


def _batches(keys: Iterable[Keys[_Name]]) -> Iterator[list[Keys[_Name]]]:
    """The `keys`, as many at a time as are at least `_BATCH` in all."""
    batch, size = list[Keys[_Name]](), 0
    for each in keys:
        batch.append(each)
        size += len(each.suffixes)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
