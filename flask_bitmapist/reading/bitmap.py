"""A Redis bitmap as an immutable set of offsets, combined with NumPy.

In a Redis bitmap, bit 0 is the most significant bit of byte 0
(https://redis.io/docs/latest/commands/setbit/). The bytes are viewed as uint64 words. The machine's
byte order makes no difference to AND, OR, XOR and counting.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

try:
    import numkong
except ImportError:  # the extra `fast`
    _dot: Callable[..., Any] | None = None
else:
    _dot = numkong.dot

WORD_BYTES = 8
WORD_BITS = 64
#: From this many words on, pairs of bitmaps are counted by `Bitmap.common`: with NumKong it is
#: several times as fast as NumPy. For many smaller bitmaps, one NumPy call for all of them is
#: faster.
PAIRED_WORDS = sys.maxsize if _dot is None else 2 * 2**10


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Bitmap:
    """An immutable set of offsets. Sets of different lengths combine: missing words are 0.

    :param words: the bits in Redis's order, ``(n_words,) uint64``; the array is made read-only.
    :param first: the number of the first of these words; those before it are 0.

    >>> active, premium = Bitmap.from_bytes(b"\\xe0"), Bitmap.from_bytes(b"\\x60\\x80")
    >>> len(active), 8 in premium
    (3, True)
    >>> (active & premium).ids().tolist(), (premium - active).ids().tolist()
    ([1, 2], [8])
    """

    words: NDArray[np.uint64]
    first: int = 0
    #: Whether it is kept in containers, and costs by its members.
    is_packed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.words.flags.writeable = False

    @classmethod
    def from_bytes(cls, value: bytes | None) -> Bitmap:
        """The bitmap that GET returned: its bytes, or None for a key that does not exist."""
        value = value or b""
        padded = value.ljust(-(-len(value) // WORD_BYTES) * WORD_BYTES, b"\0")
        return cls(np.frombuffer(padded, np.uint64))

    @property
    def end(self) -> int:
        """The number of the word after the last one."""
        return self.first + self.words.size

    def between(self, begin: int, end: int) -> NDArray[np.uint64]:
        """The existing words among those numbered from `begin` to before `end`."""
        return self.words[max(0, begin - self.first) : max(0, end - self.first)]

    def part(self, begin: int, end: int) -> Bitmap:
        """The words from number `begin` to before `end`; their numbering starts at `begin`."""
        return self.raw_part(begin, end)

    def raw_part(self, begin: int, end: int) -> Bitmap:
        """The same part, as words whichever form this one has."""
        return Bitmap(self.between(begin, end), max(0, self.first - begin))

    def __and__(self, other: Bitmap) -> Bitmap:
        begin, end = max(self.first, other.first), min(self.end, other.end)
        return Bitmap(self.between(begin, end) & other.between(begin, end), begin)

    def __or__(self, other: Bitmap) -> Bitmap:
        short, words, begin = _widened(self, other)
        words[short.first - begin :][: short.words.size] |= short.words
        return Bitmap(words, begin)

    def __xor__(self, other: Bitmap) -> Bitmap:
        short, words, begin = _widened(self, other)
        words[short.first - begin :][: short.words.size] ^= short.words
        return Bitmap(words, begin)

    def __sub__(self, other: Bitmap) -> Bitmap:
        begin, end = max(self.first, other.first), min(self.end, other.end)
        words = self.words.copy()
        words[max(0, begin - self.first) : max(0, end - self.first)] &= ~other.between(begin, end)
        return Bitmap(words, self.first)

    def __len__(self) -> int:
        return _count(self.words) if _dot is None else int(_dot(self.words, self.words, "uint1"))

    def common(self, other: Bitmap) -> int:
        """How many offsets are in both: ``len(self & other)``."""
        one, two = self.words, other.words
        if self.first != other.first or one.size != two.size:
            begin, end = max(self.first, other.first), min(self.end, other.end)
            if begin >= end:
                return 0
            one, two = self.between(begin, end), other.between(begin, end)
        # The dot product of bits is how many are set in both.
        return _count(one & two) if _dot is None else int(_dot(one, two, "uint1"))

    def __bool__(self) -> bool:
        return bool(self.words.any())

    def __contains__(self, offset: int) -> bool:
        byte, bit = divmod(offset - self.first * WORD_BITS, 8)
        octets = self.words.view(np.uint8)
        return 0 <= byte < octets.size and bool(octets[byte] & (0x80 >> bit))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Bitmap):
            return NotImplemented
        return not self ^ other

    # Equal sets may differ in length, and nothing uses them as keys.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Bitmap of {len(self)} in {self.words.nbytes} bytes>"

    def octet(self, number: int) -> bytes:
        """Byte `number` in Redis's order; b"" where there is none."""
        return self.to_bytes()[number : number + 1]

    def to_bytes(self) -> bytes:
        """What SETBIT leaves behind: a string as long as the largest offset needs."""
        return (bytes(self.first * WORD_BYTES) + self.words.tobytes()).rstrip(b"\0")

    def union_of(self, several: Sequence[Bitmap]) -> Bitmap:
        """The union of several sets, in the form of this one."""
        # Into one array: a new one for each of twelve months took most of the time of a year's.
        begin, end = min(one.first for one in several), max(one.end for one in several)
        words = np.zeros(end - begin, np.uint64)
        for one in several:
            words[one.first - begin :][: one.words.size] |= one.words
        return Bitmap(words, begin)

    def ids(self) -> NDArray[np.intp]:
        """The offsets in ascending order, ``(n,) intp``."""
        # flatnonzero has a path for bool that is four times as fast; unpackbits gives 0s and 1s.
        ids = np.flatnonzero(np.unpackbits(self.words.view(np.uint8)).view(np.bool_))
        if self.first:
            ids += self.first * WORD_BITS
        return ids


def _count(words: NDArray[np.uint64]) -> int:
    # A uint32 sum takes two thirds of the time of a uint64 sum. It holds every count except that of
    # a full 512 MiB, the longest string that Redis allows.
    return int(np.bitwise_count(words).sum(dtype=np.uint32))


def _widened(one: Bitmap, other: Bitmap) -> tuple[Bitmap, NDArray[np.uint64], int]:
    """The shorter bitmap; the longer one's words, copied with room for it; the first one's
    number."""
    short, long = sorted((one, other), key=lambda bitmap: bitmap.words.size)
    if not short.words.size or (long.first <= short.first and short.end <= long.end):
        return short, long.words.copy(), long.first
    begin, end = min(short.first, long.first), max(short.end, long.end)
    words = np.zeros(end - begin, np.uint64)
    words[long.first - begin :][: long.words.size] = long.words
    return short, words, begin


EMPTY = Bitmap.from_bytes(None)


def union(bitmaps: Iterable[Bitmap]) -> Bitmap:
    """The offsets that are in any of `bitmaps`; the empty set if there are none."""
    held = [bitmap for bitmap in bitmaps if bitmap.end > bitmap.first]
    if len(held) < 2:
        return held[0] if held else EMPTY
    return max(held, key=lambda bitmap: bitmap.is_packed).union_of(held)


class UnionSoFar:
    """The union of sets that come one after the other.

    It grows in place: a new array for each set takes two thirds of the time.
    """

    def __init__(self) -> None:
        self._words = np.zeros(0, np.uint64)
        #: The number of the first of these words.
        self._first = 0
        self._packed = EMPTY

    def add(self, users: Bitmap) -> None:
        """Those in `users` are in it from now on."""
        begin, end = users.first, users.end
        if users.is_packed:
            self._packed |= users
        elif begin < end:
            if begin < self._first or end > self._first + self._words.size:
                self._widen(begin, end)
            here = self._words[begin - self._first : end - self._first]
            here |= users.words

    def _widen(self, begin: int, end: int) -> None:
        """Make room for the words from number `begin` to before `end`."""
        held = Bitmap(self._words, self._first)
        if held.words.size:
            begin, end = min(begin, held.first), max(end, held.end)
        self._words, self._first = np.zeros(end - begin, np.uint64), begin
        self._words[held.first - begin :][: held.words.size] = held.words

    def bitmap(self) -> Bitmap:
        """The union of all that have been added; none can be added any more."""
        return union((self._packed, Bitmap(self._words, self._first)))
