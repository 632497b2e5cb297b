"""A set of offsets in Roaring containers: it costs by its members, not by the largest of them.

The form is the portable one of https://github.com/RoaringBitmap/RoaringFormatSpec, which other
languages read too: containers for 65,536 offsets each, as sorted numbers, bits or runs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bitmap import WORD_BITS, Bitmap
from .portable import CONTAINER_BITS, CONTAINER_BYTES, MOST_NUMBERS, WITHOUT_RUNS

try:
    import pyroaring
except ImportError as error:  # the extra `pack`
    raise ImportError(
        "Packed bitmaps are read with pyroaring: pip install flask-bitmapist[pack]",
        name="pyroaring",
    ) from error

#: Each byte with its bits in the other order: Roaring's bit 0 is the least significant one.
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)), bitorder="little")


class Packed(Bitmap):
    """An immutable set of offsets with the algebra of `Bitmap`, with which it combines too.

    >>> Packed.of(Bitmap.from_bytes(b"\\xe0")) & Bitmap.from_bytes(b"\\x60")
    <Packed of 2>
    """

    __slots__ = ("_roaring",)
    _roaring: Any
    is_packed = True

    def __init__(self, roaring: Any) -> None:
        """:param roaring: a ``pyroaring.BitMap``, which nobody changes from now on."""
        object.__setattr__(self, "_roaring", roaring)

    @classmethod
    def from_portable(cls, value: bytes) -> Packed:
        """The set whose portable form is `value`.

        :raises ValueError: if it is damaged, or no such form.
        """
        try:
            return cls(pyroaring.BitMap.deserialize(value))
        except IndexError as error:  # of no byte at all
            raise ValueError("no bitmap") from error

    @classmethod
    def containing(cls, offsets: Iterable[int]) -> Packed:
        """The set of `offsets`."""
        return cls(pyroaring.BitMap(offsets))

    @classmethod
    def of(cls, bitmap: Bitmap) -> Packed:
        """The same set as `bitmap`."""
        if isinstance(bitmap, Packed):
            return bitmap
        return cls(_roaring(bitmap.words.view(np.uint8), bitmap.first * WORD_BITS))

    def to_portable(self) -> bytes:
        """Its portable form, with runs where these are shorter."""
        return bytes(pyroaring.BitMap(self._roaring, optimize=True).serialize())

    def without(self, offsets: Iterable[int]) -> Packed:
        """The same set, but for `offsets`."""
        return Packed(self._roaring - pyroaring.BitMap(offsets))

    def octet(self, number: int) -> bytes:
        return self._octets(number * 8, min(number * 8 + 8, self._end)).tobytes()

    def to_bytes(self) -> bytes:
        return self._octets(0, self._end).tobytes()

    @property
    def words(self) -> NDArray[np.uint64]:
        """The bits in Redis's order: as many words as the largest offset needs."""
        return self._octets(0, -(-self._end // WORD_BITS) * WORD_BITS).view(np.uint64)

    @property
    def first(self) -> int:
        return 0

    @property
    def end(self) -> int:
        return -(-self._end // WORD_BITS)

    @property
    def _end(self) -> int:
        return int(self._roaring.max()) + 1 if self._roaring else 0

    def between(self, begin: int, end: int) -> NDArray[np.uint64]:
        begin, end = max(0, begin), min(end, self.end)
        return self._octets(begin * WORD_BITS, max(begin, end) * WORD_BITS).view(np.uint64)

    def part(self, begin: int, end: int) -> Packed:
        part = self._roaring & pyroaring.BitMap(range(begin * WORD_BITS, end * WORD_BITS))
        return Packed(part.shift(-begin * WORD_BITS) if begin else part)

    def __and__(self, other: Bitmap) -> Packed:
        return Packed(self._roaring & Packed.of(other)._roaring)

    def __or__(self, other: Bitmap) -> Packed:
        return Packed(self._roaring | Packed.of(other)._roaring)

    def __xor__(self, other: Bitmap) -> Packed:
        return Packed(self._roaring ^ Packed.of(other)._roaring)

    def __sub__(self, other: Bitmap) -> Packed:
        return Packed(self._roaring - Packed.of(other)._roaring)

    # Python asks a subclass first, so a bitmap beside a packed set becomes one.
    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __rsub__(self, other: Bitmap) -> Packed:
        return Packed.of(other) - self

    def common(self, other: Bitmap) -> int:
        return int(self._roaring.intersection_cardinality(Packed.of(other)._roaring))

    def union_of(self, several: Sequence[Bitmap]) -> Packed:
        return Packed(pyroaring.BitMap.union(*(Packed.of(one)._roaring for one in several)))

    def __len__(self) -> int:
        return len(self._roaring)

    def __bool__(self) -> bool:
        return bool(self._roaring)

    def __contains__(self, offset: int) -> bool:
        return 0 <= offset < 2**32 and offset in self._roaring

    def __repr__(self) -> str:
        return f"<Packed of {len(self)}>"

    def ids(self) -> NDArray[np.intp]:
        return np.frombuffer(self._roaring.to_array(), np.uint32).astype(np.intp)

    def _octets(self, begin: int, end: int) -> NDArray[np.uint8]:
        """The bits from offset `begin` to before `end` in Redis's order."""
        octets = np.zeros(max(0, -(-(end - begin) // 8)), np.uint8)
        # In steps, since where there are many each bit is a byte for a moment.
        for first in range(begin, end, _STEP):
            last = min(first + _STEP, end)
            if not self._roaring.range_cardinality(first, last):
                continue
            inside = self._roaring & pyroaring.BitMap(range(first, last))
            numbers = np.frombuffer(inside.to_array(), np.uint32) - np.uint32(first)
            part = octets[(first - begin) // 8 :][: -(-(last - first) // 8)]
            if numbers.size * _SPARSE < last - first:
                np.add.at(part, numbers >> 3, _BIT[numbers & 7])
                continue
            bits = np.zeros(last - first, np.bool_)
            bits[numbers] = True
            part[:] = np.packbits(bits)
        return octets


_STEP = 16 * CONTAINER_BITS
#: If less than one in so many is a member, it is faster to set bit after bit.
_SPARSE = 16
_BIT = np.array([0x80 >> bit for bit in range(8)], np.uint8)


def _roaring(octets: NDArray[np.uint8], first: int) -> Any:
    """The ``pyroaring.BitMap`` of bits in Redis's order.

    The portable form is put together here: from an array of offsets it takes eight times as long.

    :param first: the offset of the first bit.
    """
    before, skipped = divmod(first, CONTAINER_BITS)
    size = -(-(skipped // 8 + octets.size) // CONTAINER_BYTES) * CONTAINER_BYTES
    padded = np.zeros(size, np.uint8)
    padded[skipped // 8 :][: octets.size] = octets
    containers = padded.reshape(-1, CONTAINER_BYTES)
    counted = np.bitwise_count(containers.view(np.uint64)).sum(axis=1, dtype=np.uint32)
    held = counted.nonzero()[0]
    sizes = counted[held]
    return pyroaring.BitMap.deserialize(
        _head(held + before, sizes) + _bodies(containers, held, sizes)
    )


def _head(numbers: NDArray[np.intp], sizes: NDArray[np.uint32]) -> bytes:
    """What precedes the containers with these `numbers` and `sizes`, none of which holds runs."""
    keys = np.stack((numbers, sizes - 1), axis=1).astype("<u2")
    lengths = np.where(sizes > MOST_NUMBERS, CONTAINER_BYTES, sizes * 2)
    begin = 8 + 8 * numbers.size
    places = begin + np.cumsum(lengths) - lengths
    return (
        struct.pack("<II", WITHOUT_RUNS, numbers.size)
        + keys.tobytes()
        + places.astype("<u4").tobytes()
    )


def _bodies(
    containers: NDArray[np.uint8], held: NDArray[np.intp], sizes: NDArray[np.uint32]
) -> bytes:
    """The containers that are `held`, one after the other."""
    dense = sizes > MOST_NUMBERS
    bits = _REVERSED[containers[held[dense]]]
    sparse = np.unpackbits(containers[held[~dense]]).view(np.bool_)
    numbers = (np.flatnonzero(sparse) & (CONTAINER_BITS - 1)).astype("<u2")
    if not dense.any():
        return numbers.tobytes()
    bodies, begin, number = list[bytes](), 0, 0
    for is_dense, size in zip(dense.tolist(), sizes.tolist(), strict=True):
        if is_dense:
            bodies.append(bits[number].tobytes())
            number += 1
        else:
            bodies.append(numbers[begin : begin + size].tobytes())
            begin += size
    return b"".join(bodies)
