"""Where things are in the portable form of a Roaring bitmap, so that parts of it can be read.

It begins with a head that lists its containers, which hold the offsets of 65,536 each; then they
follow one after the other (https://github.com/RoaringBitmap/RoaringFormatSpec).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Offsets, and bytes of a bitmap, for which there is one container.
CONTAINER_BITS = 2**16
CONTAINER_BYTES = CONTAINER_BITS // 8
#: A container with more members than this holds bits, another one their numbers.
MOST_NUMBERS = 4096
#: What the form begins with if no container holds runs, and if some do.
WITHOUT_RUNS, WITH_RUNS = 12346, 12347
#: With fewer containers, of which some hold runs, the head does not tell where they begin.
_FEWEST_PLACED = 4


class TooShortError(Exception):
    """More of a portable form is needed: its first `length` bytes."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length


class _Layout(NamedTuple):
    """How many containers there are, and where the parts of the head begin."""

    containers: int
    flags: range
    described: int
    placed: int | None
    length: int

    @classmethod
    def of(cls, value: bytes) -> _Layout:
        """
        :param value: the first 8 bytes at least.
        :raises ValueError: if it is no portable form.
        """
        if len(value) < 8:
            raise ValueError("no bitmap")
        cookie, containers = struct.unpack_from("<II", value)
        if cookie & 0xFFFF == WITH_RUNS:
            containers, flags = (cookie >> 16) + 1, range(4, 4 + ((cookie >> 16) + 8) // 8)
        elif cookie == WITHOUT_RUNS:
            flags = range(8, 8)
        else:
            raise ValueError("no bitmap")
        if containers > CONTAINER_BITS:
            raise ValueError("too many containers for a bitmap")
        described, end = flags.stop, flags.stop + 4 * containers
        if flags and containers < _FEWEST_PLACED:
            return cls(containers, flags, described, None, end)
        return cls(containers, flags, described, end, end + 4 * containers)

    def has_runs(self, value: bytes) -> NDArray[np.bool_]:
        """Which containers hold runs, ``(containers,) bool``."""
        octets = np.frombuffer(value, np.uint8, len(self.flags), self.flags.start)
        bits = np.unpackbits(octets, bitorder="little")[: self.containers].view(np.bool_)
        return bits if self.flags else np.zeros(self.containers, np.bool_)


class Head(NamedTuple):
    """The containers of one portable form.

    :ivar numbers: which stretch of 65,536 offsets each is for, ``(n,) int``.
    :ivar sizes: how many members each has.
    :ivar has_runs: which of them hold runs.
    :ivar places: where each begins, and where the last one ends, ``(n + 1,) int``.
    :ivar length: that of the head, in bytes.
    """

    numbers: NDArray[np.int64]
    sizes: NDArray[np.int64]
    has_runs: NDArray[np.bool_]
    places: NDArray[np.int64]
    length: int

    @classmethod
    def of(cls, value: bytes, size: int) -> Head:
        """The head of a portable form.

        :param value: its first bytes.
        :param size: how many it has in all.
        :raises TooShortError: telling how many are needed.
        :raises ValueError: if it is damaged, or no such form.
        """
        layout = _Layout.of(value)
        count, placed = layout.containers, layout.placed
        needed = size if placed is None else layout.length
        if needed > size:
            raise ValueError("a bitmap that is cut off")
        if len(value) < needed:
            raise TooShortError(needed)
        described = np.frombuffer(value, "<u2", 2 * count, layout.described).astype(np.int64)
        numbers, sizes = described[::2], described[1::2] + 1
        has_runs = layout.has_runs(value)
        places = np.empty(count + 1, np.int64)
        places[-1] = size
        if placed is None:
            places[:-1] = _places(value, layout.length, sizes, has_runs)
        else:
            places[:-1] = np.frombuffer(value, "<u4", count, placed)
        head = cls(numbers, sizes, has_runs, places, layout.length)
        head._check()
        return head

    def _check(self) -> None:
        # Not np.diff(), which takes longer than all the rest here.
        told = self.places[1:] - self.places[:-1]
        plain = np.where(self.sizes > MOST_NUMBERS, CONTAINER_BYTES, 2 * self.sizes)
        fits = np.where(self.has_runs, (told >= 6) & (told <= CONTAINER_BYTES), told == plain)
        if (
            not fits.all()
            or self.places[0] != self.length
            or (self.numbers[1:] <= self.numbers[:-1]).any()
        ):
            raise ValueError("a bitmap whose containers are not where it says")

    def between(self, first: int, last: int) -> range:
        """The indices of the containers with the numbers from `first` to before `last`."""
        begin, end = np.searchsorted(self.numbers, (first, last)).tolist()
        return range(begin, end)

    def cut(self, containers: range, body: bytes, since: int) -> bytes:
        """The portable form of some of the containers alone.

        :param containers: their indices; at least one.
        :param body: their bytes.
        :param since: the number that becomes 0.
        """
        part, count = slice(containers.start, containers.stop), len(containers)
        entries = np.empty((count, 2), "<u2")
        entries[:, 0] = self.numbers[part] - since
        entries[:, 1] = self.sizes[part] - 1
        has_runs = self.has_runs[part]
        if not has_runs.any():
            begin = struct.pack("<II", WITHOUT_RUNS, count)
        else:
            begin = struct.pack("<I", count - 1 << 16 | WITH_RUNS)
            begin += np.packbits(has_runs, bitorder="little").tobytes()
            if count < _FEWEST_PLACED:
                return b"".join((begin, entries.tobytes(), body))
        places = self.places[part] - self.places[part.start] + len(begin) + 8 * count
        return b"".join((begin, entries.tobytes(), places.astype("<u4").tobytes(), body))


def _places(
    value: bytes, begin: int, sizes: NDArray[np.int64], has_runs: NDArray[np.bool_]
) -> list[int]:
    """Where the few containers of a whole form begin that does not tell."""
    places = []
    for size, runs in zip(sizes.tolist(), has_runs.tolist(), strict=True):
        places.append(begin)
        if runs:
            begin += 2 + 4 * int.from_bytes(value[begin : begin + 2], "little")
        else:
            begin += CONTAINER_BYTES if size > MOST_NUMBERS else 2 * size
    return places


class Place(NamedTuple):
    """What to read of a portable form, to know one byte of its bitmap.

    :ivar begin: of the bytes to read.
    :ivar end: after them.
    :ivar kind: what they are: ``bits``, ``numbers`` or ``runs``; or ``none``, of no container.
    :ivar is_last: whether the bitmap may end in that container, or has ended before it.
    """

    begin: int
    end: int
    kind: str
    is_last: bool


def place_of(value: bytes, size: int, byte: int) -> Place:
    """Where the members of the bitmap are that are in one byte of it.

    :param value: how the form begins: not always all of its head.
    :param size: how many bytes it has in all.
    :param byte: the index of the byte.
    :raises TooShortError: telling how many bytes are needed.
    :raises ValueError: if it is damaged, or no such form.
    """
    layout, (number, inside) = _Layout.of(value), divmod(byte, CONTAINER_BYTES)
    count = layout.containers
    told = min(count, max(0, len(value) - layout.described) // 4)
    described = np.frombuffer(value, "<u2", 2 * told, layout.described if told else 0)
    index = int(np.searchsorted(described[::2], number))
    if index >= told < count:
        raise TooShortError(min(size, layout.length))
    if index >= told or described[2 * index] != number:
        return Place(0, 0, "none", is_last=index == count)
    is_last = index == count - 1
    sizes = described[1 : 2 * index + 2 : 2].astype(np.int64) + 1
    if layout.flags:
        needed = size if layout.placed is None else layout.length
        if len(value) < needed:
            raise TooShortError(needed)
        begin = int(Head.of(value, size).places[index])
        if layout.has_runs(value)[index]:  # they are shorter than bits
            return Place(begin, begin + CONTAINER_BYTES, "runs", is_last)
    else:
        before = sizes[:-1]
        begin = layout.length
        begin += int(np.where(before > MOST_NUMBERS, CONTAINER_BYTES, 2 * before).sum())
    if sizes[-1] <= MOST_NUMBERS:
        return Place(begin, begin + 2 * int(sizes[-1]), "numbers", is_last)
    end = begin + (CONTAINER_BYTES if is_last else inside + 1)
    return Place(begin + inside, end, "bits", is_last)


def octet_in(found: bytes, place: Place, byte: int) -> bytes:
    """That byte of the bitmap, in Redis's order; b"" after its end.

    :param found: what stands at its `place`.
    :raises ValueError: if too little does.
    """
    if len(found) < (6 if place.kind == "runs" else place.end - place.begin):
        raise ValueError("a bitmap that is cut off")
    if place.kind == "bits":
        octet, after = int(f"{found[0]:08b}"[::-1], 2), any(found[1:])
    else:
        octet, after = _members(found, place, byte % CONTAINER_BYTES * 8)
    return bytes([octet]) if octet or after or not place.is_last else b""


def _members(found: bytes, place: Place, first: int) -> tuple[int, bool]:
    """The bits of the offsets from `first` on, and whether there are later ones."""
    if place.kind == "none":
        return 0, False
    if place.kind == "numbers":
        begins = ends = np.frombuffer(found, "<u2").astype(np.int64)
    else:
        count = int.from_bytes(found[:2], "little")
        if not count or len(found) < 2 + 4 * count:
            raise ValueError("a bitmap that is cut off")
        begins, more = np.frombuffer(found, "<u2", 2 * count, 2).astype(np.int64).reshape(-1, 2).T
        ends = begins + more
    bits = range(first, first + 8)
    near = (ends >= first) & (begins < first + 8)
    spans = [*zip(begins[near].tolist(), ends[near].tolist(), strict=True)]
    octet = sum(0x80 >> bit - first for bit in bits if any(b <= bit <= e for b, e in spans))
    return octet, bool(ends[-1] >= first + 8)
