"""Bits to set or clear, as SETBIT and BITFIELD take them.

The day, the week and the month of a mark get the same offsets. So what follows the key in a command
is packed once for all three.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any, TypeVar

from ..periods import Period
from ..trip import Command, Trip
from .unmarking import Key

_T = TypeVar("_T")

#: Subcommands of one BITFIELD: more would block the server for longer without being faster.
MOST_TOGETHER = 1_000
#: What is sent before the key of a SETBIT, and before each bit of a BITFIELD.
_SETBIT = b"*4\r\n$6\r\nSETBIT\r\n"
_SET = b"$3\r\nSET\r\n$2\r\nu1\r\n"

#: What is sent of a command before the key, and after it.
Packed = tuple[bytes, bytes]


def slices(bits: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """`bits` in parts, as many as one command writes or reads."""
    for first in range(0, len(bits), MOST_TOGETHER):
        yield bits[first : first + MOST_TOGETHER]


class Bits:
    """Bits that one command writes."""

    def __init__(self, offsets: Sequence[int], values: Sequence[bool] | None = None) -> None:
        """:param values: of each bit; None: all are set."""
        self.offsets = offsets
        self._values = values

    @property
    def clears(self) -> bool:
        """Whether it clears any."""
        return self._values is not None and not all(self._values)

    @property
    def command(self) -> str:
        """The command that writes them; it replies what they were."""
        return "SETBIT" if len(self.offsets) == 1 else "BITFIELD"

    @property
    def arguments(self) -> list[object]:
        """Those of the command, behind the key."""
        if len(self.offsets) == 1:
            return [part for offset, value in self._pairs() for part in (offset, int(value))]
        return [
            part for offset, value in self._pairs() for part in ("SET", "u1", offset, int(value))
        ]

    @property
    def packed(self) -> Packed:
        """What is sent of the command before the key, and after it."""
        return _packed(self.offsets, self._values)

    def queue(self, pipe: Trip, key: str) -> None:
        """Queue the command that writes these bits of `key`."""
        pipe.queue_many(Run(None, Rows((key,), (self.offsets,), (self,))))

    def restoring(self, reply: Any) -> Bits | None:
        """What takes the command back that got `reply`; None if it changed nothing."""
        if isinstance(reply, Exception):
            return None
        before = reply if isinstance(reply, list) else [reply]
        changed = [
            (offset, not value)
            for (offset, value), held in zip(self._pairs(), before, strict=True)
            if bool(held) != value
        ]
        # From the last: a bit may be written twice.
        return Bits(*zip(*reversed(changed), strict=True)) if changed else None

    def _pairs(self) -> Iterable[tuple[int, bool]]:
        return zip(self.offsets, self._values or [True] * len(self.offsets), strict=True)


def _packed(offsets: Sequence[int], values: Sequence[bool] | None = None) -> Packed:
    """What is sent before the key and after it."""
    if values is None and len(offsets) == 1:  # most are so
        (offset,) = offsets
        return _SETBIT, b"$%d\r\n%d\r\n$1\r\n1\r\n" % (len(str(offset)), offset)
    if values is None:
        tails = [b"$%d\r\n%d\r\n$1\r\n1\r\n" % (len(str(offset)), offset) for offset in offsets]
    else:
        tails = [
            b"$%d\r\n%d\r\n$1\r\n%d\r\n" % (len(str(offset)), offset, value)
            for offset, value in zip(offsets, values, strict=True)
        ]
    if len(tails) == 1:
        return _SETBIT, tails[0]
    head = b"*%d\r\n$8\r\nBITFIELD\r\n" % (2 + 4 * len(tails))
    return head, _SET + _SET.join(tails)


class Rows:
    """Some names, and bits of each. They are packed once for all bitmaps that have these names."""

    __slots__ = ("_bits", "_known", "_packed", "names", "offsets")

    def __init__(
        self,
        names: Sequence[str],
        offsets: Sequence[Sequence[int]],
        bits: Sequence[Bits] | None = None,
        known: dict[int, Packed] | None = None,
    ) -> None:
        """
        :param bits: of each name, those at its `offsets`; None: all are set.
        :param known: what is packed already, by the identity of its offsets.
        """
        self.names = names
        self.offsets = offsets
        self._bits = bits
        self._known = known
        self._packed: list[tuple[bytes, bytes, bytes]] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, part: slice) -> Rows:
        bits = self._bits and self._bits[part]
        return Rows(self.names[part], self.offsets[part], bits, self._known)

    @property
    def bits(self) -> Sequence[Bits]:
        """The bits of each name."""
        if self._bits is None:
            self._bits = [*map(Bits, self.offsets)]
        return self._bits

    @property
    def packed(self) -> list[tuple[bytes, bytes, bytes]]:
        """The names, and what is sent before a key and after it."""
        if self._packed is None:
            names = map(str.encode, self.names)
            self._packed = [
                (name, head, tail) for name, (head, tail) in zip(names, self._made(), strict=True)
            ]
        return self._packed

    def _made(self) -> Iterable[Packed]:
        known = self._known
        if self._bits is not None:
            return [some.packed for some in self._bits]
        if known is None:
            return map(_packed, self.offsets)
        return [
            known.get(id(each)) or known.setdefault(id(each), _packed(each))
            for each in self.offsets
        ]


class Run:
    """Commands that write bits of one bitmap each: all of one period, or all undated."""

    __slots__ = ("_begin", "_end", "_period", "_rows")

    def __init__(self, period: Period | None, rows: Rows, begin: str = "", end: str = "") -> None:
        """:param rows: of each bitmap, what stands in its key between `begin` and `end`."""
        self._period = period
        self._rows = rows
        self._begin = begin
        self._end = end

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def size(self) -> int:
        """How many bits they write."""
        return sum(map(len, self._rows.offsets))

    def divided(self, most: int) -> tuple[Run, Run | None]:
        """The first commands, which write about `most` bits, and the others."""
        if self.size <= most:
            return self, None
        count = 1 + bisect_left([*accumulate(map(len, self._rows.offsets))], most)
        first, rest = (
            Run(self._period, self._rows[part], self._begin, self._end)
            for part in (slice(count), slice(count, None))
        )
        return first, rest if len(rest) else None

    def bitmaps(self) -> Iterator[Key]:
        """The bitmap of each."""
        for name in self._rows.names:
            yield Key(f"{self._begin}{name}{self._end}", self._period)

    def cleared(self) -> Iterator[Key]:
        """The bitmaps in which bits are cleared."""
        for key, bits in zip(self.bitmaps(), self._rows.bits, strict=True):
            if bits.clears:
                yield key

    def names(self) -> Iterator[Command]:
        for key, bits in zip(self.bitmaps(), self._rows.bits, strict=True):
            yield bits.command, key.name

    def commands(self) -> Iterator[Command]:
        for name, bits in zip(self.names(), self._rows.bits, strict=True):
            yield *name, *bits.arguments

    def packed(self) -> Iterator[bytes]:
        begin, end = self._begin.encode(), self._end.encode()
        rest = len(begin) + len(end)
        form = b"%%b$%%d\r\n%b%%b%b\r\n%%b" % (
            begin.replace(b"%", b"%%"),
            end.replace(b"%", b"%%"),
        )
        for name, head, tail in self._rows.packed:
            yield form % (head, len(name) + rest, name, tail)

    def restoring(self, replies: Iterator[Any]) -> Iterator[tuple[Key, Bits]]:
        """What takes the commands back that got the next of `replies`."""
        for key, bits, reply in zip(self.bitmaps(), self._rows.bits, replies, strict=False):
            if former := bits.restoring(reply):
                yield key, former


def runs(writes: Iterable[tuple[Key, Bits]]) -> list[Run]:
    """`writes`, in order."""
    found = []
    for period, of_period in groupby(writes, lambda write: write[0].period):
        keys, bits = zip(*of_period, strict=True)
        names, offsets = [key.name for key in keys], [some.offsets for some in bits]
        found.append(Run(period, Rows(names, offsets, bits)))
    return found
