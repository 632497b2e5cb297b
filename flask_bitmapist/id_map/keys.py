"""Where the id map of a kind is kept: all in one hash tag, so on one node of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from ..ids import MAPPED

#: Offsets in one list: an element of a longer one takes the server longer to find.
BLOCK = 4096
#: Ids that are read with those asked for, rather than starting a command of their own.
GAP = 32


@dataclass(frozen=True, slots=True)
class MapKeys:
    """The keys of one map."""

    #: A hash: how many ids there are, and the buckets of the index.
    index: str
    #: Followed by a number: lists of `BLOCK` ids each, in the order of their offsets. By itself it
    #: was the list of all in earlier builds.
    order: str
    #: In earlier builds, a hash id -> offset.
    former: str
    #: A hash: a visitor who has become a user -> that user.
    promoted: str
    #: A hash: such a visitor -> the `Move` of their bits, until it is done.
    moving: str

    def block(self, offset: int) -> str:
        """The list with the id of `offset`."""
        return f"{self.order}:{offset // BLOCK}"

    def vital(self) -> tuple[str, str]:
        """Keys of which each map has at least one."""
        return self.index, self.block(0)


@lru_cache(maxsize=256)
def map_keys(kind: str) -> MapKeys:
    """The keys of the mapped `kind`."""
    begin = f"flask_bitmapist:{{ids{kind.removeprefix(MAPPED)}}}"
    names = ("index", "order", "offsets", "promoted", "moving")
    return MapKeys(*(f"{begin}:{name}" for name in names))


#: Offsets that one command reads: the first and the last.
Stretch = tuple[int, int]


def reading(keys: MapKeys, stretch: Stretch) -> tuple[str, str, int, int]:
    """The command that reads the ids of `stretch`."""
    first, last = stretch
    return "LRANGE", keys.block(first), first % BLOCK, last % BLOCK


def stretches(offsets: Iterable[int]) -> Iterator[Stretch]:
    """Stretches that cover the ascending `offsets`, with small gaps between them."""
    rest = iter(offsets)
    first = last = next(rest, -1)
    if first < 0:
        return
    end = (first // BLOCK + 1) * BLOCK
    for offset in rest:
        if offset - last > GAP or offset >= end:
            yield first, last
            first = offset
            end = (first // BLOCK + 1) * BLOCK
        last = offset
    yield first, last
