"""Bits to set or clear, as SETBIT and BITFIELD take them.

The day, the week and the month of a mark get the same offsets. So what follows the key in a command
is packed once for all three.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from ..trip import Trip

_T = TypeVar("_T")

#: Subcommands of one BITFIELD: more would block the server for longer without being faster.
MOST_TOGETHER = 1_000


def slices(bits: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """`bits` in parts, as many as one command writes or reads."""
    for first in range(0, len(bits), MOST_TOGETHER):
        yield bits[first : first + MOST_TOGETHER]


class Bits:
    """Bits that one command writes, to one key or to several."""

    def __init__(self, offsets: Sequence[int], values: Sequence[bool] | None = None) -> None:
        """:param values: of each bit; None: all are set."""
        self.offsets = offsets
        self._values = values
        # No cached_property: Python 3.11 takes a lock for each.
        self._packed: tuple[str, bytes, bytes] | None = None

    @property
    def clears(self) -> bool:
        """Whether it clears any."""
        return self._values is not None and not all(self._values)

    def queue(self, pipe: Trip, key: str) -> None:
        """Queue the command that writes these bits of `key`; it replies what they were."""
        command, head, tail = self._packed or self._pack()
        if pipe.packs:
            name = key.encode()
            pipe.queue_packed((command, key), b"%b$%d\r\n%b\r\n%b" % (head, len(name), name, tail))
        else:
            pipe.execute_command(command, key, *self._arguments())

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

    def _arguments(self) -> list[object]:
        if len(self.offsets) == 1:
            return [part for offset, value in self._pairs() for part in (offset, int(value))]
        return [
            part for offset, value in self._pairs() for part in ("SET", "u1", offset, int(value))
        ]

    def _pack(self) -> tuple[str, bytes, bytes]:
        """The command, and what is sent of it before the key and after it; once for all keys."""
        if len(self.offsets) == 1:
            command, head, subcommand = "SETBIT", b"*4\r\n$6\r\nSETBIT\r\n", ""
        else:
            arguments = 2 + 4 * len(self.offsets)
            command, head = "BITFIELD", b"*%d\r\n$8\r\nBITFIELD\r\n" % arguments
            subcommand = "$3\r\nSET\r\n$2\r\nu1\r\n"
        self._packed = command, head, _packed_bits(subcommand, self._pairs())
        return self._packed


def _packed_bits(before: str, pairs: Iterable[tuple[int, bool]]) -> bytes:
    parts = []
    for offset, value in pairs:
        digits = str(offset)
        parts.append(f"{before}${len(digits)}\r\n{digits}\r\n$1\r\n{'1' if value else '0'}\r\n")
    return "".join(parts).encode()
