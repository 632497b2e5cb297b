"""Redis bitmaps as immutable sets: fetched in one round trip, combined with NumPy, never written.

In a Redis bitmap, bit 0 is the most significant bit of byte 0
(https://redis.io/docs/latest/commands/setbit/). The bytes are viewed as uint64 words; the machine's
byte order does not matter to AND, OR, XOR and counting.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORD_BYTES = 8


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Bitmap:
    """An immutable set of offsets. Sets of different lengths combine: what is missing is 0.

    :param words: the bits in Redis's order, ``(n_words,) uint64``; the array is made read-only.

    >>> active, premium = Bitmap.from_bytes(b"\\xe0"), Bitmap.from_bytes(b"\\x60\\x80")
    >>> len(active), 8 in premium
    (3, True)
    >>> (active & premium).ids().tolist(), (premium - active).ids().tolist()
    ([1, 2], [8])
    """

    words: NDArray[np.uint64]

    def __post_init__(self) -> None:
        self.words.flags.writeable = False

    @classmethod
    def from_bytes(cls, value: bytes | None) -> Bitmap:
        """The bitmap that GET returned: its bytes, or None for a key that does not exist."""
        value = value or b""
        padded = value.ljust(-(-len(value) // WORD_BYTES) * WORD_BYTES, b"\0")
        return cls(np.frombuffer(padded, np.uint64))

    def __and__(self, other: Bitmap) -> Bitmap:
        shared = min(self.words.size, other.words.size)
        return Bitmap(self.words[:shared] & other.words[:shared])

    def __or__(self, other: Bitmap) -> Bitmap:
        short, long = sorted((self.words, other.words), key=len)
        words = long.copy()
        words[: short.size] |= short
        return Bitmap(words)

    def __xor__(self, other: Bitmap) -> Bitmap:
        short, long = sorted((self.words, other.words), key=len)
        words = long.copy()
        words[: short.size] ^= short
        return Bitmap(words)

    def __sub__(self, other: Bitmap) -> Bitmap:
        shared = min(self.words.size, other.words.size)
        words = self.words.copy()
        words[:shared] &= ~other.words[:shared]
        return Bitmap(words)

    def __len__(self) -> int:
        # A uint32 sum takes two thirds of a uint64 one's time, and holds every count short of a
        # full 512 MiB, the longest string that Redis allows.
        return int(np.bitwise_count(self.words).sum(dtype=np.uint32))

    def __bool__(self) -> bool:
        return bool(self.words.any())

    def __contains__(self, offset: int) -> bool:
        byte, bit = divmod(offset, 8)
        octets = self.words.view(np.uint8)
        return 0 <= byte < octets.size and bool(octets[byte] & (0x80 >> bit))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Bitmap):
            return NotImplemented
        return not self ^ other

    # Equal sets may differ in length, and nothing needs them as keys.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Bitmap of {len(self)} in {self.words.nbytes} bytes>"

    def ids(self) -> NDArray[np.intp]:
        """The offsets in ascending order, ``(n,) intp``."""
        # flatnonzero has a path for bool that is four times as fast; unpackbits gives 0s and 1s.
        return np.flatnonzero(np.unpackbits(self.words.view(np.uint8)).view(np.bool_))


EMPTY = Bitmap.from_bytes(None)


def union(bitmaps: Iterable[Bitmap]) -> Bitmap:
    """The offsets that are in any of `bitmaps`; the empty set if there are none."""
    return reduce(or_, bitmaps, EMPTY)


def fetch(client: Any, keys: Iterable[str]) -> dict[str, Bitmap]:
    """The bitmaps under `keys`, each read once, all in one round trip.

    :param client: any redis-py compatible client.
    :param keys: duplicates are welcome; a key that does not exist is the empty set.
    :raises redis.RedisError: the server does not answer, or a key holds no string.
    """
    return {key: Bitmap.from_bytes(value) for key, value in _read(client, "GET", keys).items()}


def counts(client: Any, keys: Iterable[str]) -> dict[str, int]:
    """How many bits are set under each of `keys`, counted by the server in one round trip.

    A year has no key: `fetch` its months and count their `union`. Parameters and errors are those
    of `fetch`.
    """
    return _read(client, "BITCOUNT", keys)


def _read(client: Any, command: str, keys: Iterable[str]) -> dict[str, Any]:
    distinct = list(dict.fromkeys(keys))
    if not distinct:
        return {}
    pipeline = client.pipeline(transaction=False)
    for key in distinct:
        # A client made with decode_responses=True would take a bitmap for UTF-8 text, and fail.
        pipeline.execute_command(command, key, NEVER_DECODE=True)
    return dict(zip(distinct, pipeline.execute(), strict=True))
